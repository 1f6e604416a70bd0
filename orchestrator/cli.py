"""The `orchestrate` command: parsing and printing only."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator import __version__
from orchestrator.commands import completing
from orchestrator.commands.checking import check
from orchestrator.commands.combining import ensemble
from orchestrator.commands.completion import completion
from orchestrator.commands.driving import advance, cron, submit
from orchestrator.commands.handing_over import export, predict
from orchestrator.commands.inspecting import inspect
from orchestrator.commands.machine import doctor
from orchestrator.commands.results import results
from orchestrator.commands.sharing import share
from orchestrator.commands.standing import declared_ranges, planned_spaces, status
from orchestrator.commands.sweeps import (
    checked,
    console,
    directory_argument,
    exit_status,
    how_to_go_on,
    how_to_mend,
    json_option,
    open_target,
    overrides_argument,
    refuse_cancelled,
    say,
    short,
    target_argument,
)
from orchestrator.exits import Commands

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.control.create import Planned
    from orchestrator.control.decide import Decision
    from orchestrator.control.opened import Sweep


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrate")
def main() -> None:
    """Coarse-to-fine hyper-parameter sweeps, on this machine or on a SLURM cluster.

    \b
    orchestrate inspect digits                look at data before any training
    orchestrate plan sweep.yaml               what will run, and what it will cost
    orchestrate run sweep.yaml                run it here, with progress, until it is done
    orchestrate run sweep.yaml slurm=gpu      the same on a cluster's GPUs
    orchestrate submit sweep.yaml slurm=gpu   hand it to the cluster, and close the laptop
    orchestrate status sweeps/digits          where it stands
    """


for _command in (
    *(inspect, check, submit, advance, cron, status, results, ensemble, export, predict, share),
    *(doctor, completion),
):
    main.add_command(_command)


@main.command()
@click.argument("file", type=click.Path(path_type=Path), shell_complete=completing.targets)
@overrides_argument
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@click.option("--show-script", is_flag=True, help="Show the batch scripts that SLURM will get, and no plan.")
@json_option
def plan(file: Path, overrides: tuple[str, ...], dry_run: bool, show_script: bool, as_json: bool) -> None:
    """Show what will run and what it will cost, and freeze the plan. Submits nothing.

    \b
    Examples:
      orchestrate plan sweep.yaml
      orchestrate plan sweep.yaml stages.coarse.trials=128 slurm=gpu --dry-run
      orchestrate plan sweep.yaml slurm=gpu --show-script
      orchestrate plan sweep.yaml --json
    """
    from orchestrator.control.agreements import agreements
    from orchestrator.control.create import freeze_plan, work_out
    from orchestrator.planning.narrowing.trust import describe, told
    from orchestrator.planning.plan import plan_to_json
    from orchestrator.report.planned import show_plan
    from orchestrator.space import to_json
    from orchestrator.sweep.facts import read_facts

    planned = work_out(file, checked(overrides))
    ran = read_facts(planned.directory, planned.plan).phases if planned.existing else ()
    agreed = agreements(planned.plan, ran)
    if show_script:
        _show_scripts(planned, as_json)
        return
    if not dry_run:
        freeze_plan(planned)
    if as_json:
        content = plan_to_json(planned.plan)
        content["space"] = to_json(planned.space, "")["parameters"]
        content["tied"] = dict(planned.config.tied)
        content["agreements"] = [told(one) for one in agreed]
        content["directory"] = str(planned.directory.path)
        click.echo(json.dumps(content, indent=1))
        return
    show_plan(console(), planned.plan, planned.space, short(planned.directory.path), tied=planned.config.tied)
    for one in agreed:
        click.echo(describe(one))
    if not dry_run:
        click.echo(f"frozen; run it: orchestrate run {short(planned.directory.path)}")


@main.command()
@target_argument
@overrides_argument
def run(target: Path, overrides: tuple[str, ...]) -> None:
    """Run a sweep in the foreground until it is done. TARGET is a sweep file or a sweep's directory.

    Ctrl-C leaves its jobs running; the same command goes on where the sweep stands.

    \b
    Examples:
      orchestrate run sweep.yaml
      orchestrate run sweep.yaml slurm=gpu slurm.partition=a100
      orchestrate run sweeps/digits
    """
    from orchestrator.control import drive
    from orchestrator.report.progress import Progress

    sweep = open_target(target, overrides)
    refuse_cancelled(sweep)
    screen = console()
    progress = Progress(screen)
    try:
        with progress:
            decision = drive.run(sweep, progress.show, progress.act, progress.note)
    except KeyboardInterrupt:
        click.echo(f"\nstopped watching; its jobs go on. Go on: {how_to_go_on(sweep)}", err=True)
        click.echo(f"Stop them too: orchestrate cancel {short(sweep.directory.path)}", err=True)
        sys.exit(130)
    _end(screen, sweep, decision)


@main.command()
@directory_argument
def report(directory: Path) -> None:
    """Write the sweep's HTML page anew; works while it runs.

    \b
    Examples:
      orchestrate report sweeps/digits
    """
    from orchestrator.control.drive import refresh

    sweep = open_target(directory, ())
    refresh(sweep)
    click.echo(short(sweep.directory.report))


@main.command()
@directory_argument
@click.argument("amount", required=False)
def budget(directory: Path, amount: str | None) -> None:
    """Show what a sweep may cost, or allow it another AMOUNT from now on.

    \b
    Examples:
      orchestrate budget sweeps/digits
      orchestrate budget sweeps/digits "60 gpu-hours"
    """
    from orchestrator.control.allow import allow, allowance

    sweep = open_target(directory, ())
    if amount is not None:
        allow(sweep, amount)
    click.echo(allowance(sweep))
    if amount is not None:
        click.echo(f"go on: {how_to_go_on(sweep)}")


@main.command()
@directory_argument
def cancel(directory: Path) -> None:
    """Stop everything a sweep has started. Results stay; `orchestrate retry` goes on.

    \b
    Examples:
      orchestrate cancel sweeps/digits
    """
    from orchestrator.control import drive

    sweep = open_target(directory, ())
    if drive.observe(sweep).state == "done":
        click.echo("the sweep is done; there is nothing to cancel")
        return
    decision = drive.cancel(sweep, lambda action: None)
    if decision.actions:
        click.echo("cancelled; some of its jobs take their time to end")
        sys.exit(1)
    click.echo(f"cancelled. Go on with it: orchestrate retry {short(directory)}")


@main.command()
@directory_argument
def retry(directory: Path) -> None:
    """Run failed trials again, with the code as it is now; also revives a cancelled sweep.

    \b
    Examples:
      orchestrate retry sweeps/digits && orchestrate run sweeps/digits
    """
    from orchestrator.control import retry as retrying

    sweep = open_target(directory, ())
    count = retrying.retry(sweep)
    click.echo(f"{count} trials will run again: {how_to_go_on(sweep)}")


def _show_scripts(planned: Planned, as_json: bool) -> None:
    from orchestrator.control.scripts import scripts

    shown = scripts(planned.plan, planned.config, planned.directory)
    if as_json:
        click.echo(json.dumps(shown, indent=1))
        return
    for title, text in shown.items():
        click.echo(f"### {title}\n{text}")


def _end(screen: Console, sweep: Sweep, decision: Decision) -> None:
    from orchestrator.report.terminal import show_end
    from orchestrator.results.ensemble_file import read_ensemble

    standing = sweep.stand(decision)
    if decision.state == "done":
        ensemble = read_ensemble(sweep.directory)
        spaces, declared = planned_spaces(sweep), declared_ranges(sweep)
        show_end(screen, standing, ensemble, spaces, short(sweep.directory.path), declared)
        if standing.message:
            say(screen, standing.message)
        if ensemble is None and any(phase.kind == "ensemble" for phase in standing.phases):
            click.echo(
                f"error: the ensemble failed: see orchestrate results and {sweep.directory.logs}", err=True
            )
            sys.exit(1)
        return
    errors = console(err=True)
    say(errors, f"{decision.state}: {decision.message}")
    for sentence in how_to_mend(sweep) if decision.state == "paused" else ():
        say(errors, sentence)
    sys.exit(exit_status(decision.state))


if __name__ == "__main__":
    main()
