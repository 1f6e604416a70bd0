"""Digests: what deciding needs of a record file, read once and carried on as the file grows.

A record file only ever grows. So a digest remembers how far the file was read, and takes up the lines that
came since; a file that is not the one that was read (another inode, shorter, other bytes before that place)
is read anew. Reports are most of the lines, and only their times are of interest here: those in the form
that a task writes are told by a pattern, without being parsed.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.sweep.records import Outcome, number, read_outcome, where
from orchestrator.sweep.timing import Steps, startup_of

# Strict JSON: a line that it matches would have been read as a report of just that trial and time.
_TEXT = rb"[\x20\x21\x23-\x5b\x5d-\x7e]*+"
_NUMBER = rb"-?(?:0|[1-9]\d{0,99}+)(?:\.\d++)?+(?:[eE][-+]?\d++)?+"
_METRIC = rb'"' + _TEXT + rb'":(?:' + _NUMBER + rb'|"' + _TEXT + rb'")'
_REPORT = re.compile(
    rb'\{"kind":"report","trial":"(' + _TEXT + rb')","step":-?(?:0|[1-9]\d{0,18}+),"metrics":\{(?:'
    + _METRIC + rb"(?:," + _METRIC + rb')*+)?+\},"time":(' + _NUMBER + rb")\}"
)  # fmt: skip
_START = re.compile(rb'\{"kind":"start","trial":"(' + _TEXT + rb')","time":' + _NUMBER + rb"\}")
_REPORT_BEGINS, _START_BEGINS = b'{"kind":"report"', b'{"kind":"start"'
# A whole line that begins and ends so decides nothing, and need not be parsed.
_FINDING_BEGINS = b'{"kind":"finding",'
_decode = json.JSONDecoder().decode
# So many bytes before the place up to which a file was read tell it from another.
_JOINT = 64


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a folder's listing says of a file; the same stamp, the same content."""

    size: int
    changed: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Take it from a file's status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


@dataclass(kw_only=True, slots=True)
class Digest:
    """What the whole lines of one record file say.

    `offset` is the end of the last of them, in bytes, and `joint` what lies right before it.
    """

    offset: int = 0
    joint: bytes = b""
    header: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    started: set[str] = field(default_factory=set)
    # of trials that have ended, and the reports of those under way
    startups: list[float] = field(default_factory=list)
    running: dict[str, Steps] = field(default_factory=dict)
    unreadable: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """A record file at one moment: `settled` by its whole lines, `seen` with an unfinished last one."""

    stamp: Stamp
    settled: Digest
    seen: Digest


def read_digest(path: Path, before: Reading | None) -> Reading:
    """Read a record file, from where it was read to before.

    Raises:
        OSError: it can't be read; FileNotFoundError when it vanished.
    """
    with open(path, "rb") as handle:
        stamp = Stamp.of(os.fstat(handle.fileno()))
        known = before.settled if before is not None and before.stamp.inode == stamp.inode else Digest()
        handle.seek(known.offset - len(known.joint))
        data = handle.read()
        if not data.startswith(known.joint):
            known = Digest()
            handle.seek(0)
            data = handle.read()
        data = data[len(known.joint) :]
        # Whole lines only: the last one may be half written.
        end = data.rfind(b"\n") + 1
        settled = _carried_on(known, data[:end])
        if settled is None:
            # The header came after what it is the header of; that is read with it.
            handle.seek(0)
            data = handle.read()
            end = data.rfind(b"\n") + 1
            settled = digest_of(data[:end])
    rest = data[end:]
    if not rest.strip():
        return Reading(stamp, settled, settled)
    seen = _carried_on(settled, rest)
    return Reading(stamp, settled, seen if seen is not None else digest_of(data))


def digest_of(lines: bytes) -> Digest:
    """Digest the lines of one file, from its first on."""
    return _taken_up(Digest(), lines)


def _carried_on(known: Digest, block: bytes) -> Digest | None:
    """Return a digest with further lines; None when a header is among them and there was something before."""
    if not block:
        return known
    if known.offset and b'"task"' in block and any(_is_header(raw) for raw in block.split(b"\n")):
        return None
    # A reader may still hold the one before.
    further = replace(
        known,
        outcomes=list(known.outcomes),
        started=set(known.started),
        startups=list(known.startups),
        running={trial: replace(steps) for trial, steps in known.running.items()},
    )
    return _taken_up(further, block)


def _is_header(raw: bytes) -> bool:
    line = _parsed(raw) if b'"task"' in raw else None
    return line is not None and line["kind"] == "task"


def _parsed(raw: bytes) -> dict[str, Any] | None:
    """Return a line with a kind, None for anything else."""
    try:
        # What our own tasks write is ASCII: there is no encoding to find out.
        line: dict[str, Any] = _decode(raw.decode("ascii")) if raw.isascii() else json.loads(raw)
        line["kind"]
    except (ValueError, TypeError, KeyError):
        return None
    return line


def _taken_up(digest: Digest, block: bytes) -> Digest:
    """Add lines to a digest."""
    ended: list[dict[str, Any]] = []
    running = digest.running
    for raw in block.split(b"\n"):
        if raw.startswith(_REPORT_BEGINS) and (report := _REPORT.fullmatch(raw)):
            steps = running.get(report[1].decode("ascii"))
            if steps is not None:
                steps.add(float(report[2]))
            continue
        if raw.startswith(_START_BEGINS) and (start := _START.fullmatch(raw)):
            trial = start[1].decode("ascii")
            digest.started.add(trial)
            running[trial] = Steps()
            continue
        if not raw.strip() or (raw.startswith(_FINDING_BEGINS) and raw.endswith(b"}")):
            continue
        line = _parsed(raw)
        if line is None:
            digest.unreadable += 1
            continue
        kind, trial = line["kind"], str(line.get("trial"))
        if kind == "task":
            digest.header = line
        elif kind == "start":
            digest.started.add(trial)
            running[trial] = Steps()
        elif kind == "report" and trial in running:
            running[trial].add(number(line.get("time")))
        elif kind == "outcome":
            ended.append(line)
            startup = startup_of(running.pop(trial, None), line)
            if startup is not None:
                digest.startups.append(startup)
    place = where(digest.header)
    found = (read_outcome(line, place) for line in ended)
    digest.outcomes += [outcome for outcome in found if outcome is not None]
    digest.offset += len(block)
    digest.joint = (digest.joint + block)[-_JOINT:]
    return digest
