"""What record files say, as plain columns; lines that are torn or make no sense are counted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.results.known import Known, stamp
from orchestrator.results.schema import text
from orchestrator.sweep import records

# What the diagnosis saw of a trial: code, evidence and the step at which it showed.
Seen = tuple[str, str, int]
# One attempt among a stage's: (submission, attempt, file's name, how often the trial started in this file).
Attempt = tuple[int, int, str, int]


@dataclass(frozen=True, slots=True)
class Place:
    """What a task ran on and with: its GPU's name and the commit of the user's code."""

    gpu: str = ""
    git_commit: str = ""


@dataclass(slots=True)
class Fragment:
    """What one record file says; `reports` holds columns: trial, step, metric, value, time, start."""

    path: Path
    outcomes: list[tuple[records.Outcome, int]] = field(default_factory=list)
    starts: Counter[str] = field(default_factory=Counter)
    reports: tuple[list[Any], ...] = field(default_factory=lambda: ([], [], [], [], [], []))
    # by the trial and how often it had started in this file
    findings: dict[tuple[str, int], list[Seen]] = field(default_factory=dict)
    place: Place = Place()
    unreadable: int = 0
    # the file's size and time when it was read
    stamp: tuple[int, int] = (-1, -1)

    @property
    def trials(self) -> tuple[str, ...]:
        """The trials that it has lines of, sorted."""
        reported = set(self.reports[0])
        return tuple(
            sorted(
                {
                    *self.starts,
                    *reported,
                    *(one.trial for one, _ in self.outcomes),
                    *(t for t, _ in self.findings),
                }
            )
        )

    def attempt(self, start: int) -> Attempt:
        """Return the place of this file's attempt among all of the stage's."""
        numbers = [int(digits) for digits in re.findall(r"\d+", self.path.stem)]
        submission, attempt = (numbers[0], numbers[2]) if len(numbers) >= 3 else (0, 0)
        return submission, attempt, self.path.name, start


def record_files(folder: Path) -> list[Path]:
    """Return the record files of a phase; none yet gives an empty list."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def read_fragments(paths: Sequence[Path]) -> list[Fragment]:
    """Read some record files. A file that has vanished meanwhile is an empty one."""
    fragments = []
    for path in paths:
        try:
            fragments.append(read_fragment(path))
        except FileNotFoundError:
            fragments.append(Fragment(path=path))
    return fragments


def read_fragment(path: Path) -> Fragment:
    """Read one record file; lines that are torn or make no sense are counted and passed over."""
    # Before it is read: what a task appends meanwhile is new the next time.
    before = stamp(path)
    record = records.read_file(path)
    header = record.header
    place = Place(gpu=text(str(header.get("gpu", ""))), git_commit=text(str(header.get("git_commit", ""))))
    fragment = Fragment(path=path, place=place, unreadable=record.unreadable, stamp=before)
    lines, record.lines = record.lines, []
    for line in lines:
        kind, trial = line["kind"], line.get("trial")
        if kind == "start" and isinstance(trial, str):
            fragment.starts[trial] += 1
        elif kind == "report":
            fragment.unreadable += not _add_report(fragment, line)
        elif kind == "finding" and isinstance(trial, str):
            seen = (str(line.get("code", "")), str(line.get("evidence", "")), records.whole(line.get("step")))
            fragment.findings.setdefault((trial, fragment.starts[trial]), []).append(seen)
        elif kind == "outcome":
            record.lines = [line]
            found = [(outcome, fragment.starts[outcome.trial]) for outcome in records.outcomes(record)]
            fragment.outcomes += found
            fragment.unreadable += not found
    return fragment


def _add_report(fragment: Fragment, line: Mapping[str, Any]) -> bool:
    trial, step, metrics = line.get("trial"), records.number(line.get("step")), line.get("metrics")
    if not isinstance(trial, str) or not isinstance(metrics, dict) or not abs(step) < 2**53:
        return False
    trials, steps, names, values, times, starts = fragment.reports
    time, start = records.number(line.get("time")), fragment.starts[trial]
    for name, value in metrics.items():
        trials.append(trial)
        steps.append(int(step))
        names.append(name if name.isascii() else text(name))
        values.append(value if type(value) is float else records.number(value))
        times.append(time)
        starts.append(start)
    return True


def changed_files(files: Sequence[Path], before: Known | None) -> list[Path]:
    """Return the record files that the tables on disk know nothing of, or not as they are now."""
    known = {} if before is None else before.files
    return [
        path
        for path in files
        if path.name not in known or stamp(path) != (known[path.name].size, known[path.name].mtime_ns)
    ]
