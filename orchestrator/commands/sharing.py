"""The command that gives a sweep's trials to other people's tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from orchestrator.commands.sweeps import directory_argument, json_option, open_target


@click.command()
@directory_argument
@click.option(
    "--to", "target", type=click.Choice(["optuna"]), required=True, help="What the trials are written for."
)
@click.option(
    "--out", required=True, metavar="STORAGE", help="sqlite:///FILE.db, another database, or FILE.log."
)
@click.option("--study", metavar="NAME", help="What the studies' names begin with; else the sweep's name.")
@json_option
def share(directory: Path, target: str, out: str, study: str | None, as_json: bool) -> None:
    """Write a sweep's ended trials where another tool shows them; again adds what is new.

    For Optuna each stage becomes a study, NAME/STAGE, in a database or a journal file.

    \b
    Examples:
      orchestrate share sweeps/digits --to optuna --out sqlite:///digits.db
      orchestrate share sweeps/digits --to optuna --out digits.log --study second-try
      optuna-dashboard sqlite:///digits.db
    """
    _to_optuna(directory, out, study, as_json)


def _to_optuna(directory: Path, out: str, study: str | None, as_json: bool) -> None:
    from dataclasses import asdict

    from orchestrator.control.drive import refresh
    from orchestrator.integrations.optuna_share import share_with_optuna
    from orchestrator.integrations.optuna_storage import find_place

    sweep = open_target(directory, ())
    place = find_place(out)
    refresh(sweep)
    shows = not as_json and sys.stderr.isatty()
    shared = share_with_optuna(
        sweep.directory.path,
        place,
        study=study,
        note=lambda words: click.echo(f"\r\x1b[K{words} …", nl=False, err=True) if shows else None,
    )
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in shared], indent=1))
        return
    for one in shared:
        click.echo(f"{one.study}: {one.trials} trials, {one.added} of them new")
    if not shared:
        click.echo("no trial has ended yet: call it again later")
        return
    click.echo(f"look at them: optuna-dashboard {place.shown}")
