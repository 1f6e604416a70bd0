"""The commands that drive a sweep with nobody there: one step, a chain of SLURM's jobs, a line in cron."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import (
    console,
    directory_argument,
    exit_status,
    how_to_mend,
    json_option,
    open_target,
    overrides_argument,
    refuse_cancelled,
    short,
    target_argument,
)
from orchestrator.errors import ClusterUnavailable, LeaseLost, UserError

if TYPE_CHECKING:
    from orchestrator.control.every import Step


@click.command()
@directory_argument
@click.option("--all", "every", is_flag=True, help="DIRECTORY is a folder: every sweep below it.")
@click.option("--quiet", is_flag=True, help="Print nothing unless something was done, or has to be.")
@click.option("--log", type=click.Path(path_type=Path), help="Say it in a file, which is kept small.")
@json_option
def advance(directory: Path, every: bool, quiet: bool, log: Path | None, as_json: bool) -> None:
    """Take the next step of a sweep and exit: for cron, at any time, any number of times.

    \b
    Examples:
      orchestrate advance sweeps/digits
      orchestrate advance --all sweeps
    """
    steps: list[Step] = []
    try:
        for step in _steps(directory, every):
            steps.append(step)
            if not as_json and (not quiet or step.actions or step.failed):
                _say(f"{short(Path(step.directory))}: {step.describe()}" if every else step.describe(), log)
    except (UserError, ClusterUnavailable, LeaseLost, OSError) as error:
        if log is not None:
            _say(f"error: {error}", log)
        raise
    if every and not steps:
        raise UserError("there is no sweep below this folder", file=directory)
    if as_json:
        content = [step.to_json() for step in steps]
        click.echo(json.dumps(content if every else content[0]))
    sys.exit(1 if any(step.failed for step in steps) else 0)


def _steps(directory: Path, every: bool) -> Iterator[Step]:
    from orchestrator.control.every import take_every_step, take_step
    from orchestrator.sweep.directory import SweepDirectory

    if not directory.is_dir():
        raise UserError("there is no such directory", file=directory)
    if every:
        yield from take_every_step(directory)
    else:
        yield take_step(SweepDirectory(directory.resolve()))


def _say(text: str, log: Path | None) -> None:
    if log is None:
        click.echo(text)
        return
    from orchestrator.control.journal import note

    note(log, text)


@click.command()
@target_argument
@overrides_argument
@json_option
def submit(target: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Hand a sweep to SLURM and return: each array is followed by a small job that takes the next step.

    TARGET is a sweep file or a sweep's directory. No process has to stay alive anywhere.

    \b
    Examples:
      orchestrate submit sweep.yaml slurm=gpu
      orchestrate submit sweeps/digits
    """
    from orchestrator.control.drive import owner, submit_once
    from orchestrator.report.progress import Progress

    sweep = open_target(target, overrides)
    refuse_cancelled(sweep)
    screen = console()
    progress = Progress(screen)
    decision = submit_once(sweep, (lambda action: None) if as_json else progress.act)
    where = short(sweep.directory.path)
    by = owner(sweep)
    state = decision.state if decision else "running"
    message = decision.message if decision else ""
    if as_json:
        content = {
            "state": state,
            "message": message,
            "driven_by": by,
            "directory": str(sweep.directory.path),
        }
        click.echo(json.dumps(content))
        sys.exit(exit_status(state))
    if state == "running":
        if message:
            click.echo(message)
        click.echo(f"handed over: {by or 'SLURM'}")
        click.echo(f"where it stands: orchestrate status {where}; stop it: orchestrate cancel {where}")
        return
    click.echo(f"{state}{': ' + message if message else ''}", err=state != "done")
    for sentence in how_to_mend(sweep) if state == "paused" else ():
        click.echo(sentence, err=True)
    if state != "done":
        click.echo(f"Then hand it over again: orchestrate submit {where}", err=True)
    sys.exit(exit_status(state))


@click.command()
@directory_argument
@click.option("--all", "every", is_flag=True, help="DIRECTORY is a folder: every sweep below it.")
@click.option("--every", "minutes", type=click.IntRange(1, 60), default=5, show_default=True, help="Minutes.")
@click.option("--install", "wish", flag_value="install", help="Put it into the table of this machine.")
@click.option("--remove", "wish", flag_value="remove", help="Take it out again.")
@click.option("--with", "table", type=click.Choice(["scrontab", "crontab"]), help="Default: what is there.")
@json_option
def cron(
    directory: Path, every: bool, minutes: int, wish: str | None, table: str | None, as_json: bool
) -> None:
    """Print the line that lets cron take a sweep's steps; install or remove it.

    SLURM's own cron (scrontab) is used where the cluster has it, else this machine's (crontab).

    \b
    Examples:
      orchestrate cron sweeps/digits
      orchestrate cron sweeps/digits --install --every 10
      orchestrate cron --all sweeps --install --with crontab
      orchestrate cron sweeps/digits --remove
    """
    from orchestrator.control.cron import (
        CRONTAB,
        SCRONTAB,
        Entry,
        choose_table,
        crontab_block,
        install,
        remove,
        scrontab_block,
    )

    resources = None
    if not every and wish != "remove":
        resources = open_target(directory, ()).config.slurm if directory.is_dir() else None
        if resources is None:
            raise UserError("there is no such sweep's directory", file=directory)
    elif every and wish != "remove" and not directory.is_dir():
        raise UserError("there is no such folder", file=directory)
    entry = Entry(directory=directory.resolve(), every=every, minutes=minutes, resources=resources)
    if wish is None:
        blocks = {SCRONTAB: scrontab_block(entry), CRONTAB: crontab_block(entry)}
        if resources is not None and resources.executor != "slurm":
            del blocks[SCRONTAB]
        chosen = {name: block for name, block in blocks.items() if table in (None, name)}
        if as_json:
            click.echo(json.dumps(chosen))
            return
        for name, block in chosen.items():
            click.echo(f"# for {name} -e, or: orchestrate cron {short(directory)} --install --with {name}")
            click.echo(block)
        return
    table = choose_table(table)
    if wish == "install":
        install(entry, table)
        done = f"installed in {table}: every {minutes} minutes"
    else:
        done = f"removed from {table}" if remove(entry, table) else f"{table} has no line of ours for it"
    click.echo(json.dumps({"table": table, "done": done}) if as_json else done)
