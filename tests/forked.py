"""Calling `orchestrate` many times: each call is a fork of one process that has the imports done.

A fresh Python spends two to three seconds of processor time on imports before a sweep's first step. Here one
process for each of pytest's workers does them once and starts no thread; every command is a fork of it, with
its own working directory, environment and output, and ends as a process does. What is about the process
itself (what a command imports, that it is killed) is tested with a real one: `commands.command`.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NoReturn

# What commands import sooner or later. Torch, which few of them do, is left to them.
IMPORTED = (
    "optuna.importance",
    "scipy.stats.qmc",
    "orchestrator.cli",
    "orchestrator.control.create",
    "orchestrator.control.drive",
    "orchestrator.report.html",
    "orchestrator.report.progress",
    "orchestrator.report.terminal",
    "orchestrator.results.compact",
    "orchestrator.results.merge",
    "orchestrator.results.write",
)

_one_at_a_time = threading.Lock()
_servers: dict[int, subprocess.Popen[bytes]] = {}


def call(
    arguments: Sequence[str], cwd: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run `orchestrate` with some arguments to its end.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds, and was killed.
    """
    with _one_at_a_time, tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("output", "errors")]
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd),
            "environment": dict(environment),
            "files": [str(file) for file in files],
        }
        status = _ask(request, arguments, timeout)
        output, errors = (file.read_text() for file in files)
    return subprocess.CompletedProcess(list(arguments), status, output, errors)


def _ask(request: Mapping[str, object], arguments: Sequence[str], timeout: float) -> int:
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write(json.dumps(request).encode() + b"\n")
    server.stdin.flush()
    pid = _answer(server.stdout)
    if not select.select([server.stdout], [], [], timeout)[0]:
        os.kill(pid, signal.SIGKILL)
        _answer(server.stdout)
        raise subprocess.TimeoutExpired(list(arguments), timeout)
    return _answer(server.stdout)


def _answer(stream: IO[bytes]) -> int:
    line = stream.readline()
    assert line, "the process that commands are forks of has died"
    return int(line)


def _server() -> subprocess.Popen[bytes]:
    """Return this process's server; it ends when the pipe to it is closed."""
    server = _servers.get(os.getpid())
    if server is None or server.poll() is not None:
        # Unbuffered: what `select` does not see must not be in a buffer of ours.
        server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        _servers[os.getpid()] = server
        atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.close()
    server.wait()
    server.stdout.close()


def _preload() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    import plotly.graph_objects as go

    # Plotly imports the greater part of itself for the first figure.
    go.Figure(go.Scatter(x=[0], y=[0])).update_layout(
        template={"layout": {"xaxis": {"title": {"text": "x"}}}}
    )


def serve() -> None:
    """Answer each line of the input with a process's id and, at its end, its exit status."""
    _preload()
    gc.collect()
    gc.freeze()
    while line := sys.stdin.readline():
        pid = os.fork()
        if not pid:
            _become(**json.loads(line))
            _run()
        os.write(1, b"%d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def _become(arguments: Sequence[str], cwd: str, environment: Mapping[str, str], files: Sequence[str]) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    streams = [os.open(os.devnull, os.O_RDONLY), *(os.open(name, os.O_WRONLY | os.O_CREAT) for name in files)]
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # The folder of this file is not for commands.
    sys.argv, sys.path[0] = ["orchestrate", *arguments], cwd


def _run() -> NoReturn:
    """Run the command, and end as Python does but for taking a hundred modules apart, which takes 0.3 s."""
    from orchestrator.cli import main

    try:
        main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    # The first two steps of Python's own end, as in the children of `multiprocessing`.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
