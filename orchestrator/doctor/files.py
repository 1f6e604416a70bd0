"""What a sweep needs of its file system: each operation is done once, and what it must mean is looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from orchestrator.doctor.finding import Finding, ok, problem, warning

APPENDERS, LINES = 4, 50
FULL_BYTES, TIGHT_BYTES, TIGHT_FILES = 2**30, 10 * 2**30, 10_000

_ELSEWHERE = "Choose another file system for the sweep: dir=/some/folder"


def check_files(folder: Path) -> Iterator[Finding]:
    """Check the file system of an empty folder that may be filled; what is written stays in it."""
    yield from _space(folder)
    checks: dict[str, Callable[[Path], str]] = {
        "atomic rename": _rename,
        "exclusive hard link": _link,
        "append": _append,
        "flush to disk": _flush,
        "time of files": _time,
    }
    for name, check in checks.items():
        try:
            yield ok(name, check(folder))
        except OSError as error:
            yield problem(name, error.strerror or str(error), _ELSEWHERE)
        except AssertionError as error:
            yield problem(name, str(error), _ELSEWHERE)


def _space(folder: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**30:,.1f} GB free"
    files = os.statvfs(folder).f_favail
    if free < FULL_BYTES:
        yield problem("disk space", text, "Make room, or choose another place: dir=/some/folder")
    elif free < TIGHT_BYTES:
        yield warning("disk space", text, "Checkpoints of the final runs may need more")
    else:
        yield ok("disk space", text)
    if 0 < files < TIGHT_FILES:
        yield warning("disk space", f"only {files:,} files more", "Remove files that are needed no more")


def _rename(folder: Path) -> str:
    target, other = folder / "renamed", folder / "renamed.new"
    target.write_text("old")
    other.write_text("new")
    with open(target) as before:
        os.replace(other, target)
        assert target.read_text() == "new", "a renamed file still has its old content"
        assert before.read() == "old", "a reader of the old file sees another one"
    return "a file is replaced whole, under its readers too"


def _link(folder: Path) -> str:
    first, second, name = folder / "one", folder / "two", folder / "linked"
    first.write_text("one")
    second.write_text("two")
    os.link(first, name)
    try:
        os.link(second, name)
    except FileExistsError:
        assert name.read_text() == "one", "the second of two links replaced the first"
        return "the first of two takes a name, the second is refused"
    raise AssertionError("two links took the same name, so two processes would both own the sweep")


def _append(folder: Path) -> str:
    target = folder / "appended"
    code = (
        "import os, sys\n"
        "handle = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)\n"
        "for number in range(int(sys.argv[3])):\n"
        "    os.write(handle, f'{sys.argv[2]}-{number:04d}\\n'.encode())\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-S", "-c", code, str(target), str(number), str(LINES)])
        for number in range(APPENDERS)
    ]
    for writer in writers:
        writer.wait()
    lines = target.read_text().splitlines()
    missing = APPENDERS * LINES - len(set(lines))
    assert not missing and len(lines) == APPENDERS * LINES, f"{missing} of {APPENDERS * LINES} lines are lost"
    return f"{len(lines)} lines of {APPENDERS} processes are all there"


def _flush(folder: Path) -> str:
    began = time.monotonic()
    with open(folder / "flushed", "w") as handle:
        handle.write("x")
        handle.flush()
        os.fsync(handle.fileno())
    return f"{1000 * (time.monotonic() - began):.0f} ms"


def _time(folder: Path) -> str:
    target = folder / "dated"
    target.touch()
    apart = target.stat().st_mtime - time.time()
    assert abs(apart) < 60, f"the file server's clock is {apart:+.0f} s from this machine's"
    return f"the file server's clock is {apart:+.1f} s from this machine's"
