"""What the tables of a stage were made from: so that compacting again reads only what is new.

It travels in the footer of the stage's `trials` file, and a mark of it in that of its `curves`: two files of
the same mark belong together. Where the marks differ (a process died between the two, or two compacted at
once), or anything else of it can't be read, the stage is made anew from all of its records.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

_KNOWN, _MARK = b"orchestrator.known", b"orchestrator.mark"
# To be raised with every change of what a row says: rows of before are taken over as they are.
_VERSION = 2


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A record file as it was read.

    Attributes:
        size: bytes.
        mtime_ns: when it was last written.
        unreadable: lines that could not be read.
        trials: that it has lines of.
        metrics: that it names, whether or not they count.
    """

    size: int
    mtime_ns: int
    unreadable: int
    trials: tuple[str, ...]
    metrics: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Known:
    """What a stage's tables were made from.

    Attributes:
        files: by their names.
        given_up: trials that got a row without an outcome, with the reason.
        planned: how many trials had been drawn.
    """

    files: Mapping[str, KnownFile] = field(default_factory=dict)
    given_up: Mapping[str, str] = field(default_factory=dict)
    planned: int = 0


def stamp(path: Path) -> tuple[int, int]:
    """Return a file's size in bytes and when it was written, in ns; of one that is gone (-1, -1)."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return -1, -1
    return found.st_size, found.st_mtime_ns


def read_known(trials: Path, curves: Path) -> Known | None:
    """Return what a stage's two files were made from; None where they don't belong together."""
    try:
        about = pq.read_schema(trials).metadata or {}
        mark = (pq.read_schema(curves).metadata or {}).get(_MARK)
        if mark is None or about.get(_MARK) != mark:
            return None
        content = json.loads(zlib.decompress(base64.b64decode(about[_KNOWN])))
        if content["version"] != _VERSION:
            return None
        return Known(
            files={
                name: KnownFile(size, written, unreadable, tuple(trials), tuple(metrics))
                for name, (size, written, unreadable, trials, metrics) in content["files"].items()
            },
            given_up=content["given_up"],
            planned=content["planned"],
        )
    # What is damaged in any way is made anew.
    except (OSError, pa.ArrowInvalid, binascii.Error, zlib.error, ValueError, KeyError, TypeError):
        return None


def marked(trials: pa.Table, curves: pa.Table, known: Known) -> tuple[pa.Table, pa.Table]:
    """Return a stage's two tables with what they were made from in their metadata."""
    content: dict[str, Any] = {
        "version": _VERSION,
        "files": {
            name: [one.size, one.mtime_ns, one.unreadable, one.trials, one.metrics]
            for name, one in known.files.items()
        },
        "given_up": dict(known.given_up),
        "planned": known.planned,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(content).encode()))
    mark = {_MARK: hashlib.sha256(packed).hexdigest().encode()}
    return (
        trials.replace_schema_metadata({**(trials.schema.metadata or {}), **mark, _KNOWN: packed}),
        curves.replace_schema_metadata({**(curves.schema.metadata or {}), **mark}),
    )
