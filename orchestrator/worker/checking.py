"""The checks before the first stage: what a task of theirs runs, and what it writes down."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from orchestrator.checks.range_test import RangeTest, range_test
from orchestrator.checks.run import CheckResult, run_checks
from orchestrator.checks.setup import Setup, as_setup
from orchestrator.checks.twice import only_training, train_once
from orchestrator.errors import CheckFailed, UserError
from orchestrator.planning.plan import Phase
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import CHECKS, RANGE_TEST, SweepDirectory, TrialSpec
from orchestrator.sweep.files import write_json
from orchestrator.worker.job import load_function, train_function, trial_config


def look(directory: SweepDirectory, config: SweepConfig, phase: Phase, spec: TrialSpec) -> dict[str, float]:
    """Run the sanity checks, or the range test, of a sweep, and write down what they saw.

    Returns:
        How many checks there were, under "checks".

    Raises:
        CheckFailed: the set-up is not fit to be swept.
    """
    try:
        return _looked(directory, config, phase, spec)
    except UserError as error:
        # It says what is wrong, and where; a traceback would bury it.
        raise CheckFailed(str(error)) from error


def _looked(
    directory: SweepDirectory, config: SweepConfig, phase: Phase, spec: TrialSpec
) -> dict[str, float]:
    if spec.trial_id == RANGE_TEST:
        found = tested_rates(config, phase, spec)
        write_json(directory.range_test, {"parameter": config.checks.range_test, **found.to_json()})
        return {CHECKS: 1.0}
    return _check(directory, config, trial_config(config, phase, spec), phase.name)


def _check(directory: SweepDirectory, config: SweepConfig, own: DictConfig, stage: str) -> dict[str, float]:
    results = check_job(config, own, stage, snapshot=directory.snapshot)
    write_json(
        directory.checks_result, {"time": time.time(), "checks": [result.to_json() for result in results]}
    )
    failed = [result for result in results if result.passed is False]
    if failed:
        raise CheckFailed("\n".join(told(result) for result in failed))
    return {CHECKS: float(len(results))}


def check_job(
    config: SweepConfig,
    own: DictConfig,
    stage: str,
    *,
    train_too: bool = False,
    snapshot: Path = Path(),
    progress: Callable[[str], None] = lambda name: None,
) -> list[CheckResult]:
    """Run all the checks that a job allows: without a `setup` only what training shows.

    Args:
        config: the sweep's; `config.checks` says what to leave out.
        own: the config of a trial.
        stage: whose scale it has.
        train_too: train twice at that scale although the set-up alone tells much; on a GPU two sound runs may
            differ in their last digits.
        snapshot: where the scripts of a command are.
        progress: is told what is being done.

    Raises:
        UserError: one of the job's functions can't be imported.
    """
    train = train_function(config, snapshot)

    def once() -> Mapping[str, float]:
        return train_once(train, own.copy(), stage, config.seed, config.metric.name)

    if config.jobs.setup is None:
        return [] if "D5" in config.checks.skip else [only_training(once, progress)]
    results = run_checks(
        maker(config, own),
        skip=config.checks.skip,
        human_accuracy=config.checks.human_accuracy,
        train_twice=once if train_too else None,
        progress=progress,
    )
    return list(results)


def tested_rates(config: SweepConfig, phase: Phase, spec: TrialSpec) -> RangeTest:
    """Run a range test at a phase's scale, but with all of its data.

    Few samples are known by heart before the rate is large, and then no loss rises any more.

    Raises:
        UserError: the job's `setup` can't be imported.
    """
    whole = replace(phase, scale=replace(phase.scale, data=1.0))
    return range_test(maker(config, trial_config(config, whole, spec)))


def maker(config: SweepConfig, own: DictConfig) -> Callable[[], Setup]:
    """Return what builds the set-up of a job's own config anew, the same each time.

    Raises:
        UserError: the job's `setup` can't be imported.
    """
    assert config.jobs.setup is not None, "a sweep without `setup` has no such checks"
    function = load_function(config.jobs.setup, "jobs.setup")
    return lambda: as_setup(function(own.copy()))


def told(result: CheckResult) -> str:
    """Return a failed check in words: what was seen, the likely cause, and what to do."""
    parts = [
        f"{result.id} {result.name}: {result.saw}",
        f"likely cause: {result.cause}",
        f"next: {result.next}",
    ]
    return ". ".join(part.rstrip(".") for part in parts) + "."
