"""Random and quasi-random settings at full scale."""

from __future__ import annotations

import numpy as np
from meter import Meter
from scipy.stats import qmc
from task import Setting

from orchestrator.space import Parameter


def random(meter: Meter, seed: int) -> None:
    """Train settings drawn evenly over the transformed space at full scale until nothing is left."""
    generator = np.random.default_rng(seed)
    while True:
        meter.evaluate(place(meter.task.space, generator.random(len(meter.task.space))))


def sobol(meter: Meter, seed: int) -> None:
    """Train the points of a scrambled Sobol sequence at full scale until nothing is left."""
    engine = qmc.Sobol(len(meter.task.space), seed=seed)
    while True:
        meter.evaluate(place(meter.task.space, engine.random(1)[0]))


def place(space: tuple[Parameter, ...], units: np.ndarray) -> Setting:
    """Return the setting at a point of the unit cube."""
    return {
        parameter.name: parameter.from_unit(float(unit)) for parameter, unit in zip(space, units, strict=True)
    }
