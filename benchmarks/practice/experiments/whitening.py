"""Photographs (CIFAR-10 at 16x16), whitened or with their contrast normalized, before two networks.

2,000 of them to train on and 2,000 to test on; 400 updates of 64 samples with Adam.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from compare import against
from images import divided, photographs
from loop import accuracy, train, transformed
from report import Verdict

from orchestrator.training.settings import ModelSettings

ROWS = ("B7",)
CLAIM = "Principal components, whitening, and global and local contrast normalization help with images"
CLASSES, TRAINED, TESTED = 10, 200, 200
MLP, CNN = ModelSettings(name="mlp", width=128, depth=1), ModelSettings(name="cnn", width=8, depth=2)
UPDATES = 400
IMAGES: dict[str, str | list[str]] = {
    "standardize": "standardize",
    "zca": "zca_whiten",
    "global contrast": "global_contrast",
    "global contrast, zca": ["global_contrast", "zca_whiten"],
    "local contrast": "local_contrast",
}
VECTORS: dict[str, str | list[str]] = {**IMAGES, "pca": "pca", "pca whitened": "pca_whiten"}
WAYS = {"mlp": (MLP, VECTORS), "cnn": (CNN, IMAGES)}


def run(seed: int, data: Path | None) -> list[dict[str, Any]]:
    inputs, labels = photographs(data)
    each = min(TRAINED, int(np.bincount(labels).min() // 2))
    train_ids, test_ids = divided(labels, np.full(CLASSES, each), TESTED, seed)
    wanted, tested_labels = torch.from_numpy(labels[train_ids]), torch.from_numpy(labels[test_ids])
    rows = []
    for model_name, (model, transforms) in WAYS.items():
        for name, transform in transforms.items():
            x, tested = transformed(transform, inputs[train_ids], inputs[test_ids])
            (outputs,) = train(x, wanted, tested, classes=CLASSES, updates=[UPDATES], seed=seed, model=model)
            rows.append({"variant": f"{model_name}, {name}", "accuracy": accuracy(outputs, tested_labels)})
    return rows


def verdict(rows: list[dict[str, Any]]) -> Verdict:
    gains = {
        f"{model}, {name}": against(rows, "accuracy", f"{model}, {name}", f"{model}, standardize")
        for model, (_, transforms) in WAYS.items()
        for name in transforms
        if name != "standardize"
    }
    holds: bool | None = all(gain.sure > 0 for gain in gains.values())
    if not holds and not any(gain.sure < 0 for gain in gains.values()):
        holds = None
    parts = [f"{name} {gain}" for name, gain in gains.items()]
    return Verdict(
        holds=holds, sentence="test accuracy against standardize: " + "; ".join(parts), metric="accuracy"
    )
