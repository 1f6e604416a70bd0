"""A program's process: started, read line by line, and ended with all that it has started."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import psutil

from orchestrator.errors import ProgramFailed

# Without output one looks so often whether there is something else to see.
LOOK_SECONDS = 0.5
# A program that is asked to end gets so long to save its state; the task waits a little longer for the trial.
GRACE_SECONDS = 4.0
# What has no end of line for so long is taken in pieces: binary data, say.
_LONGEST_LINE = 2**16
_OUTPUT = 1
# Colours and other signs for a terminal, and what can't be shown at all.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


@dataclass(slots=True)
class Program:
    """A program that was started.

    Attributes:
        process: its own.
        began: when it was started, as its operating system counts; what is younger in its group is of it.
        asked: this process was asked to end, and so was the program.
        deadline: until then what it has left behind may save its state; set when the program has ended.
        left: what was alive of that then.
    """

    process: subprocess.Popen[bytes]
    began: float
    asked: bool = False
    deadline: float | None = None
    left: list[psutil.Process] = field(default_factory=list)


@contextlib.contextmanager
def started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Program]:
    """Start a program in this process's group, hand a request to end on to it, and leave nothing behind.

    Args:
        command: its words.
        environment: all its variables.

    Raises:
        ProgramFailed: it can't be started.
    """
    try:
        process = subprocess.Popen(
            list(command), env=dict(environment), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise ProgramFailed(f"{command[0]} can't be started: {why}") from error
    # It can be asked until it is waited for, however soon it ends.
    program = Program(process, psutil.Process(process.pid).create_time())

    def hand_on(number: int, frame: object) -> None:
        program.asked = True
        with contextlib.suppress(OSError):
            process.send_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, hand_on)
    try:
        yield program
    finally:
        try:
            _end(program)
        finally:
            signal.signal(signal.SIGTERM, before)


def end_as_asked() -> None:
    """End this process as if the request had not been caught: the trial is taken up again."""
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)


def lines(program: Program) -> Iterator[str | None]:
    """Give a program's lines as they come, also to the task's log, and None where none comes for a while.

    When it has ended, what it left behind is asked to end, and read until then.
    """
    assert program.process.stdout is not None, "it is a pipe"
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(program.process.stdout, selectors.EVENT_READ)
        while True:
            ended = program.process.poll() is not None
            if ended and _is_over(program):
                break
            if not selector.select(0 if ended and not program.left else LOOK_SECONDS):
                if ended and not program.left:
                    break
                yield None
                continue
            if not (data := os.read(program.process.stdout.fileno(), 2**16)):
                break
            _log(data)
            # A progress bar's updates end in a carriage return.
            *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            if len(rest) > _LONGEST_LINE:
                whole, rest = [*whole, rest], b""
            yield from (shown(line) for line in whole if line.strip())
    if rest.strip():
        yield shown(rest)
    while program.process.poll() is None:
        # It closed its output, and works on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.process.wait(LOOK_SECONDS)
        yield None


def _is_over(program: Program) -> bool:
    """Ask what a program that has ended left behind to end too; says whether its time is up.

    A shell that runs a script dies of the request alone and leaves its program behind, which has to save its
    state.
    """
    now = time.monotonic()
    if program.deadline is None:
        program.left = _others(program.began)
        for each in program.left:
            with contextlib.suppress(psutil.Error):
                each.terminate()
        # What the program itself wrote is in the pipe by now.
        program.deadline = now + (GRACE_SECONDS if program.left else LOOK_SECONDS)
    program.left = [each for each in program.left if _lives(each)]
    return now >= program.deadline


def shown(line: bytes) -> str:
    """Return a line as text, without colours and with a sign in place of what can't be shown."""
    text = _ESCAPES.sub("", line.decode(errors="replace"))
    return _UNSHOWN.sub("\ufffd", text)


def _log(data: bytes) -> None:
    """Write to the task's log, where this process's own output goes."""
    sys.stdout.flush()
    while data:
        data = data[os.write(_OUTPUT, data) :]


def _end(program: Program) -> None:
    """End a program that still runs, and what it has left behind: by asking, then by force."""
    process = program.process
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
    if process.poll() is None:
        process.kill()
    process.wait()
    while not _is_over(program) and program.left:
        psutil.wait_procs(program.left, LOOK_SECONDS)
    for each in _others(program.began):
        with contextlib.suppress(psutil.Error):
            each.kill()
    if process.stdout is not None:
        process.stdout.close()


def _others(began: float) -> list[psutil.Process]:
    """Return what lives of what the program has started: the younger processes of this process's group.

    Only where the group is this process's own, as every trial's is.
    """
    own = os.getpid()
    if os.getpgrp() != own:
        return []
    found = []
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.Error):
            if pid != own and os.getpgid(pid) == own:
                process = psutil.Process(pid)
                if process.create_time() >= began and _lives(process):
                    found.append(process)
    return found


def _lives(process: psutil.Process) -> bool:
    try:
        # What waits to be asked for its exit status is none of ours to end.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
