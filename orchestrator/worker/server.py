"""A fork server: a process that has the job's imports done and forks one child for each trial.

It is forked from its task, so a task pays for one interpreter and one round of imports; the user's modules
are imported here and never in the task, which thus outlives whatever they do. The task asks one thing at a
time: for a child, or how one ended. Between the two it talks to the child itself.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType, ModuleType

# What a cluster or a terminal sends to all processes of a job at once. The server ends when its task does.
_SENT_TO_ALL = (
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT,
)  # fmt: skip
# Of these, the warning before a preemption or a time limit is for the task to act on: it ends its children.
_FOR_THE_TASK = (signal.SIGUSR2,)
_CLOSE_SECONDS = 2.0


class ServerLost(Exception):
    """The fork server has ended, or does not answer."""


class ForkServer:
    """A fork server, seen from its task.

    Args:
        prepare: what it does before it forks its first child: imports.
        work: what each child does, with its end of the pipe and a file descriptor for its dumps.
        patience: seconds in which it must answer; None waits for ever.

    Raises:
        ServerLost: it did not come up: an import ended the process, or hangs.
    """

    def __init__(
        self, prepare: Callable[[], None], work: Callable[[Connection, int], None], patience: float | None
    ) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _flush()
        with _signals_held():
            self._pid = _fork()
            if self._pid == 0:
                _become_server(theirs, prepare, work)
        theirs.close()
        self._control.settimeout(patience)
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def fork(self) -> tuple[int, Connection, int]:
        """Start a child; returns its process id, our end of its pipe, and the file of its dumps.

        Raises:
            ServerLost: the server has ended.
            OSError: there can't be another process or pipe.
        """
        ours, theirs = socket.socketpair()
        dumps = os.memfd_create("dumps")
        try:
            # Its own copies closed, the child's death closes the pipe, whatever it died of.
            with theirs:
                answer = self._ask(b"fork", theirs.fileno(), dumps)
            if not answer.isdigit():
                raise OSError(f"no process could be started for a trial: {answer.decode()}")
        except BaseException:
            ours.close()
            os.close(dumps)
            raise
        return int(answer), Connection(ours.detach()), dumps

    def exitcode(self, pid: int) -> int | None:
        """Return the exit status of a child, negative for a signal; None while it lives.

        Raises:
            ServerLost: the server has ended, and what became of the child is not known.
        """
        answer = self._ask(b"%d" % pid)
        if answer == b"unknown":
            raise ServerLost("it does not know the child")
        return None if answer == b"alive" else int(answer)

    def close(self) -> None:
        """End the server; children that still run see their pipe close when we close ours."""
        self._control.close()
        deadline = time.monotonic() + _CLOSE_SECONDS
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(self._pid, os.WNOHANG)[0] == 0:
                if time.monotonic() > deadline:
                    # An import that hangs does not read.
                    os.kill(self._pid, signal.SIGKILL)
                time.sleep(0.002)

    def _ask(self, question: bytes, *descriptors: int) -> bytes:
        try:
            socket.send_fds(self._control, [question], descriptors)
        except (BrokenPipeError, ConnectionError) as error:
            raise ServerLost(str(error)) from None
        return self._answer()

    def _answer(self) -> bytes:
        try:
            answer = self._control.recv(4096)
        except TimeoutError:
            raise ServerLost(f"no answer within {self._control.gettimeout():.0f} seconds") from None
        except ConnectionError as error:
            raise ServerLost(str(error)) from None
        if not answer:
            raise ServerLost("its process ended")
        return answer


def _become_server(
    control: socket.socket, prepare: Callable[[], None], work: Callable[[Connection, int], None]
) -> None:
    """Serve until the task is gone; never returns to what was going on in the process that was forked."""
    try:
        for number in _SENT_TO_ALL:
            signal.signal(number, _pass)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SENT_TO_ALL)
        # The task's own files: its end of the control socket above all, or the task's end would not show.
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        # What a trial spawns must not import submitit's command again as its own main module.
        sys.modules["__main__"] = ModuleType("__main__")
        prepare()
        # What is there by now is never garbage, and collecting it would copy its pages in every child.
        gc.freeze()
        control.send(b"ready")
        while True:
            question, descriptors, _, _ = socket.recv_fds(control, 64, 2, socket.MSG_CMSG_CLOEXEC)
            if not question:
                break
            control.send(_start(control, descriptors, work) if question == b"fork" else _state(int(question)))
    except (BrokenPipeError, ConnectionError):
        pass
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        os._exit(0)


def _start(control: socket.socket, descriptors: list[int], work: Callable[[Connection, int], None]) -> bytes:
    connection, dumps = descriptors
    _flush()
    try:
        pid = _fork()
        if pid == 0:
            _become_child(control, work, connection, dumps)
        return b"%d" % pid
    except OSError as error:
        return str(error).encode()
    finally:
        os.close(connection)
        os.close(dumps)


def _become_child(
    control: socket.socket, work: Callable[[Connection, int], None], connection: int, dumps: int
) -> None:
    status = 1
    try:
        control.close()
        # A group of its own, so that the processes it starts can be ended with it.
        os.setpgrp()
        for number in _SENT_TO_ALL:
            # A handler that the user's modules set is theirs.
            if signal.getsignal(number) is _pass:
                signal.signal(number, signal.SIG_IGN if number in _FOR_THE_TASK else signal.SIG_DFL)
        work(Connection(connection), dumps)
        status = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        _flush()
        # Threads and exit handlers that a user's libraries left behind can hang a process that is done.
        os._exit(status)


def _state(pid: int) -> bytes:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return b"unknown"
    return b"%d" % os.waitstatus_to_exitcode(status) if ended else b"alive"


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let no signal reach a process that is just being forked, with the task's handlers still in place."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SENT_TO_ALL)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _pass(number: int, frame: FrameType | None) -> None:
    """Take a signal that is meant for others. Unlike one that is ignored, it is not passed on by exec."""


def _fork() -> int:
    with warnings.catch_warnings():
        # Later Pythons warn of threads, which a fork does not copy. Those of numpy and pyarrow, which both
        # prepare for a fork, are all there can be in a task; others are of the user's imports.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _flush() -> None:
    """Write out what is buffered, so that no fork writes it a second time."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
