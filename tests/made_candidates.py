"""Made-up predictions of candidates for an ensemble, and combining them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.ensemble.combine import METHODS, Combination, fit
from orchestrator.ensemble.library import Arrays

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]
QUICK = tuple(each for each in METHODS if each != "stacking")
SCORES = ("accuracy", "log_loss")
seeds = st.integers(0, 10**6)


def noisy(rng: np.random.Generator, labels: Labels, skill: float, classes: int = 4) -> Floats:
    """Return probabilities (n, classes) that lean towards the right class by `skill`."""
    logits = rng.normal(size=(len(labels), classes))
    logits[np.arange(len(labels)), labels] += skill
    odds = np.exp(logits)
    return np.asarray(odds / odds.sum(axis=1, keepdims=True), dtype=np.float32)


def made(seed: int, candidates: int, samples: int = 120, classes: int = 4) -> tuple[list[Floats], Labels]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    return [noisy(rng, labels, rng.uniform(0, 2), classes) for _ in range(candidates)], labels


def values(seed: int, candidates: int, samples: int = 200) -> tuple[list[Floats], Floats]:
    """Return predicted values (n, 1), with errors, a slope and an offset each, and the targets."""
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=samples).astype(np.float32)
    found = [
        (targets * rng.uniform(0.5, 1.5) + rng.normal(0, 0.5, samples) + rng.normal(0, 0.5))[:, None]
        for _ in range(candidates)
    ]
    return [each.astype(np.float32) for each in found], targets


def combined(
    method: str, arrays: Sequence[NDArray[np.float32]], targets: Labels | Floats, **changes: object
) -> Combination:
    options: dict[str, object] = {"score": "accuracy", "max_members": 8, "bags": 1, "seed": 0}
    return fit(method, Arrays(arrays), targets, **(options | changes))  # type: ignore[arg-type]
