"""Small tables for the experiments, divided by seed."""

from __future__ import annotations

from collections.abc import Sequence

import sklearn.datasets
import torch
from loop import train, transformed
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from orchestrator.training.settings import ModelSettings

LRS = (1e-3, 1e-2)
UPDATES = 150


def measured(
    table: str,
    transform: str | Sequence[str],
    model: ModelSettings,
    seed: int,
    *,
    replaced: tuple[type[nn.Module], type[nn.Module]] | None = None,
) -> tuple[float, float]:
    """Train with the better of two learning rates; return accuracy and loss (nats) on the test part.

    Half of the table is for training, a quarter to choose the rate by, a quarter for testing.
    """
    bunch = getattr(sklearn.datasets, f"load_{table}")()
    x, rest, y, rest_y = train_test_split(
        bunch.data.astype("float32"), bunch.target, train_size=0.5, stratify=bunch.target, random_state=seed
    )
    held, tested, held_y, tested_y = train_test_split(
        rest, rest_y, test_size=0.5, stratify=rest_y, random_state=seed
    )
    inputs, *others = transformed(transform, x, held, tested)
    labels, held_labels, tested_labels = (torch.from_numpy(each) for each in (y, held_y, tested_y))
    best: tuple[float, Tensor] | None = None
    for lr in LRS:
        (outputs,) = train(
            inputs,
            labels,
            torch.cat(others),
            classes=len(bunch.target_names),
            updates=[UPDATES],
            seed=seed,
            model=model,
            lr=lr,
            batch_size=32,
            replaced=replaced,
        )
        loss = float(cross_entropy(outputs[: len(held)], held_labels))
        if best is None or loss < best[0]:
            best = loss, outputs[len(held) :]
    assert best is not None
    right = (best[1].argmax(1) == tested_labels).double().mean()
    return float(right), float(cross_entropy(best[1], tested_labels))
