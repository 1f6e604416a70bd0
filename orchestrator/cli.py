"""The `orchestrate` command: parsing and printing only."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator import __version__
from orchestrator.errors import Busy, UserError
from orchestrator.exits import Commands

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.control.decide import Decision
    from orchestrator.control.drive import Sweep
    from orchestrator.space import Parameter


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orchestrate")
def main() -> None:
    """Coarse-to-fine hyper-parameter sweeps, on this machine or on a SLURM cluster.

    \b
    orchestrate plan sweep.yaml               what will run, and what it will cost
    orchestrate run sweep.yaml                run it here, with progress, until it is done
    orchestrate run sweep.yaml slurm=gpu      the same on a cluster's GPUs
    orchestrate status sweeps/digits          where it stands
    """


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
_target = click.argument("target", type=click.Path(path_type=Path))
_directory = click.argument("directory", type=click.Path(path_type=Path))
_overrides = click.argument("overrides", nargs=-1)


@main.command()
@click.argument("file", type=click.Path(path_type=Path))
@_overrides
@click.option("--dry-run", is_flag=True, help="Show the plan and write nothing.")
@_json
def plan(file: Path, overrides: tuple[str, ...], dry_run: bool, as_json: bool) -> None:
    """Show what will run and what it will cost, and freeze the plan. Submits nothing.

    \b
    Examples:
      orchestrate plan sweep.yaml
      orchestrate plan sweep.yaml stages.coarse.trials=128 slurm=gpu --dry-run
      orchestrate plan sweep.yaml --json
    """
    from orchestrator.control.agreements import agreements
    from orchestrator.control.create import freeze_plan, work_out
    from orchestrator.planning.narrowing.trust import describe, told
    from orchestrator.planning.plan import plan_to_json
    from orchestrator.report.terminal import show_plan
    from orchestrator.space import to_json
    from orchestrator.sweep.facts import read_facts

    planned = work_out(file, _checked(overrides))
    ran = read_facts(planned.directory, planned.plan).phases if planned.existing else ()
    agreed = agreements(planned.plan, ran)
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
    show_plan(
        _console(), planned.plan, planned.space, _short(planned.directory.path), tied=planned.config.tied
    )
    for one in agreed:
        click.echo(describe(one))
    if not dry_run:
        click.echo(f"frozen; run it: orchestrate run {_short(planned.directory.path)}")


@main.command()
@_target
@_overrides
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

    sweep = _open(target, overrides)
    _refuse_cancelled(sweep)
    console = _console()
    progress = Progress(console)
    try:
        with progress:
            decision = drive.run(sweep, progress.show, progress.act, progress.note)
    except KeyboardInterrupt:
        where = _short(sweep.directory.path)
        click.echo(f"\nstopped watching; its jobs go on. Go on: orchestrate run {where}", err=True)
        click.echo(f"Stop them too: orchestrate cancel {where}", err=True)
        sys.exit(130)
    _end(console, sweep, decision)


@main.command()
@_directory
@_json
def advance(directory: Path, as_json: bool) -> None:
    """Take the next step of a sweep and exit: for cron, at any time, any number of times.

    \b
    Examples:
      orchestrate advance sweeps/digits
    """
    from orchestrator.control import drive

    sweep = _open(directory, ())
    actions: list[str] = []
    try:
        decision = drive.advance_once(sweep, lambda action: actions.append(type(action).__name__))
    except Busy as busy:
        if as_json:
            click.echo(json.dumps({"state": "busy", "owner": str(busy), "actions": []}))
        else:
            click.echo(f"nothing to do: {busy} is advancing it")
        return
    if as_json:
        content = {"state": decision.state, "message": decision.message, "actions": actions}
        click.echo(json.dumps(content))
    else:
        done = ", ".join(actions) or "nothing to do now"
        click.echo(f"{decision.state}: {done}{': ' + decision.message if decision.message else ''}")
    sys.exit(_exit_status(decision.state))


@main.command()
@_directory
@_json
@click.option("--watch", is_flag=True, help="Show it again and again until the sweep is at rest.")
def status(directory: Path, as_json: bool, watch: bool) -> None:
    """Show where a sweep stands: trials by state, best so far, ranges and why, cost.

    \b
    Examples:
      orchestrate status sweeps/digits
      orchestrate status sweeps/digits --watch
      orchestrate status sweeps/digits --json | jq .phases
    """
    from orchestrator.control.drive import observe, owner
    from orchestrator.report.terminal import standing_view

    sweep = _open(directory, ())
    standing = observe(sweep)
    if as_json:
        click.echo(json.dumps({**standing.to_json(), "driven_by": owner(sweep)}, indent=1))
        return
    console = _console()
    if watch:
        _watch(console, sweep)
        return
    console.print(standing_view(standing, _spaces(sweep)))
    if standing.message:
        click.echo(standing.message)
    if standing.state == "running":
        by = owner(sweep)
        click.echo(f"driven by {by}" if by else f"nobody drives it: orchestrate run {_short(directory)}")


@main.command()
@_directory
@click.option("--format", "kind", type=click.Choice(["table", "csv", "json"]), default="table")
@click.option("--stage", help="Only the trials of one stage.")
@click.option("--top", type=click.IntRange(min=1), help="Only the best so many.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Write to a file instead (csv, json or parquet)."
)
@_json
def results(
    directory: Path, kind: str, stage: str | None, top: int | None, output: Path | None, as_json: bool
) -> None:
    """Show the results as a table, or export them.

    \b
    Examples:
      orchestrate results sweeps/digits --top 10
      orchestrate results sweeps/digits --stage fine --format csv
      orchestrate results sweeps/digits --output results.parquet
    """
    from orchestrator.report.export import export_results, select_trials

    sweep = _open(directory, ())
    trials = select_trials(sweep.directory.path, stage, top)
    export_results(trials, "json" if as_json else kind, output, _console())


@main.command()
@_directory
def report(directory: Path) -> None:
    """Write the sweep's HTML page anew; works while it runs.

    \b
    Examples:
      orchestrate report sweeps/digits
    """
    from orchestrator.control.drive import refresh

    sweep = _open(directory, ())
    refresh(sweep)
    click.echo(_short(sweep.directory.report))


@main.command()
@_directory
@click.argument("amount", required=False)
def budget(directory: Path, amount: str | None) -> None:
    """Show what a sweep may cost, or allow it another AMOUNT from now on.

    \b
    Examples:
      orchestrate budget sweeps/digits
      orchestrate budget sweeps/digits "60 gpu-hours"
    """
    from orchestrator.control.allow import allow, allowance

    sweep = _open(directory, ())
    if amount is not None:
        allow(sweep, amount)
    click.echo(allowance(sweep))
    if amount is not None:
        click.echo(f"go on: orchestrate run {_short(directory)}")


@main.command()
@_directory
def cancel(directory: Path) -> None:
    """Stop everything a sweep has started. Results stay; `orchestrate retry` goes on.

    \b
    Examples:
      orchestrate cancel sweeps/digits
    """
    from orchestrator.control import drive

    sweep = _open(directory, ())
    if drive.observe(sweep).state == "done":
        click.echo("the sweep is done; there is nothing to cancel")
        return
    decision = drive.cancel(sweep, lambda action: None)
    if decision.actions:
        click.echo("cancelled; some of its jobs take their time to end")
        sys.exit(1)
    click.echo(f"cancelled. Go on with it: orchestrate retry {_short(directory)}")


@main.command()
@_directory
def retry(directory: Path) -> None:
    """Run failed trials again, with the code as it is now; also revives a cancelled sweep.

    \b
    Examples:
      orchestrate retry sweeps/digits && orchestrate run sweeps/digits
    """
    from orchestrator.control import retry as retrying

    count = retrying.retry(_open(directory, ()))
    click.echo(f"{count} trials will run again: orchestrate run {_short(directory)}")


def _console() -> Console:
    from rich.console import Console

    return Console()


def _checked(overrides: Sequence[str]) -> list[str]:
    for text in overrides:
        if "=" not in text and not text.startswith("~"):
            raise UserError(f"'{text}' is no override", file="command line", hint="Write key=value")
    return list(overrides)


def _open(target: Path, overrides: Sequence[str]) -> Sweep:
    """Open a sweep by its directory, or plan a sweep file where that was not done yet."""
    from orchestrator.control.drive import open_sweep
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

        planned = work_out(target, _checked(overrides))
        if not planned.existing:
            freeze_plan(planned)
        return open_sweep(planned.directory)
    raise UserError("there is no such sweep file or directory", file=target)


def _refuse_cancelled(sweep: Sweep) -> None:
    if sweep.directory.cancelled.exists():
        raise UserError(
            "was cancelled",
            file=_short(sweep.directory.path),
            hint=f"Go on with it: orchestrate retry {_short(sweep.directory.path)}",
        )


def _spaces(sweep: Sweep) -> dict[str, tuple[Parameter, ...]]:
    from orchestrator.space import from_json
    from orchestrator.sweep.files import read_json

    spaces = {}
    for phase in sweep.plan.stages:
        path = sweep.directory.phase(phase.kind, phase.name).space
        if path.exists():
            spaces[phase.name] = from_json(read_json(path))
    return spaces


def _watch(console: Console, sweep: Sweep) -> None:
    import time

    from orchestrator.control.drive import observe
    from orchestrator.report.progress import Progress

    with Progress(console) as progress:
        while (standing := observe(sweep)).state == "running":
            progress.show(standing)
            time.sleep(1.0)
        progress.show(standing)


def _end(console: Console, sweep: Sweep, decision: Decision) -> None:
    from orchestrator.report.terminal import show_end
    from orchestrator.sweep.files import read_json

    standing = sweep.stand(decision)
    result = sweep.directory.ensemble_result
    ensemble = read_json(result) if result.exists() else None
    if decision.state == "done":
        show_end(console, standing, ensemble, _spaces(sweep), _short(sweep.directory.path))
        failed = next((p for p in standing.phases if p.kind == "ensemble" and p.failed), None)
        if failed is not None:
            click.echo(
                f"error: the ensemble failed: see orchestrate results and {sweep.directory.logs}", err=True
            )
            sys.exit(1)
        return
    click.echo(f"{decision.state}: {decision.message}", err=True)
    if decision.state == "paused":
        click.echo(f"After a fix of the code: orchestrate retry {_short(sweep.directory.path)}", err=True)
        click.echo("After a change of the sweep file: run it under another name: name=...", err=True)
    sys.exit(_exit_status(decision.state))


def _exit_status(state: str) -> int:
    return 0 if state in ("running", "done", "cancelled") else 1


def _short(path: Path) -> Path:
    relative = Path(os.path.relpath(path))
    return path if relative.parts[:1] == ("..",) else relative


if __name__ == "__main__":
    main()
