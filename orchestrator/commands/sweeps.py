"""What all commands share: naming a sweep on the command line, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands import completing
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.control.opened import Sweep

PIPED_WIDTH = 1_000  # cells: no line of ours is longer, and none is filled up to it

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
target_argument = click.argument("target", type=click.Path(path_type=Path), shell_complete=completing.targets)
directory_argument = click.argument(
    "directory", type=click.Path(path_type=Path), shell_complete=completing.directories
)
overrides_argument = click.argument("overrides", nargs=-1, shell_complete=completing.overrides)


def console(*, err: bool = False) -> Console:
    """Return where tables go: a terminal, or a file or pipe in which no line is broken."""
    from rich.console import Console

    class Ours(Console):
        def on_broken_pipe(self) -> None:
            # rich would end the process with status 1: how a command ends is told in one place, `exits`.
            raise BrokenPipeError

    piped = not (sys.stderr if err else sys.stdout).isatty() and "COLUMNS" not in os.environ
    return Ours(stderr=err, width=PIPED_WIDTH if piped else None)


def say(screen: Console, sentence: str) -> None:
    """Print a sentence, on a terminal broken between words."""
    from rich.text import Text

    screen.print(Text(sentence), soft_wrap=not screen.is_terminal)


def checked(overrides: Sequence[str]) -> list[str]:
    """Return overrides as they are.

    Raises:
        UserError: one of them is none.
    """
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"'{text}' is no override", file="command line", hint="Write key=value")
    return list(overrides)


def open_target(target: Path, overrides: Sequence[str]) -> Sweep:
    """Open a sweep by its directory, or plan a sweep file where that was not done yet."""
    from orchestrator.control.opened import open_sweep
    from orchestrator.sweep.directory import SweepDirectory

    if target.is_dir():
        if overrides:
            raise UserError(
                "the plan in a sweep's directory is frozen and takes no overrides",
                file=target,
                hint="Give the sweep file and another name: orchestrate run sweep.yaml name=... key=value",
            )
        return open_sweep(SweepDirectory(target.resolve()))
    if target.exists() or target.suffix in (".yaml", ".yml"):
        from orchestrator.control.create import freeze_plan, work_out

        planned = work_out(target, checked(overrides))
        if not planned.existing:
            freeze_plan(planned)
        return open_sweep(planned.directory)
    raise UserError("there is no such sweep file or directory", file=target)


def refuse_cancelled(sweep: Sweep) -> None:
    """Refuse to drive what a person has stopped."""
    if sweep.directory.cancelled.exists():
        raise UserError(
            "was cancelled",
            file=short(sweep.directory.path),
            hint=f"Go on with it: orchestrate retry {short(sweep.directory.path)}",
        )


def how_to_go_on(sweep: Sweep) -> str:
    """Return the commands that drive a sweep, for a person to choose from."""
    where = short(sweep.directory.path)
    by_slurm = f", or orchestrate submit {where}" if sweep.config.slurm.executor == "slurm" else ""
    return f"orchestrate run {where}{by_slurm}"


def how_to_mend(sweep: Sweep) -> list[str]:
    """Return what a person may do about a paused sweep, a sentence each."""
    where, directory = short(sweep.directory.path), sweep.directory
    sentences = [f"After a fix of the code: orchestrate retry {where}"]
    first = sweep.plan.stages[0]
    if sweep.plan.checks is not None and not directory.phase(first.kind, first.name).trials.exists():
        return [*sentences, f"Go on in spite of the checks: orchestrate check {where} --accept"]
    return [*sentences, "After a change of the sweep file: run it under another name: name=..."]


def exit_status(state: str) -> int:
    """Return what a command ends with when it leaves a sweep in a state."""
    return 0 if state in ("running", "done", "cancelled") else 1


def short(path: Path) -> Path:
    """Return a path as it is shorter to read: from here, unless that leads upwards."""
    relative = Path(os.path.relpath(path))
    return path if relative.parts[:1] == ("..",) else relative
