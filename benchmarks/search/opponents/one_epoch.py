"""The one-epoch baseline (arXiv 2307.15422): everything at the lowest fidelity, the best few in full."""

from __future__ import annotations

from contextlib import suppress

import numpy as np
from meter import ROUNDING, Meter, Spent
from task import Setting

from opponents.draw import place

# The paper trains its top 3 to completion; a small budget is not spent on those alone.
FULL = 3
SHARE = 0.5


def run(meter: Meter, seed: int) -> None:
    """Look at random settings at the lowest fidelity, and train the best of them at full scale.

    The budget is known beforehand: what the full-scale trainings will need is kept back.
    """
    task = meter.task
    generator = np.random.default_rng(seed)
    full = max(1, min(FULL, int(meter.budget * SHARE)))
    rest = 1.0 - task.lowest * task.resumable
    seen: list[tuple[float, int, Setting]] = []
    # Spent: a table with few settings has been looked at as a whole.
    with suppress(Spent):
        for _ in range(int((meter.left - full * rest) / task.lowest + ROUNDING)):
            setting = place(task.space, generator.random(len(task.space)))
            seen.append((meter.evaluate(setting, task.lowest), len(seen), setting))
    for _, _, setting in sorted(seen)[:full]:
        meter.evaluate(setting)
