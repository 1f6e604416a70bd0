"""The command that looks at this machine, the cluster and their file system."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import checked, console, json_option, overrides_argument
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.doctor.finding import Finding
    from orchestrator.schema import SlurmConfig

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


@click.command()
@click.argument("target", type=click.Path(path_type=Path), required=False)
@overrides_argument
@click.option("--no-job", is_flag=True, help="Run nothing on a compute node.")
@click.option(
    "--patience", type=click.FloatRange(min=1), default=120, show_default=True, help="Seconds in the queue."
)
@json_option
def doctor(
    target: Path | None, overrides: tuple[str, ...], no_job: bool, patience: float, as_json: bool
) -> None:
    """Check this machine, the cluster and the file system, and say what to change.

    TARGET is a sweep file or a sweep's directory, whose request and place are checked; without one it is the
    cluster's default and this folder. A small job looks at a compute node.

    \b
    Examples:
      orchestrate doctor
      orchestrate doctor sweep.yaml slurm=gpu slurm.partition=a100
      orchestrate doctor sweeps/digits --no-job --json
    """
    from orchestrator.doctor.examine import examine

    resources, place, sweep, most_tasks = _subject(target, overrides)
    findings = []
    for finding in examine(
        resources, place, sweep=sweep, most_tasks=most_tasks, job=not no_job, patience_seconds=patience
    ):
        findings.append(finding)
        if not as_json and sys.stderr.isatty():
            click.echo(f"\r\x1b[K{finding.check} …", nl=False, err=True)
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    bad = sum(finding.result == "problem" for finding in findings)
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
        sys.exit(1 if bad else 0)
    _show(findings)
    click.echo(f"{bad or 'no'} problem{'' if bad == 1 else 's'}")
    sys.exit(1 if bad else 0)


def _subject(target: Path | None, overrides: tuple[str, ...]) -> tuple[SlurmConfig, Path, str, int]:
    """Return what to ask the cluster for, where, the planned sweep, and its largest stage's tasks."""
    import shutil

    from orchestrator.schema import SlurmConfig, sweep_directory

    if target is None:
        executor = "slurm" if shutil.which("sbatch") else "local"
        return SlurmConfig(executor=executor, timeout_min=5), Path.cwd(), "", 0
    if target.is_dir() and not (target / "plan.json").exists():
        executor = "slurm" if shutil.which("sbatch") else "local"
        return SlurmConfig(executor=executor, timeout_min=5), target.resolve(), "", 0
    if target.is_dir():
        from orchestrator.control.opened import open_sweep
        from orchestrator.sweep.directory import SweepDirectory

        if overrides:
            raise UserError("the plan in a sweep's directory is frozen and takes no overrides", file=target)
        sweep = open_sweep(SweepDirectory(target.resolve()))
        most = max(phase.tasks for phase in sweep.plan.phases)
        return sweep.config.slurm, target.resolve(), str(target.resolve()), most
    from orchestrator.config import load_sweep

    config = load_sweep(target, checked(overrides))
    return config.slurm, sweep_directory(config).resolve(), "", 0


def _show(findings: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("check", "", "found", box=None, pad_edge=False)
    for finding in findings:
        found = Text(finding.found)
        if finding.advice:
            found.append(f"\n→ {finding.advice}", style="bold")
        table.add_row(Text(finding.check), Text(finding.result, style=_COLOURS[finding.result]), found)
    console().print(table)
