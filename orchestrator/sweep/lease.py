"""The lease: one writer at a time, correct on NFS and Lustre, taken over when its owner is dead.

Each owner has a numbered file, `lease/000012.json`, created by an atomic link, so exactly one process gets a
number. The highest number owns the sweep: that number is the fencing number, and an owner that stalled finds
out before it writes (`confirm`). The owner changes its file's content every few seconds. No two machines'
clocks are compared: a waiting process calls an owner dead when the content has not changed for a while by its
own clock, or at once when the owner is a process of this machine that is gone. A process that does not wait,
as from cron, compares the file's time with that of a file it has just written beside it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from orchestrator.errors import Busy, LeaseLost
from orchestrator.sweep.files import create_exclusive, write_atomic

HEARTBEAT_SECONDS = 3.0
DEAD_AFTER_SECONDS = 30.0
# Much longer, because on some file systems each machine stamps its files by its own clock.
STALE_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who holds a lease, as its file says."""

    number: int
    host: str
    pid: int
    started: float
    command: str
    beat: int
    released: bool

    def describe(self) -> str:
        """Return the owner for a person to read."""
        return f"{self.command} (process {self.pid} on {self.host})"


class Lease:
    """A lease that this process holds."""

    def __init__(self, folder: Path, number: int, content: dict[str, Any]) -> None:
        self.folder, self.number, self._content = folder, number, content
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()

    def confirm(self) -> None:
        """Check, right before a write, that nobody took the sweep over.

        Raises:
            LeaseLost: a higher number exists.
        """
        if _highest(self.folder) != self.number:
            raise LeaseLost(f"another process took over {self.folder.parent} while this one was stalled")

    def release(self) -> None:
        """Give the lease back."""
        self._stop.set()
        self._thread.join()
        if _highest(self.folder) == self.number:
            self._write(released=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            # A full disk or a stale handle costs a beat, not the process: the next one may succeed.
            with contextlib.suppress(OSError):
                if _highest(self.folder) != self.number:
                    return
                self._write(released=False)

    def _write(self, *, released: bool) -> None:
        self._content = {**self._content, "beat": self._content["beat"] + 1, "released": released}
        write_atomic(_path(self.folder, self.number), json.dumps(self._content))


@contextlib.contextmanager
def hold(
    folder: Path, command: str, *, wait: Callable[[Owner], bool] | None = None, poll_seconds: float = 0.5
) -> Iterator[Lease]:
    """Hold a sweep's lease for the length of a `with` block.

    Args:
        folder: the sweep's `lease` folder.
        command: who holds it, for `status`.
        wait: called with the living owner while somebody else holds it; False gives up. Default: give up.
        poll_seconds: how often to look.

    Raises:
        Busy: somebody else holds it and `wait` gave up.
    """
    lease = _acquire(folder, command, wait or (lambda owner: False), poll_seconds)
    try:
        yield lease
    finally:
        lease.release()


def current_owner(folder: Path) -> Owner | None:
    """Return who holds the lease, None when nobody does (a dead process of this machine counts as nobody)."""
    owner = _read(folder, _highest(folder))
    return None if owner is None or owner.released or _gone(owner) else owner


def _acquire(folder: Path, command: str, wait: Callable[[Owner], bool], poll_seconds: float) -> Lease:
    seen: tuple[int, int] | None = None
    seen_at = 0.0
    while True:
        number = _highest(folder)
        owner = _read(folder, number)
        now = time.monotonic()
        if owner is not None and (owner.number, owner.beat) != seen:
            seen, seen_at = (owner.number, owner.beat), now
        unchanged = now - seen_at > DEAD_AFTER_SECONDS
        if owner is None or owner.released or _gone(owner) or unchanged or _stale(folder, owner):
            content = _identity(command)
            mine = _path(folder, number + 1)
            if create_exclusive(mine, json.dumps(content)):
                if _highest(folder) == number + 1:
                    _clean(folder, number + 1)
                    return Lease(folder, number + 1, content)
                # Since this process looked, others came and went: the number had been had and cleaned away.
                mine.unlink(missing_ok=True)
            continue
        if not wait(owner):
            raise Busy(owner.describe())
        time.sleep(poll_seconds)


def _identity(command: str) -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "command": command,
        "beat": 0,
        "released": False,
    }


def _gone(owner: Owner) -> bool:
    """Say whether the owner is a process of this machine that no longer exists."""
    if owner.host != socket.gethostname():
        return False
    try:
        # A number is used again; the moment of its start tells two processes apart.
        process = psutil.Process(owner.pid)
        return bool(
            abs(process.create_time() - owner.started) > 1 or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


def _stale(folder: Path, owner: Owner) -> bool:
    """Say whether an owner's file is much older than one written right now."""
    probe = folder / f".probe.{uuid.uuid4().hex[:8]}.tmp"
    try:
        probe.touch()
        age = probe.stat().st_mtime - _path(folder, owner.number).stat().st_mtime
    except OSError:
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
    return age > STALE_AFTER_SECONDS


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _numbers(folder: Path) -> list[int]:
    return sorted(int(path.stem) for path in folder.glob("[0-9]*.json"))


def _highest(folder: Path) -> int:
    return max(_numbers(folder), default=0)


def _read(folder: Path, number: int) -> Owner | None:
    try:
        content = json.loads(_path(folder, number).read_text())
        return Owner(number=number, **content)
    except (OSError, ValueError, TypeError):
        return None


def _clean(folder: Path, number: int) -> None:
    """Remove the files of owners long gone; the one before stays, for whoever is just reading it."""
    for old in _numbers(folder):
        if old < number - 1:
            with contextlib.suppress(OSError):
                _path(folder, old).unlink()
