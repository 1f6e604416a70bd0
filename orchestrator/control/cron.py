"""cron: the line that calls `orchestrate advance` every few minutes, in SLURM's own table or the machine's.

cron starts a command with next to no environment, in the home directory, and reads `%` as a line break; so
the line carries what it needs, with absolute paths. It stands between two comments that name the directory:
what is outside of them is never touched.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.driver import asked_for
from orchestrator.errors import UserError
from orchestrator.schema import SlurmConfig

CRONTAB, SCRONTAB = "crontab", "scrontab"
# What a task is told by its environment beside the site's own set-up.
_CARRIED = ("PATH", "SLURM_CONF", "PYTHONPATH", "LD_LIBRARY_PATH")
# Some crons take no longer command.
MOST_CHARACTERS = 990
COMMAND_SECONDS = 60.0
TRIES = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What shall be advanced, and how often.

    Attributes:
        directory: a sweep's, or with `every` a folder of sweeps; absolute.
        resources: what SLURM's own cron asks for; None asks for the least.
    """

    directory: Path
    every: bool = False
    minutes: int = 5
    resources: SlurmConfig | None = None

    @property
    def log(self) -> Path:
        """Where the called command says what it did."""
        return self.directory / ("cron.log" if self.every else "logs/cron.log")


def crontab_block(entry: Entry) -> str:
    """Return the lines for this machine's cron.

    Raises:
        UserError: no table can hold the directory's name.
    """
    return _block(entry, [f"{_when(entry)} {_command(entry).replace('%', chr(92) + '%')}"])


def scrontab_block(entry: Entry) -> str:
    """Return the lines for SLURM's own cron, which runs them as small jobs.

    Raises:
        UserError: no table can hold the directory's name.
    """
    resources = entry.resources or SlurmConfig()
    flags = {**asked_for(resources), "output": str(entry.log).replace("%", "%%"), "open-mode": "append"}
    options = [
        f"#SCRON {f'--{k}' if v is True else f'--{k}={shlex.quote(str(v))}'}" for k, v in flags.items()
    ]
    return _block(entry, [*options, f"{_when(entry)} {_command(entry)}"])


def install(entry: Entry, table: str) -> None:
    """Put an entry's lines into a table, in place of what it said of this directory before.

    Raises:
        UserError: the table can't be read or written, or is being changed all the time.
    """
    _change(table, entry, scrontab_block(entry) if table == SCRONTAB else crontab_block(entry))


def remove(entry: Entry, table: str) -> bool:
    """Take an entry's lines out of a table; False when there were none.

    Raises:
        UserError: the table can't be read or written, or is being changed all the time.
    """
    return _change(table, entry, "")


def choose_table(wanted: str | None) -> str:
    """Return the table to use: the wanted one, or SLURM's where the cluster has it enabled.

    Raises:
        UserError: it is not there.
    """
    tables = (wanted,) if wanted else (SCRONTAB, CRONTAB)
    problems = []
    for table in tables:
        try:
            _read(table)
            return table
        except UserError as error:
            problems.append(error.problem)
    raise UserError(
        "; ".join(problems),
        file="cron",
        hint="Put the line that `orchestrate cron` prints where cron runs, or use orchestrate submit",
    )


def tables_with(directory: Path) -> list[str]:
    """Return the tables of this machine in which a sweep, or a folder above it, is advanced."""
    found = []
    for table in (SCRONTAB, CRONTAB):
        with contextlib.suppress(UserError):
            lines = _read(table).splitlines()
            own = _marks(Entry(directory=directory))[0]
            above = [_marks(Entry(directory=parent, every=True))[0] for parent in directory.parents]
            if any(line in (own, *above) for line in lines):
                found.append(table)
    return found


def _when(entry: Entry) -> str:
    return "0 * * * *" if entry.minutes == 60 else f"*/{entry.minutes} * * * *"


def _command(entry: Entry) -> str:
    step = [sys.executable, "-m", "orchestrator.cli", "advance", *(["--all"] if entry.every else [])]
    step += [str(entry.directory), "--quiet", "--log", str(entry.log)]
    carried = {name: os.environ[name] for name in _CARRIED if os.environ.get(name)}
    text = _line(carried, step)
    if len(text) > MOST_CHARACTERS:
        # The long paths of a shell with many modules; SLURM's commands are what can't be done without.
        sbatch = shutil.which("sbatch")
        short = [*([str(Path(sbatch).parent)] if sbatch else []), "/usr/local/bin", "/usr/bin", "/bin"]
        carried = {**carried, "PATH": ":".join(dict.fromkeys(short))}
        carried.pop("LD_LIBRARY_PATH", None)
        text = _line(carried, step)
    return text


def _line(carried: dict[str, str], step: list[str]) -> str:
    return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in carried.items()), shlex.join(step)])


def _block(entry: Entry, lines: list[str]) -> str:
    begin, end = _marks(entry)
    if any("\n" in line or "\r" in line for line in lines):
        raise UserError("has a line break in its name, which cron's table can't hold", file=entry.directory)
    return "\n".join([begin, *lines, end, ""])


def _marks(entry: Entry) -> tuple[str, str]:
    name = json.dumps(str(entry.directory), ensure_ascii=False)
    what = f"{'every sweep in ' if entry.every else ''}{name}"
    return f"# orchestrate begins: {what}", f"# orchestrate ends: {what}"


def _change(table: str, entry: Entry, block: str) -> bool:
    """Replace an entry's block in a table, and see that it is there and nothing else has changed."""
    with _one_at_a_time(table):
        for _ in range(TRIES):
            before = _read(table)
            wanted = _with_block(before, entry, block, table)
            if wanted == before:
                return False
            # A person's editor may have written in between; then it is their table that is changed.
            if _read(table) != before:
                continue
            _write(table, wanted)
            if _read(table).rstrip("\n") == wanted.rstrip("\n"):
                return True
    raise UserError("is being changed by somebody else all the time", file=table, hint="Try it again")


def _with_block(text: str, entry: Entry, block: str, table: str) -> str:
    begin, end = _marks(entry)
    lines = text.splitlines(keepends=True)
    names = [line.rstrip("\r\n") for line in lines]
    kept: list[str] = []
    at, index = None, 0
    while index < len(lines):
        if names[index] != begin:
            kept.append(lines[index])
            index += 1
            continue
        if end not in names[index:]:
            raise UserError(
                f"the line '{begin}' has no line '{end}' after it",
                file=table,
                hint=f"Put that right by hand: {table} -e",
            )
        at = len(kept) if at is None else at
        index = names.index(end, index) + 1
    if at is None:
        if kept and block and not kept[-1].endswith("\n"):
            kept[-1] += "\n"
        at = len(kept)
    return "".join([*kept[:at], block, *kept[at:]])


@contextlib.contextmanager
def _one_at_a_time(table: str) -> Iterator[None]:
    """Keep two commands of ours on this machine from reading the same table before either writes it."""
    path = Path(tempfile.gettempdir()) / f"orchestrate-{table}-{os.getuid()}.lock"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            handle = stack.enter_context(open(path, "a"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _read(table: str) -> str:
    """Return a table; one that nobody has written yet is empty.

    Raises:
        UserError: there is no such command, or the cluster has it disabled.
    """
    done = _call(table, ["-l"])
    words = done.stderr.strip()
    if done.returncode == 0:
        return done.stdout
    if "no crontab" in words.lower() or "no scrontab" in words.lower():
        return ""
    raise UserError(f"{table} can't be read ({words or done.returncode})", file=table)


def _write(table: str, text: str) -> None:
    done = _call(table, ["/dev/stdin" if table == SCRONTAB else "-"], text)
    if done.returncode != 0:
        words = done.stderr.strip() or str(done.returncode)
        raise UserError(f"can't be written ({words})", file=table, hint="It is as it was before")


def _call(table: str, arguments: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    if shutil.which(table) is None:
        raise UserError(f"there is no {table} command on this machine", file=table)
    try:
        # Whatever bytes others have written into it go back as they are.
        return subprocess.run(
            [table, *arguments], input=given, capture_output=True, text=True, timeout=COMMAND_SECONDS,
            encoding="utf-8", errors="surrogateescape",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"{table} does not answer ({error})", file=table) from None
