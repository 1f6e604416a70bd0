"""Results of any size as `load_results` gives them, without a sweep's directory."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from orchestrator import Results

METRIC = "val/accuracy"


def make_results(
    path: Path, trials: Sequence[int], *, parameters: int = 4, steps: int = 3, mode: str = "max"
) -> Results:
    """Make up results: a log range, a choice, a conditional parameter, and linear ones.

    Args:
        path: where nothing needs to be.
        trials: of each stage.
        parameters: how many, at least three.
        steps: of each trial.
        mode: "max" or "min".
    """
    rng, count = np.random.default_rng(0), sum(trials)
    names = [f"stage{number}" for number in range(len(trials))]
    stage = pd.Categorical(np.repeat(names, trials), names, ordered=True)
    lr = 10 ** rng.uniform(-4, 0, count)
    optimizer = rng.choice(["sgd", "adam", "<b>&"], count)
    columns: dict[str, Any] = {
        "param.lr": lr,
        "param.optimizer": optimizer,
        "param.optimizer.momentum": np.where(optimizer == "sgd", rng.uniform(0, 1, count), np.nan),
        **{f"param.p{number:02d}": rng.uniform(0, 1, count) for number in range(3, parameters)},
    }
    # Half of a stage is the best of the one before: here, its first trials.
    origin, parent, names_of = ["sampled"] * count, [""] * count, [f"trial-{n:05d}" for n in range(count)]
    setting, start = [f"{n:05d}" for n in range(count)], 0
    for before, after in itertools.pairwise(trials):
        for number in range(min(before, after // 2)):
            child, chosen = start + before + number, start + number
            origin[child], parent[child] = "control" if number == 1 else "survivor", names_of[chosen]
            setting[child] = setting[chosen]
        start += before
    good = 0.9 - 0.1 * (np.log10(lr) + 2) ** 2 + rng.normal(0, 0.01, count)
    table = pd.DataFrame(
        {
            "stage": stage,
            "trial_id": names_of,
            "setting_id": setting,
            "origin": origin,
            "parent": parent,
            "state": "completed",
            "objective": good if mode == "max" else 1 - good,
            **columns,
            "seconds": 2.0 * steps,
            "gpu_seconds": 0.0,
            "error": "",
        }
    )
    curves = pd.DataFrame(
        {
            "stage": stage.repeat(steps),
            "trial_id": np.repeat(table["trial_id"].to_numpy(dtype=object), steps),
            "step": np.tile(np.arange(1, steps + 1), count),
            "metric": METRIC,
            "value": np.repeat(table["objective"].to_numpy(), steps),
            "time": np.arange(count * steps, dtype=float),
        }
    )
    phases = [_phase(name, trials[place], steps, 100 * 3**place) for place, name in enumerate(names)]
    return Results(
        path=path,
        name="made",
        metric=METRIC,
        mode=mode,
        stages=names,
        trials=table,
        curves=curves,
        spaces=dict.fromkeys(names, _space(parameters)),
        plan={"phases": phases},
        ensemble=None,
    )


def _space(parameters: int) -> dict[str, dict[str, Any]]:
    linear = {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "reason": "as declared"}
    return {
        "lr": {**linear, "low": 1e-4, "high": 1.0, "log": True},
        "optimizer": {"kind": "choice", "values": ["sgd", "adam", "<b>&"], "reason": "as declared"},
        "optimizer.momentum": {**linear, "when": "optimizer == 'sgd'"},
        **{f"p{number:02d}": linear for number in range(3, parameters)},
    }


def _phase(name: str, trials: int, steps: int, samples: int) -> dict[str, Any]:
    cost = {"trained_samples": float(trials * samples * steps), "seconds": None, "hours": None}
    scale = {"data": 0.1, "classes": None, "epochs": steps}
    return {"kind": "stage", "name": name, "trials": trials, "samples": samples, "scale": scale, "cost": cost}
