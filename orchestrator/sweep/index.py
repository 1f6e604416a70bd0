"""The index: what a phase's record files said, so that the next process reads only what came since.

`records/.index` is worked out from the record files alone and may be deleted at any time. It is passed over
where it is not whole, not of this version, or where a file is no longer the one that it speaks of. Whoever
holds the sweep's lease writes it; a small sweep has none, because reading it takes no time.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from orchestrator.sweep.digest import Digest, Reading, Stamp, read_digest
from orchestrator.sweep.files import write_atomic
from orchestrator.sweep.memory import Remembered
from orchestrator.sweep.records import Outcome, where
from orchestrator.sweep.timing import Steps

VERSION = 1
# Read in a few hundredths of a second: not worth a file.
LEAST_BYTES = 4_000_000
# It is written whole, so only when so large a part of the records is new.
NEW_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class FolderReading:
    """The record files of one phase, read; and how many bytes of them the index on disk holds."""

    files: Mapping[str, Reading]
    indexed: int


_readings: Remembered[FolderReading] = Remembered()


def read_digests(folder: Path, stamps: Mapping[str, Stamp]) -> list[Digest]:
    """Read the record files of one phase; those alone that have changed.

    Args:
        folder: of the records.
        stamps: the files, in the order in which they are wanted.

    Raises:
        OSError: one can't be read.
    """
    return [reading.seen for reading in _read(folder, stamps).files.values()]


def write_index(folder: Path) -> bool:
    """Write the index of a phase's records where that is worth it; True when it was written.

    Args:
        folder: of the records. What this process has read of them is written, and they are not read again.
    """
    found = _readings.last(folder)
    if found is None:
        return False
    total = sum(reading.settled.offset for reading in found.files.values())
    if total < LEAST_BYTES or abs(total - found.indexed) < NEW_SHARE * total:
        return False
    body = json.dumps({name: _told(reading) for name, reading in found.files.items()}, separators=(",", ":"))
    # What is only a help is not worth failing for: the disk may be full.
    with contextlib.suppress(OSError):
        write_atomic(_path(folder), f"{VERSION} {zlib.crc32(body.encode())}\n{body}")
        _readings.put(folder, None, FolderReading(found.files, total))
        return True
    return False


def _path(folder: Path) -> Path:
    return folder / ".index"


def _read(folder: Path, stamps: Mapping[str, Stamp]) -> FolderReading:
    found = _readings.last(folder)
    before = found if found is not None else _read_index(folder, stamps)
    files: dict[str, Reading] = {}
    for name, stamp in stamps.items():
        known = before.files.get(name)
        if known is not None and known.stamp == stamp:
            files[name] = known
            continue
        with contextlib.suppress(FileNotFoundError):
            files[name] = read_digest(folder / name, known)
    reading = FolderReading(files, before.indexed)
    _readings.put(folder, None, reading)
    return reading


def _read_index(folder: Path, stamps: Mapping[str, Stamp]) -> FolderReading:
    """Read the index; nothing where none can be trusted, or the records are too small to have one."""
    nothing = FolderReading({}, 0)
    if sum(stamp.size for stamp in stamps.values()) < LEAST_BYTES:
        return nothing
    try:
        head, _, body = _path(folder).read_bytes().partition(b"\n")
        if head != f"{VERSION} {zlib.crc32(body)}".encode():
            return nothing
        files = {name: _understood(*told) for name, told in json.loads(body).items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return nothing
    return FolderReading(files, sum(reading.settled.offset for reading in files.values()))


def _told(reading: Reading) -> list[Any]:
    digest = reading.settled
    # A file that ends in half a line is looked at again: its stamp is not the whole story.
    stamp = astuple(reading.stamp) if reading.seen is digest else (-1, -1, reading.stamp.inode)
    return [
        stamp,
        digest.offset,
        digest.joint.decode("latin-1"),
        digest.header,
        [[o.trial, o.state, o.metrics, o.seconds, o.error, o.cause, o.step, o.time] for o in digest.outcomes],
        sorted(digest.started),
        digest.startups,
        {trial: astuple(steps) for trial, steps in digest.running.items()},
        digest.unreadable,
    ]


def _understood(
    stamp: list[int],
    offset: int,
    joint: str,
    header: dict[str, Any],
    outcomes: list[list[Any]],
    started: list[str],
    startups: list[float],
    running: dict[str, list[Any]],
    unreadable: int,
) -> Reading:
    digest = Digest(
        offset=offset,
        joint=joint.encode("latin-1"),
        header=header,
        outcomes=_outcomes(outcomes, header),
        started=set(started),
        startups=startups,
        running={trial: Steps(*told) for trial, told in running.items()},
        unreadable=unreadable,
    )
    return Reading(Stamp(*stamp), digest, digest)


def _outcomes(told: list[list[Any]], header: Mapping[str, Any]) -> list[Outcome]:
    place = where(header)
    return [
        Outcome(
            trial=trial,
            state=state,
            metrics=metrics,
            seconds=seconds,
            error=error,
            cause=cause,
            step=step,
            time=time,
            **place,
        )
        for trial, state, metrics, seconds, error, cause, step, time in told
    ]
