"""A finished sweep, made without running one: a plan, a few trained final runs and an ensemble of them."""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.control.create import freeze_plan, work_out
from orchestrator.ensemble.scores import scored
from orchestrator.export.manifest import NAME
from orchestrator.export.write import export
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, write_trials
from orchestrator.training import supervised
from orchestrator.worker.job import trial_config
from trained import FakeTrial

SWEEP = """
defaults: [sweep, {jobs: JOB}, {datasets: DATA}, {slurm: local}, _self_]
name: small
metric: {name: METRIC}
space: {optimizer.lr: "tag(log, interval(1e-3, 1e-1))"}
stages: {only: {trials: 2, data: 0.5, epochs: 1}}
final: {top: 1, seeds: 2, epochs: 2, checkpoints: 2}
jobs: {predict: orchestrator.training.supervised.predict, config: {model: {width: 8, depth: 1}}}
checks: {enabled: false}
"""


def finished_sweep(
    folder: Path,
    *,
    data: str = "digits",
    job: str = "classify",
    changes: Sequence[str] = (),
    own: str = SWEEP,
    seeds: Sequence[int] = (1, 2),
) -> Path:
    """Make a sweep's directory with trained final runs and an ensemble of two checkpoints; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    metric = "val/loss, mode: min" if job == "regress" else "val/accuracy, mode: max"
    file = folder / "sweep.yaml"
    file.write_text(own.replace("JOB", job).replace("DATA", data).replace("METRIC", metric))
    planned = work_out(file, [f"dir={folder / 'sweep'}", *changes])
    freeze_plan(planned)
    directory, final = planned.directory, planned.plan.final
    assert final is not None
    specs = [
        TrialSpec(
            trial_id=f"final-{seed:05d}", setting_id="s", params={"optimizer.lr": 0.02 * seed}, seed=seed
        )
        for seed in seeds
    ]
    where = directory.phase(final.kind, final.name)
    write_trials(where.trials, specs)
    for spec in specs:
        path = where.checkpoints(spec.trial_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        supervised.train(trial_config(planned.config, final, spec), FakeTrial(path))
    configs = {spec.trial_id: trial_config(planned.config, final, spec) for spec in specs}
    write_result(directory, configs, "mse" if job == "regress" else "accuracy")
    return directory.path


def write_result(directory: SweepDirectory, configs: dict[str, Any], score: str, **more: Any) -> None:
    """Write an ensemble.json: the first run's best checkpoint, and both runs with weights 3 and 1."""
    folder = directory.phase("final", "final")
    parts = {
        trial: {
            split: supervised.predict(config, folder.checkpoints(trial) / "best.pt", split)
            for split in ("validation", "test")
        }
        for trial, config in configs.items()
    }
    described = [
        {
            "trial_id": trial,
            "setting_id": "s",
            "seed": number,
            "step": 2,
            "checkpoint": str(folder.checkpoints(trial) / "best.pt"),
            "kind": "checkpoint",
            "parts": [str(folder.checkpoints(trial) / "epoch-0002.pt")],
        }
        for number, trial in enumerate(configs, start=1)
    ]
    weights = [0.75, 0.25][: len(described)]

    def figures(split: str) -> dict[str, float]:
        each = [parts[trial][split] for trial in configs]
        combined = np.tensordot(weights, np.asarray([one.probabilities for one in each], np.float64), 1)
        return {
            "best_single": scored(score, each[0].probabilities, each[0].labels),
            "ensemble": scored(score, combined.astype(np.float32), each[0].labels),
        }

    result = {
        "score": score,
        "mode": "min" if score == "mse" else "max",
        "combine": "greedy",
        "task": "regression" if score == "mse" else "classification",
        "candidates": len(described),
        "skipped": [],
        "members": [one | {"weight": weight} for one, weight in zip(described, weights, strict=True)],
        "best_single": described[0],
        "validation": figures("validation"),
        "test": figures("test"),
        **more,
    }
    directory.ensemble_result.parent.mkdir(parents=True, exist_ok=True)
    directory.ensemble_result.write_text(json.dumps(result))


# The fixtures of several modules: what is made once for all of them, and not to be changed.


def small_sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of a finished sweep over the digits."""
    return _small_sweep(tmp_path_factory.getbasetemp())


def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what is exported of it, far from the sweep."""
    return _small_model(tmp_path_factory.getbasetemp())


def model_copy(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """Return a copy of that, to be damaged."""
    return Path(shutil.copytree(small_model(tmp_path_factory), tmp_path / "copy"))


@functools.cache
def _small_sweep(base: Path) -> Path:
    return finished_sweep(base / "digits")


@functools.cache
def _small_model(base: Path) -> Path:
    folder = base / "exported" / "model"
    folder.parent.mkdir()
    export(_small_sweep(base), folder)
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Change the manifest of an exported folder; returns the folder."""
    manifest = json.loads((folder / NAME).read_text())
    change(manifest)
    (folder / NAME).write_text(json.dumps(manifest))
    return folder
