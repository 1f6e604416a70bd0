"""The command that runs the sanity checks here, before any sweep does."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import (
    checked,
    console,
    json_option,
    overrides_argument,
    short,
    target_argument,
)
from orchestrator.errors import UserError

if TYPE_CHECKING:
    from orchestrator.checks.range_test import RangeTest
    from orchestrator.checks.result import CheckResult
    from orchestrator.planning.plan import Phase, Plan
    from orchestrator.schema import SweepConfig

_WORDS = {True: ("ok", "green"), False: ("failed", "red"), None: ("–", "dim")}


@click.command()
@target_argument
@overrides_argument
@click.option("--skip", multiple=True, metavar="ID", help="Leave out a check, such as D3; may be repeated.")
@click.option("--range-test", "with_rates", is_flag=True, help="Also test the range of the learning rate.")
@click.option(
    "--human-accuracy", type=click.FloatRange(0, 1), help="What people reach on the task, such as 0.98."
)
@click.option(
    "--accept", is_flag=True, help="Run nothing: let a sweep that its checks have stopped go on as it is."
)
@json_option
def check(
    target: Path,
    overrides: tuple[str, ...],
    skip: tuple[str, ...],
    with_rates: bool,
    human_accuracy: float | None,
    accept: bool,
    as_json: bool,
) -> None:
    """Check a job's model, loss and data before a sweep. TARGET is a sweep file or a sweep's directory.

    Runs here, with the job's own config at the scale of the first stage. Ends with 1 when a check failed.

    \b
    Examples:
      orchestrate check sweep.yaml
      orchestrate check sweep.yaml jobs.config.model.name=cnn --skip D3 --skip D8
      orchestrate check sweeps/digits --range-test --human-accuracy 0.98 --json
      orchestrate check sweeps/digits --accept
    """
    from orchestrator.checks.names import NAMES
    from orchestrator.errors import nearest

    for name in skip:
        if name not in NAMES:
            raise UserError(f"there is no check '{name}'", file="--skip", hint=nearest(name, NAMES))
    if accept:
        _accept(target)
        return
    config, phase = _entered(target, overrides)
    config.checks.skip = [*config.checks.skip, *skip]
    if human_accuracy is not None:
        config.checks.human_accuracy = human_accuracy
    note = "" if as_json or not sys.stderr.isatty() else "\r\x1b[K"
    with _its_output_aside():
        results, rates = _looked(config, phase, with_rates, lambda name: _tell(note, f"{name} …"))
    _tell(note, "")
    bad = [result for result in results if result.passed is False]
    if as_json:
        content = {
            "checks": [result.to_json() for result in results],
            "range_test": rates.to_json() if rates else None,
        }
        click.echo(json.dumps(content, indent=1))
        sys.exit(1 if bad else 0)
    _show(results)
    if rates is not None:
        click.echo(_of_rates(rates))
    if config.jobs.setup is None:
        click.echo(
            "This is all that training alone shows. For the other checks name a function that returns "
            "model, loss, inputs and targets: jobs.setup=my_train.setup"
        )
    click.echo(f"{len(bad) or 'no'} failed check{'' if len(bad) == 1 else 's'}")
    sys.exit(1 if bad else 0)


def _accept(target: Path) -> None:
    """Write down that a sweep goes on whatever its checks said."""
    import time

    from orchestrator.sweep.directory import SweepDirectory
    from orchestrator.sweep.facts import read_plan
    from orchestrator.sweep.files import write_json

    directory = SweepDirectory(target.resolve())
    if read_plan(directory).checks is None:
        raise UserError("has no checks before its first stage", file=target)
    write_json(directory.accepted, {"time": time.time()})
    click.echo(f"its checks no longer stop it. Go on: orchestrate run {short(directory.path)}")


def _entered(target: Path, overrides: tuple[str, ...]) -> tuple[SweepConfig, Phase]:
    """Return a sweep's config and first stage, with its code where Python finds it; writes nothing."""
    if target.is_dir():
        from orchestrator.config import load_frozen
        from orchestrator.sweep.directory import SweepDirectory
        from orchestrator.sweep.facts import read_plan
        from orchestrator.worker.job import enter

        if overrides:
            raise UserError("the plan in a sweep's directory is frozen and takes no overrides", file=target)
        directory = SweepDirectory(target.resolve())
        plan: Plan = read_plan(directory)
        config = load_frozen(directory.config)
        enter(directory, plan)
        return config, plan.stages[0]
    if not target.exists() and target.suffix not in (".yaml", ".yml"):
        raise UserError("there is no such sweep file or directory", file=target)
    from orchestrator.control.create import work_out
    from orchestrator.worker.catalogues import pass_over_catalogues

    planned = work_out(target, checked(overrides))
    folder = target.resolve().parent
    # Modules and relative paths in a sweep file start at its folder, as they do in its tasks.
    sys.path.insert(0, str(folder))
    pass_over_catalogues()
    os.chdir(folder)
    return planned.config, planned.plan.stages[0]


def _looked(
    config: SweepConfig, phase: Phase, with_rates: bool, progress: Callable[[str], None]
) -> tuple[list[CheckResult], RangeTest | None]:
    """Run what can be run of a job, and the range test where it is wished for."""
    from orchestrator.sweep.directory import TrialSpec
    from orchestrator.worker.checking import check_job, tested_rates
    from orchestrator.worker.job import trial_config

    if with_rates and config.jobs.setup is None:
        raise UserError(
            "the range test needs the job's model and data",
            key="jobs.setup",
            hint="Name a function: jobs.setup=my_train.setup",
        )
    spec = TrialSpec(trial_id="check", setting_id="", params={}, seed=config.seed)
    own = trial_config(config, phase, spec)
    results = check_job(config, own, phase.name, train_too=True, progress=progress)
    if not with_rates:
        return results, None
    progress("range test")
    return results, tested_rates(config, phase, spec)


@contextlib.contextmanager
def _its_output_aside() -> Iterator[None]:
    """Let all that a job prints, its programs and libraries too, go to stderr: stdout is for the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _tell(start: str, text: str) -> None:
    if start:
        click.echo(f"{start}{text}", nl=False, err=True)


def _show(results: list[CheckResult]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("", "check", "", "seen", box=None, pad_edge=False)
    for result in results:
        seen = Text(result.saw)
        if result.passed is False:
            seen.append(f"\nlikely cause: {result.cause}")
            seen.append(f"\n→ {result.next}", style="bold")
        word, colour = _WORDS[result.passed]
        table.add_row(Text(result.id), Text(result.name), Text(word, style=colour), seen)
    console().print(table)


def _of_rates(rates: RangeTest) -> str:
    if rates.low is None or rates.high is None or rates.best is None:
        return f"range test: at no rate from {rates.rates[0]:.3g} to {rates.rates[-1]:.3g} does the loss fall"
    ends = "explodes" if rates.exploded else "no longer falls"
    return (
        f"range test: the loss begins to fall at a learning rate of {rates.low:.2g} and {ends} beyond "
        f"{rates.high:.2g}; try {rates.best:.2g} first"
    )
