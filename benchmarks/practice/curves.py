"""What the experiments on rates and initial values share: 2000 digits to learn from, and how a run ends.

MNIST's digits where they are given, generated ones else: 2000 for training, 2500 for validation, others from
seed to seed. The network is an mlp, trained by the built-in job with its defaults but for what is named.

- accuracy: on the validation part after the last epoch, not at the best one, which is what a schedule is for.
- val_loss: likewise, in nats.
- train_loss: during the last epoch.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from images import handwritten
from job import curve, dataset

SAMPLES = 5000
SPLIT = {"validation": 0.5, "test": 0.1}


@contextmanager
def digits(seed: int, data: Path | None) -> Iterator[dict[str, Any]]:
    """Write this seed's samples to a file and give the dataset that reads them."""
    inputs, labels = handwritten(data)
    chosen = np.random.default_rng(seed).permutation(len(labels))[:SAMPLES]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.npz"
        np.savez(path, x=inputs[chosen], y=labels[chosen])
        yield dataset("npz", path=str(path), split={**SPLIT, "seed": seed}, transform="standardize")


def last(data: dict[str, Any], seed: int, **changes: Any) -> dict[str, float]:
    """Train once; a run that diverged has the accuracy of guessing and a large loss."""
    end = curve(data, seed=seed, **changes)[-1]
    if not math.isfinite(end["train/loss"] + end["val/loss"]):
        return {"accuracy": 0.1, "val_loss": 10.0, "train_loss": 10.0}
    return {
        "accuracy": end["val/accuracy"],
        "val_loss": min(10.0, end["val/loss"]),
        "train_loss": min(10.0, end["train/loss"]),
    }
