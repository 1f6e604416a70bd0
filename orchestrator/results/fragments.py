"""What record files say, as plain columns; lines that are torn or make no sense are counted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.known import Known, stamp
from orchestrator.results.reports import PREFIX, Lines, Reports, read_reports
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
    """What one record file says, but for its reports."""

    path: Path
    outcomes: list[tuple[records.Outcome, int]] = field(default_factory=list)
    # the lines at which a trial started
    begun: dict[str, list[int]] = field(default_factory=dict)
    # by the trial and how often it had started in this file
    findings: dict[tuple[str, int], list[Seen]] = field(default_factory=dict)
    place: Place = Place()
    unreadable: int = 0
    # the file's size and time when it was read
    stamp: tuple[int, int] = (-1, -1)
    # the trials that it has lines of and the metrics that it names, sorted
    trials: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()

    def starts(self, trial: str) -> int:
        """Return how often a trial has started in this file."""
        return len(self.begun.get(trial, ()))

    def attempt(self, start: int) -> Attempt:
        """Return the place of this file's attempt among all of the stage's."""
        numbers = [int(digits) for digits in re.findall(r"\d+", self.path.stem)]
        submission, attempt = (numbers[0], numbers[2]) if len(numbers) >= 3 else (0, 0)
        return submission, attempt, self.path.name, start


@dataclass(frozen=True, slots=True)
class Part:
    """What a few record files say; the files of `reports` are numbers of `fragments`."""

    fragments: list[Fragment]
    reports: Reports


def record_files(folder: Path) -> list[Path]:
    """Return the record files of a phase; none yet gives an empty list."""
    return sorted(folder.glob("[0-9]*.jsonl"))


def read_fragments(paths: Sequence[Path]) -> Part:
    """Read some record files. A file that has vanished meanwhile is an empty one."""
    fragments, lines = [], []
    for number, path in enumerate(paths):
        try:
            fragment, reported = read_fragment(path, number)
        except FileNotFoundError:
            fragment, reported = Fragment(path=path), Lines(number, [], [], {}, usual=True)
        fragments.append(fragment)
        lines.append(reported)
    reports, unreadable = read_reports(lines)
    for number, count in unreadable.items():
        fragments[number].unreadable += count
    _note_names(fragments, reports)
    return Part(fragments, reports)


def read_fragment(path: Path, number: int) -> tuple[Fragment, Lines]:
    """Read one record file, but leave its reports as lines.

    Args:
        path: of the file.
        number: of the file, among those that are read with it.
    """
    # Before it is read: what a task appends meanwhile is new the next time.
    fragment = Fragment(path=path, stamp=stamp(path))
    header: Mapping[str, Any] = {}
    reported, places, others, usual = [], [], [], True
    for place, raw in enumerate(path.read_bytes().split(b"\n")):
        if raw.startswith(PREFIX):
            reported.append(raw)
            places.append(place)
        elif raw.strip():
            line = _line(raw)
            fragment.unreadable += line is None
            if line is None:
                continue
            if line["kind"] == "task":
                header = line
            elif line["kind"] == "report":
                reported.append(raw)
                places.append(place)
                usual = False
            else:
                others.append((place, line))
    fragment.place = Place(
        gpu=text(str(header.get("gpu", ""))), git_commit=text(str(header.get("git_commit", "")))
    )
    _add(fragment, others, records.where(header))
    return fragment, Lines(number, reported, places, fragment.begun, usual)


def _line(raw: bytes) -> dict[str, Any] | None:
    """Return a line of a record; None where it is torn or none."""
    try:
        line: dict[str, Any] = json.loads(raw)
        line["kind"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return line


def _add(fragment: Fragment, lines: Sequence[tuple[int, dict[str, Any]]], where: Mapping[str, Any]) -> None:
    """Add what lines of all kinds but reports say, in their order."""
    for place, line in lines:
        kind, trial = line["kind"], line.get("trial")
        if kind == "start" and isinstance(trial, str):
            fragment.begun.setdefault(trial, []).append(place)
        elif kind == "finding" and isinstance(trial, str):
            seen = (str(line.get("code", "")), str(line.get("evidence", "")), records.whole(line.get("step")))
            fragment.findings.setdefault((trial, fragment.starts(trial)), []).append(seen)
        elif kind == "outcome":
            outcome = records.read_outcome(line, where)
            if outcome is None:
                fragment.unreadable += 1
            else:
                fragment.outcomes.append((outcome, fragment.starts(outcome.trial)))


def _note_names(fragments: Sequence[Fragment], reports: Reports) -> None:
    """Note in each fragment of which trials and metrics it has lines."""
    trials = _in_files(reports.file, reports.trial, reports.trials, len(fragments))
    metrics = _in_files(reports.file, reports.metric, reports.metrics, len(fragments))
    for one, reported, named in zip(fragments, trials, metrics, strict=True):
        ended = [outcome for outcome, _ in one.outcomes]
        named |= {text(name) for outcome in ended for name in outcome.metrics}
        reported |= {*one.begun, *(trial for trial, _ in one.findings), *(outcome.trial for outcome in ended)}
        one.trials, one.metrics = tuple(sorted(reported)), tuple(sorted(named))


def _in_files(
    file: NDArray[np.int64], code: NDArray[np.int64], names: Sequence[str], files: int
) -> list[set[str]]:
    """Return for each file the names that its rows have."""
    count = max(1, len(names))
    found: list[set[str]] = [set() for _ in range(files)]
    for pair in np.unique(file * count + code).tolist():
        found[pair // count].add(names[pair % count])
    return found


def changed_files(files: Sequence[Path], before: Known | None) -> list[Path]:
    """Return the record files that the tables on disk know nothing of, or not as they are now."""
    known = {} if before is None else before.files
    return [
        path
        for path in files
        if path.name not in known or stamp(path) != (known[path.name].size, known[path.name].mtime_ns)
    ]
