"""Submissions: one intent before each sbatch, one receipt after it, and what became of its tasks.

In `submissions/` of a phase, for submission 1: `0001.intent.json` is written before anything is sent;
`0001.receipt.json` when the cluster's job ids are known; `0001.abandoned.json` when it is certain that
nothing of it runs or will run; `0001.lost-0003.json` when task 3 has ended and left trials without an
outcome.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.sweep.files import create_exclusive, read_as, write_json
from orchestrator.sweep.plain import fact_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Intent:
    """What is about to be submitted: the unique token in the job's name, and each task's trials."""

    number: int
    token: str
    tasks: tuple[tuple[str, ...], ...]
    created: float
    host: str
    # with what is declared for trials that ran out of memory
    larger: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """The cluster's job id of each task, and the machine that can see them (local executor)."""

    jobs: tuple[str, ...]
    host: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """A task that ended without an outcome for some of its trials; `blamed` are those it counts against."""

    reason: str
    blamed: tuple[str, ...]
    # one of cluster.interface.CAUSES
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A submission of which nothing runs or will run.

    Attributes:
        reason: for a person to read.
        time: seconds since the epoch.
        refused: the cluster said no; otherwise it was interrupted.
        full: it had no room for so much.
    """

    reason: str
    time: float = 0.0
    refused: bool = False
    full: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """One submission with all that is known of it."""

    intent: Intent
    receipt: Receipt | None = None
    refusal: Refusal | None = None
    losses: Mapping[int, Loss] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """Its number within the phase."""
        return self.intent.number

    @property
    def abandoned(self) -> bool:
        """Whether nothing of it runs or will run."""
        return self.refusal is not None


def write_intent(folder: Path, intent: Intent) -> bool:
    """Write an intent; False when another process has already used its number."""
    return create_exclusive(_path(folder, intent.number, "intent"), json.dumps(asdict(intent)) + "\n")


def write_receipt(folder: Path, number: int, receipt: Receipt) -> None:
    """Write the receipt of a submission."""
    write_json(_path(folder, number, "receipt"), asdict(receipt))


def write_abandoned(folder: Path, number: int, refusal: Refusal) -> None:
    """Write down that nothing of a submission runs or will run; a task of it that starts ends at once."""
    write_json(_path(folder, number, "abandoned"), asdict(refusal))


def is_abandoned(folder: Path, number: int) -> bool:
    """Say whether a submission was abandoned, as a task asks before it begins."""
    return _path(folder, number, "abandoned").exists()


def write_loss(folder: Path, number: int, task: int, loss: Loss) -> None:
    """Write down that a task has ended and left trials without an outcome."""
    write_json(_path(folder, number, f"lost-{task:04d}"), asdict(loss))


def read_intent(folder: Path, number: int) -> Intent:
    """Read one intent, as a task does to find its trials."""
    return _read_intent(_path(folder, number, "intent"), number)


def read_submissions(folder: Path) -> list[Submission]:
    """Read all submissions of a phase in the order of their numbers."""
    intents: dict[int, Intent] = {}
    receipts: dict[int, Receipt] = {}
    refusals: dict[int, Refusal] = {}
    losses: dict[int, dict[int, Loss]] = {}
    for path in folder.glob("[0-9]*.json"):
        found = re.fullmatch(r"(\d+)\.(intent|receipt|abandoned|lost-(\d+))\.json", path.name)
        if not found:
            continue
        number, kind = int(found[1]), found[2]
        if kind == "abandoned":
            refusals[number] = read_as(path, lambda content: fact_of(Refusal, content), "a refusal")
        elif kind == "intent":
            intents[number] = _read_intent(path, number)
        elif kind == "receipt":
            receipts[number] = read_as(path, lambda content: fact_of(Receipt, content), "a receipt")
        else:
            loss = read_as(path, lambda content: fact_of(Loss, content), "a loss")
            losses.setdefault(number, {})[int(found[3])] = loss
    submissions = [
        Submission(
            intent=intents[number],
            receipt=receipts.get(number),
            refusal=refusals.get(number),
            losses=losses.get(number, {}),
        )
        for number in sorted(intents)
    ]
    for submission in submissions:
        _vet(folder, submission)
    return submissions


def _read_intent(path: Path, number: int) -> Intent:
    def understand(content: Any) -> Intent:
        intent = fact_of(Intent, content)
        if intent.number != number:
            raise ValueError(f"it has the number {intent.number}")
        return intent

    return read_as(path, understand, "a submission")


def _vet(folder: Path, submission: Submission) -> None:
    """Refuse files that are each well formed and don't fit together.

    Raises:
        UserError: a receipt has another number of jobs than there are tasks, or a loss is of none of them.
    """
    tasks, number = len(submission.intent.tasks), submission.number
    hint = "Restore it, or plan anew"
    if submission.receipt is not None and len(submission.receipt.jobs) != tasks:
        problem = f"has {len(submission.receipt.jobs)} jobs for the {tasks} tasks of its submission"
        raise UserError(problem, file=_path(folder, number, "receipt"), hint=hint)
    if lost := [task for task in submission.losses if task >= tasks]:
        problem = f"is about a task that submission {number} has not: it has {tasks}"
        raise UserError(problem, file=_path(folder, number, f"lost-{lost[0]:04d}"), hint=hint)


def _path(folder: Path, number: int, kind: str) -> Path:
    return folder / f"{number:04d}.{kind}.json"
