"""Beginning and ending: the sweep frozen in the multirun's folder, and the best of it written down."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra.core.utils import JobReturn
from omegaconf import OmegaConf

from orchestrator.config import freeze, load_frozen
from orchestrator.errors import Busy, UserError
from orchestrator.multirun.declare import WHERE, Declared
from orchestrator.multirun.drive import Conduct, Drive, Launch
from orchestrator.multirun.job import Recorded
from orchestrator.planning.plan import plan_to_json
from orchestrator.results.load import load_results
from orchestrator.sweep import lease
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_phase, read_plan
from orchestrator.sweep.files import write_atomic, write_json
from orchestrator.sweep.provenance import record_provenance

log = logging.getLogger(__name__)
NAME = "coarse_to_fine"  # in the file of the best


def conduct(
    folder: Path, declared: Declared, how: Conduct, recorded: Recorded, launch: Launch, best: str
) -> list[Sequence[JobReturn]]:
    """Run a sweep, or go on with the one that the folder holds.

    Args:
        folder: of the multirun.
        declared: the sweep.
        how: its jobs are launched.
        recorded: the application's function, which the launcher has.
        launch: see `Drive`.
        best: the name of the file with the best parameters.

    Raises:
        UserError: the folder holds another sweep or can't be written to, another process is at it, or too
            many jobs fail.
    """
    _check(how)
    directory = SweepDirectory(folder.resolve())
    with _readable(directory.path), lease.hold(directory.lease, "a Hydra application"):
        declared = _freeze(directory, declared)
        returns = Drive(directory, declared, how, recorded, launch).run()
        _write_best(directory, declared, best)
    return returns


def _check(how: Conduct) -> None:
    """Check what is said of the jobs."""
    for key, value in (("max_batch_size", how.batch), ("attempts", how.attempts)):
        if value is not None and value < 1:
            raise UserError(f"{value} is too few; the least is 1", file=WHERE, key=key)
    if not 0 <= how.failures <= 1:
        raise UserError(f"{how.failures:g} is not a share of the jobs", file=WHERE, key="max_failure_rate")


@contextlib.contextmanager
def _readable(path: Path) -> Any:
    """Say of the folder what is wrong with it."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except Busy as busy:
        raise UserError(
            f"another process is at work here: {busy}", file=path, hint="Wait for it, or give another "
            "hydra.sweep.dir",
        ) from None  # fmt: skip
    except OSError as error:
        if error.filename is None and error.filename2 is None:
            raise
        raise UserError(f"can't be written to ({error.strerror or error})", file=path) from error


def _freeze(directory: SweepDirectory, declared: Declared) -> Declared:
    """Write the sweep down, or take up the one that is there."""
    if not directory.plan.exists():
        record_provenance(Path.cwd(), directory)
        write_atomic(directory.config, freeze(declared.config))
        write_json(directory.plan, plan_to_json(declared.plan))
        for warning in declared.plan.warnings:
            log.warning(warning)
        return declared
    before, now = (
        OmegaConf.to_container(OmegaConf.create(freeze(one)))
        for one in (load_frozen(directory.config), declared.config)
    )
    if before != now:
        differing = ", ".join(sorted(_differing(before, now, "")))
        raise UserError(
            f"holds another sweep: {differing} differ", file=directory.path,
            hint="Give another hydra.sweep.dir, or the same words as then",
        )  # fmt: skip
    return Declared(
        config=declared.config, plan=read_plan(directory), words=declared.words, places=declared.places
    )


def _differing(one: Any, other: Any, path: str) -> list[str]:
    """List the keys at which two configs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return [
            key
            for name in {*one, *other}
            for key in _differing(one.get(name), other.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if one == other else [path]


def _write_best(directory: SweepDirectory, declared: Declared, name: str) -> None:
    """Write the best trial of the last stage with a result, as Hydra's Optuna sweeper does."""
    found: dict[str, Any] = {"name": NAME, "best_params": {}, "best_value": None}
    results = load_results(directory.path)
    trials = results.trials[np.isfinite(results.trials["objective"])]
    if len(trials):
        # Objectives of different stages are not compared.
        stage = str(trials["stage"].max())
        ranked = trials[trials["stage"] == stage].sort_values("objective", kind="stable")
        row = ranked.iloc[0 if results.mode == "min" else -1]
        known = read_phase(directory, next(one for one in declared.plan.stages if one.name == stage))
        trial = next(one for one in known.trials if one.trial_id == row["trial_id"])
        words = {word.name: word for word in declared.words if word.searched}
        found["best_params"] = {
            words[name].key: words[name].value(held) for name, held in trial.params.items()
        }
        found["best_value"] = float(row["objective"])
        found |= {"stage": stage, "trial": trial.trial_id, "job": known.outcomes[trial.trial_id].submission}
        log.info(f"Best {results.metric} ({stage}): {found['best_value']:g}, {found['best_params']}")
    else:
        log.warning("No job returned a finite number")
    write_atomic(directory.path / name, OmegaConf.to_yaml(OmegaConf.create(found)))
