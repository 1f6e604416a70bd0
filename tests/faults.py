"""Processes that are only pretended: a thread each, which meets its operations here and may die at any.

While `installed`, the functions of `os`, `open`, the clock, process ids and host names pass through a gate
for the threads that run a pretended process, and are as ever for all others. Production code has no hooks.
"""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import psutil

from orchestrator.cluster.simulation.steps import Killed, Pause
from orchestrator.sweep import facts, index, lease
from orchestrator.sweep.memory import Remembered


class World(Protocol):
    """Where pretended processes live: it decides what becomes of each operation."""

    def operation(self, process: Process, kind: str, path: str, do: Callable[[], Any]) -> Any: ...

    def time(self, process: Process) -> float: ...

    def monotonic(self) -> float: ...

    def sleep(self, process: Process, seconds: float) -> None: ...

    def process(self, host: str, pid: int) -> Process | None: ...

    def file_time(self, process: Process) -> float: ...


@dataclass(eq=False, kw_only=True)
class Process:
    """One pretended process.

    Attributes:
        dead: killed; whatever it still tries does not happen.
        frozen: stalled as a whole, its heartbeat too.
        budget: operations until another one has its turn.
        until: a kind of operation before which another one has its turn.
        beats: the heartbeat functions that it started, as threads.
    """

    world: World
    role: str
    host: str
    pid: int
    started: float
    pause: Pause | None = None
    dead: bool = False
    frozen: bool = False
    beating: bool = False
    budget: int = 0
    until: str = ""
    faulted: bool = False
    open_files: set[int] = field(default_factory=set)
    beats: list[_Beat] = field(default_factory=list)


class _Here(threading.local):
    process: Process | None = None


here = _Here()

_os = {
    name: getattr(os, name)
    for name in ("replace", "link", "unlink", "mkdir", "open", "write", "fsync", "close", "stat", "scandir",
                 "utime", "getpid", "chdir")
}  # fmt: skip
_open = builtins.open


# What a process remembers of files dies with it.
_MEMORIES: list[Remembered[Any]] = [
    value for module in (facts, index) for value in vars(module).values() if isinstance(value, Remembered)
]


@contextlib.contextmanager
def as_process(process: Process) -> Iterator[None]:
    """Let this thread be a pretended process, which begins with nothing in its memory."""
    here.process = process
    with _memory([OrderedDict() for _ in _MEMORIES]):
        try:
            yield
        finally:
            here.process = None


@contextlib.contextmanager
def _memory(kept: list[Any]) -> Iterator[None]:
    before = [memory._kept for memory in _MEMORIES]
    for memory, content in zip(_MEMORIES, kept, strict=True):
        memory._kept = content
    try:
        yield
    finally:
        for memory, content in zip(_MEMORIES, before, strict=True):
            memory._kept = content


def mortal(process: Process, pause: Pause) -> Pause:
    """Return a pause that leaves others their own memory, and after which a killed process knows that."""

    def paused(seconds: float) -> None:
        with _memory([OrderedDict() for _ in _MEMORIES]):
            try:
                pause(seconds)
            except Killed:
                process.dead = True
                raise
        if process.dead:
            raise Killed

    return paused


def _gated(name: str, kind: str) -> Callable[..., Any]:
    """Return a function of `os` whose first argument is a path, behind the gate."""
    real = _os[name]

    def function(path: Any, *rest: Any, **options: Any) -> Any:
        process = here.process
        if process is None:
            return real(path, *rest, **options)
        return process.world.operation(process, kind, str(path), lambda: real(path, *rest, **options))

    return function


def _moved(name: str) -> Callable[..., None]:
    """Return os.replace or os.link behind the gate; what lands in a lease folder has the world's time."""
    real = _os[name]

    def function(source: Any, target: Any, **options: Any) -> None:
        process = here.process
        if process is None:
            real(source, target, **options)
            return

        def do() -> None:
            if "/lease/" in str(target):
                moment = process.world.file_time(process)
                _os["utime"](source, (moment, moment))
            real(source, target, **options)

        process.world.operation(process, name, str(target), do)

    return function


def _open_descriptor(path: Any, flags: int, mode: int = 0o777, **options: Any) -> int:
    process = here.process
    if process is None:
        return int(_os["open"](path, flags, mode, **options))

    def do() -> int:
        handle: int = _os["open"](path, flags, mode, **options)
        process.open_files.add(handle)
        if flags & os.O_CREAT and "/lease/" in str(path):
            moment = process.world.file_time(process)
            _os["utime"](path, (moment, moment))
        return handle

    kind = "open" if flags & os.O_CREAT else "read"
    return int(process.world.operation(process, kind, str(path), do))


def _close(handle: int) -> None:
    if here.process is not None:
        here.process.open_files.discard(handle)
    _os["close"](handle)


def _write(handle: int, data: bytes) -> int:
    process = here.process
    if process is None:
        return int(_os["write"](handle, data))

    def do(share: float = 1.0) -> int:
        # How many bytes go through is up to the world.
        return int(_os["write"](handle, data[: max(1, int(len(data) * share))]))

    return int(process.world.operation(process, "write", "", do))


def _fsync(handle: int) -> None:
    process = here.process
    if process is None:
        return _os["fsync"](handle)  # type: ignore[no-any-return]
    # Nothing here survives the machine; only processes die.
    process.world.operation(process, "fsync", "", lambda: None)
    return None


def _open_file(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
    process = here.process
    if process is None or isinstance(file, int):
        return _open(file, mode, *rest, **options)
    kind = "create" if set(mode) & set("wax+") else "read"
    return process.world.operation(process, kind, str(file), lambda: _open(file, mode, *rest, **options))


class _Beat:
    """Stands in for the heartbeat's thread and event: it beats when the world says so."""

    def __init__(self) -> None:
        self.stopped = self.due = False
        self.target: Callable[[], None] = lambda: None

    def set(self) -> None:
        self.stopped = True

    def wait(self, timeout: float) -> bool:
        due, self.due = self.due, False
        return self.stopped or not due

    def beat(self) -> None:
        self.due = not self.stopped
        self.target()


class _Threading:
    """What the lease uses of `threading`."""

    Event = _Beat

    class Thread:
        def __init__(self, target: Callable[[], None], **options: object) -> None:
            self.target = target

        def start(self) -> None:
            beat = self.target.__self__._stop  # type: ignore[attr-defined]
            beat.target = self.target
            assert here.process is not None
            here.process.beats.append(beat)

        def join(self) -> None:
            pass


class _PretendedProcess:
    """What the lease uses of psutil.Process."""

    def __init__(self, pid: int | None = None) -> None:
        process = here.process
        assert process is not None
        found = process if pid is None else process.world.process(process.host, pid)
        if found is None:
            raise psutil.NoSuchProcess(pid or 0)
        self._process = found

    def create_time(self) -> float:
        return self._process.started

    def status(self) -> str:
        return str(psutil.STATUS_RUNNING)


class _Psutil:
    Process, NoSuchProcess, Error, STATUS_ZOMBIE = (
        _PretendedProcess, psutil.NoSuchProcess, psutil.Error, psutil.STATUS_ZOMBIE,
    )  # fmt: skip


def _for_processes(real: Callable[..., Any], pretended: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that is another one for pretended processes."""

    def function(*arguments: Any, **options: Any) -> Any:
        process = here.process
        return real(*arguments, **options) if process is None else pretended(process, *arguments)

    return function


def _patches() -> list[tuple[Any, str, Any]]:
    return [
        (os, "replace", _moved("replace")),
        (os, "link", _moved("link")),
        (os, "unlink", _gated("unlink", "unlink")),
        (os, "mkdir", _gated("mkdir", "mkdir")),
        (os, "stat", _gated("stat", "look")),
        (os, "scandir", _gated("scandir", "list")),
        (os, "open", _open_descriptor),
        (os, "close", _close),
        (os, "write", _write),
        (os, "fsync", _fsync),
        (os, "getpid", _for_processes(os.getpid, lambda process: process.pid)),
        (os, "chdir", _for_processes(os.chdir, lambda process, path: None)),
        (builtins, "open", _open_file),
        (io, "open", _open_file),
        (time, "time", _for_processes(time.time, lambda process: process.world.time(process))),
        (time, "monotonic", _for_processes(time.monotonic, lambda process: process.world.monotonic())),
        (time, "sleep", _for_processes(time.sleep, lambda process, s: process.world.sleep(process, s))),
        (socket, "gethostname", _for_processes(socket.gethostname, lambda process: process.host)),
        # Handlers can be set in the main thread alone.
        (signal, "signal", _for_processes(signal.signal, lambda process, *arguments: signal.SIG_DFL)),
        (lease, "threading", _Threading),
        (lease, "psutil", _Psutil),
    ]


@contextlib.contextmanager
def installed() -> Iterator[None]:
    """Put the gate in place."""
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in _patches()]
    for owner, name, value in _patches():
        setattr(owner, name, value)
    try:
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


def close_files(process: Process) -> None:
    """Close what a dead process held open, as the kernel does."""
    for handle in process.open_files:
        with contextlib.suppress(OSError):
            _os["close"](handle)
    process.open_files.clear()


def beat(process: Process) -> None:
    """Let the heartbeats of a process beat once."""
    before, here.process, process.beating = here.process, process, True
    try:
        for one in process.beats:
            one.beat()
    finally:
        here.process, process.beating = before, False
