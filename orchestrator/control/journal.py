"""A log of steps that nobody watches: one line each with its time, nothing twice in a row, never large."""

from __future__ import annotations

import os
import time
from pathlib import Path

from orchestrator.sweep.files import write_atomic

MOST_BYTES, KEPT_BYTES = 2**20, 2**18


def note(path: Path, text: str) -> None:
    """Append a text to a log, unless it is what the log says last.

    A step that fails again and again for the same reason is one line, and a log that has grown too long keeps
    its end.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    line = "  ".join(text.split("\n"))
    end = _end(path)
    last = end.splitlines()[-1] if end else ""
    if last.partition(" ")[2] == line:
        return
    if path.exists() and path.stat().st_size > MOST_BYTES:
        write_atomic(path, end.partition("\n")[2])
    data = f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}\n".encode(errors="replace")
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def last_line(path: Path) -> str:
    """Return the last line of a log, nothing where there is none."""
    lines = _end(path).splitlines()
    return lines[-1] if lines else ""


def _end(path: Path) -> str:
    try:
        with open(path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - KEPT_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
