"""What rows B2 to B4 share: 14x14 digits of which the rarest is fifty times as rare as the most frequent one.

Training: 500 of the most frequent class, geometrically fewer from class to class, 10 of the rarest; which
classes are rare changes from seed to seed. Testing: 200 of each class. A small convolutional network takes
500 updates of 64 samples with Adam at 3e-3 (23 passes over all), whatever the order or the loss: no variant
trains longer than the others.

- rare_recall: mean recall of the three rarest classes.
- frequent_recall: of the three most frequent.
- balanced_accuracy: mean recall of all.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from compare import against
from images import divided, handwritten, tensors
from loop import recalls, train
from report import Verdict

from orchestrator.training.settings import LossSettings, ModelSettings

CLASSES, LARGEST, SMALLEST, TESTED = 10, 500, 10, 200
UPDATES, LR = 500, 3e-3
MODEL = ModelSettings(name="cnn", width=8, depth=2)


@functools.cache
def measured(
    seed: int,
    data: Path | None,
    variant: str,
    *,
    balance: str = "none",
    loss: LossSettings | None = None,
    cosine: bool = True,
) -> dict[str, Any]:
    """Train one variant and return its row; variants of one seed have the same samples."""
    inputs, labels = handwritten(data)
    by_size = np.random.default_rng(seed).permutation(CLASSES)  # the first is the most frequent class
    counts = np.empty(CLASSES, dtype=np.int64)
    counts[by_size] = np.geomspace(LARGEST, SMALLEST, CLASSES).round()
    train_ids, test_ids = divided(labels, counts, TESTED, seed)
    x, y = tensors(inputs, labels, train_ids)
    tested, wanted = tensors(inputs, labels, test_ids)
    outputs = train(
        x,
        y,
        tested,
        classes=CLASSES,
        updates=[UPDATES],
        seed=seed,
        model=MODEL,
        lr=LR,
        balance=balance,
        loss=loss,
        cosine=cosine,
    )
    each = recalls(outputs[0], wanted, CLASSES)[by_size.tolist()]
    return {
        "variant": variant,
        "rare_recall": float(each[-3:].mean()),
        "frequent_recall": float(each[:3].mean()),
        "balanced_accuracy": float(each.mean()),
    }


def judged(rows: list[dict[str, Any]], variants: list[str], claimed: list[str]) -> Verdict:
    """Say what each variant adds to the recall of rare classes; the claim is that all `claimed` add some."""
    gains = {name: against(rows, "rare_recall", name, "none") for name in variants}
    overall = {name: against(rows, "balanced_accuracy", name, "none") for name in variants}
    holds: bool | None = all(gains[name].sure > 0 for name in claimed)
    if not holds and all(gains[name].sure >= 0 for name in claimed):
        holds = None
    parts = [f"{name} {gains[name]} (balanced accuracy {overall[name]})" for name in variants]
    return Verdict(holds=holds, sentence="recall of the rare: " + "; ".join(parts), metric="rare_recall")
