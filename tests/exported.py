"""A finished sweep, made without running one: a plan, a few trained final runs and an ensemble of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.control.create import freeze_plan, work_out
from orchestrator.ensemble.scores import scored
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
