"""14x14 handwritten digits, 50 of each class, with and without random changes, in short and in long trials.

Short is 60 updates of 64 samples with Adam, as in a first stage; long is 1,500. Tested on 200 of each class.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from compare import against
from images import divided, handwritten, tensors
from loop import accuracy, train
from report import Verdict

from orchestrator.training.settings import AugmentationSettings, ModelSettings

ROWS = ("B9",)
CLAIM = "Augmentation helps long trials, and is better left out of short ones"
CLASSES, TRAINED, TESTED = 10, 50, 200
SHORT, LONG = 60, 1500
MODEL = ModelSettings(name="cnn", width=8, depth=2)
CHANGES = {
    "plain": AugmentationSettings(),
    "shifted and turned": AugmentationSettings(shift=1, rotate=10.0),
    "mixup": AugmentationSettings(mixup=0.2),
}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    inputs, labels = handwritten(data)
    train_ids, test_ids = divided(labels, np.full(CLASSES, TRAINED), TESTED, seed)
    x, y = tensors(inputs, labels, train_ids)
    tested, wanted = tensors(inputs, labels, test_ids)
    rows = []
    for name, change in CHANGES.items():
        short, long = train(
            x, y, tested, classes=CLASSES, updates=[SHORT, LONG], seed=seed, model=MODEL, augmentation=change
        )
        rows.append({"variant": f"short, {name}", "accuracy": accuracy(short, wanted)})
        rows.append({"variant": f"long, {name}", "accuracy": accuracy(long, wanted)})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    gains = {
        (length, name): against(rows, "accuracy", f"{length}, {name}", f"{length}, plain")
        for length in ("short", "long")
        for name in CHANGES
        if name != "plain"
    }
    moved = gains["short", "shifted and turned"], gains["long", "shifted and turned"]
    holds: bool | None = moved[0].sure < 0 < moved[1].sure
    if not holds and moved[0].sure <= 0 <= moved[1].sure:
        holds = None
    parts = [f"{length}, {name} {gain}" for (length, name), gain in gains.items()]
    return Verdict(
        holds=holds, sentence="test accuracy against plain: " + "; ".join(parts), metric="accuracy"
    )
