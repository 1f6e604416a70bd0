"""TaskSet (arXiv 2002.11887): 1,000 settings of an optimizer on text classifiers, 51 losses of each run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from task import Result, Setting, Task

from orchestrator.space import Parameter, parse_space

# The ranges that the settings were drawn from; beta1 and beta2 by their distance from 1.
SPACE = {
    "learning_rate": "tag(log, interval(1e-8, 10.0))",
    "one_minus_beta1": "tag(log, interval(1e-4, 1.0))",
    "one_minus_beta2": "tag(log, interval(1e-6, 1.0))",
    "epsilon": "tag(log, interval(1e-10, 1e3))",
    "l1": "tag(log, interval(1e-8, 10.0))",
    "l2": "tag(log, interval(1e-8, 10.0))",
    "linear_decay": "tag(log, interval(1e-7, 1e-4))",
    "exponential_decay": "tag(log, interval(1e-6, 1e-3))",
}
# The first of the 51 losses is that of the untrained network, so there are 50 steps to pay for.
STEPS = 50
# A loss this many times the untrained network's, or NaN, is a training that diverged. It counts as this
# much for every method alike, since several of them can't work with infinity or 10 to the 18th.
CEILING = 2.0


def load(folder: Path, name: str, half: str) -> Task:
    """Return one TaskSet task: an Adam's 8 parameters; fidelity: steps of 50; losses on the three splits.

    The known setting nearest to a proposed one, in the unit cube of the space, stands for it.
    """
    space = parse_space(SPACE, {}, "taskset")
    known, cube, losses = _read(folder / f"FixedTextRNNClassification_{name}.json", space)

    def nearest(setting: Setting) -> int:
        point = np.array([parameter.to_unit(setting[parameter.name]) for parameter in space])
        return int(((cube - point) ** 2).sum(axis=1).argmin())

    def score(settings: Sequence[Setting], fidelities: Sequence[float], seed: int) -> list[Result]:
        rows = [nearest(setting) for setting in settings]
        steps = [round(fidelity * STEPS) for fidelity in fidelities]
        found = losses[rows, :, steps]
        return [Result(float(validation), float(test)) for validation, test in found]

    return Task(
        name=f"taskset/{name}", family="taskset", half=half, resumable=True, score=score, space=space,
        lowest=1 / STEPS, levels=tuple(step / STEPS for step in range(1, STEPS + 1)), pool=known,
    )  # fmt: skip


@lru_cache(maxsize=8)
def _read(
    file: Path, space: tuple[Parameter, ...]
) -> tuple[tuple[dict[str, Any], ...], np.ndarray, np.ndarray]:
    """Return the known settings, their unit-cube places, and losses (setting, validation/test, step)."""
    entries = json.loads(file.read_text())
    known = tuple(_setting(entry["hp"]) for entry in entries)
    cube = np.array([[parameter.to_unit(row[parameter.name]) for parameter in space] for row in known])
    losses = np.array([[entry["valid"]["loss"], entry["test"]["loss"]] for entry in entries], dtype=float)
    ceiling = CEILING * np.nanmedian(losses[:, 0, 0])
    return known, cube, np.where(losses <= ceiling, losses, ceiling)


def _setting(hp: dict[str, float]) -> dict[str, float]:
    setting = dict(hp)
    for beta in ("beta1", "beta2"):
        setting[f"one_minus_{beta}"] = 1 - setting.pop(beta)
    return setting
