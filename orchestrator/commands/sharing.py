"""The command that gives a sweep's trials to other people's tools."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import directory_argument, json_option, open_target
from orchestrator.errors import UserError
from orchestrator.integrations.installed import check_installed

if TYPE_CHECKING:
    from orchestrator.control.opened import Sweep
    from orchestrator.integrations.shared import Shared

Note = Callable[[str], None]
# What was shared, and how to look at it.
Told = tuple["Sequence[Shared]", str]


@click.command()
@directory_argument
@click.option(
    "--to",
    "target",
    type=click.Choice(["optuna", "mlflow", "tensorboard"]),
    required=True,
    help="What the trials are written for.",
)
@click.option(
    "--out",
    required=True,
    metavar="WHERE",
    help="sqlite:///FILE.db or another database; for Optuna also FILE.log, for MLflow a server's address or "
    "a folder, for TensorBoard a folder.",
)
@click.option(
    "--name",
    "--study",
    "name",
    metavar="NAME",
    help="Of MLflow's experiment, or what the names of Optuna's studies begin with; else the sweep's name.",
)
@json_option
def share(directory: Path, target: str, out: str, name: str | None, as_json: bool) -> None:
    """Write a sweep's ended trials where another tool shows them; again adds what is new.

    For Optuna each stage becomes a study, NAME/STAGE. For MLflow the sweep becomes an experiment with a run
    for each stage, and the trials' runs below it. For TensorBoard each trial becomes a folder, STAGE/TRIAL.

    \b
    Examples:
      orchestrate share sweeps/digits --to optuna --out sqlite:///optuna.db
      orchestrate share sweeps/digits --to mlflow --out sqlite:///mlflow.db
      orchestrate share sweeps/digits --to mlflow --out http://localhost:5000 --name second-try
      orchestrate share sweeps/digits --to tensorboard --out runs/digits
    """
    if not out.strip():
        raise UserError("says nothing", key="--out", hint="Give a database, a file or a folder")
    check_installed(target)
    shows = not as_json and sys.stderr.isatty()
    to = {"optuna": _to_optuna, "mlflow": _to_mlflow, "tensorboard": _to_tensorboard}[target]
    sweep = open_target(directory, ())
    shared, look = to(sweep, out, name, _note if shows else _quiet)
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps([_plain(one) for one in shared], indent=1))
        return
    for one in shared:
        click.echo(_line(one))
    click.echo(f"look at them: {look}" if shared else "no trial has ended yet: call it again later")


def _plain(one: Shared) -> dict[str, str | int]:
    """Return it for `--json`: of an Optuna study there is nothing written anew, and its name is called so."""
    if one.replaced is not None:
        return asdict(one)
    return {"study": one.name, "stage": one.stage, "trials": one.trials, "added": one.added}


def _line(one: Shared) -> str:
    again = f", {one.replaced} written anew" if one.replaced else ""
    return f"{one.name}: {one.trials} trials, {one.added} of them new{again}"


def _note(words: str) -> None:
    click.echo(f"\r\x1b[K{words} …", nl=False, err=True)


def _quiet(words: str) -> None:
    pass


def _to_optuna(sweep: Sweep, out: str, name: str | None, note: Note) -> Told:
    from orchestrator.integrations.optuna_share import share_with_optuna
    from orchestrator.integrations.optuna_storage import find_place

    place = find_place(out)
    shared = share_with_optuna(_compacted(sweep), place, study=name, note=note)
    return shared, f"optuna-dashboard {place.shown}"


def _to_mlflow(sweep: Sweep, out: str, name: str | None, note: Note) -> Told:
    from orchestrator.integrations.mlflow_place import find_place
    from orchestrator.integrations.mlflow_share import share_with_mlflow

    place = find_place(out)
    return share_with_mlflow(_compacted(sweep), place, name=name, note=note), place.look


def _to_tensorboard(sweep: Sweep, out: str, name: str | None, note: Note) -> Told:
    from orchestrator.integrations.tensorboard_share import share_with_tensorboard

    if name is not None:
        raise UserError("there is no name to give: runs are called STAGE/TRIAL", key="--name")
    folder = Path(out).expanduser()
    return share_with_tensorboard(_compacted(sweep), folder, note=note), f"tensorboard --logdir {folder}"


def _compacted(sweep: Sweep) -> Path:
    """Bring the results up to date, and return the sweep's directory."""
    from orchestrator.control.act import compact_results

    compact_results(sweep.directory, sweep.plan, sweep.config)
    return sweep.directory.path
