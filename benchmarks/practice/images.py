"""Images for the experiments: MNIST or CIFAR-10 where they are given, generated characters or digits else."""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Inputs = NDArray[np.float32]
Labels = NDArray[np.int64]


@functools.cache
def handwritten(data: Path | None) -> tuple[Inputs, Labels]:
    """Return digits at half their size (n, 1, 14, 14), 0 to 1: MNIST's, or ones of many fonts."""
    if data is None:
        from orchestrator.data.glyphs import draw, glyph_labels

        labels = glyph_labels(samples=20_000, num_classes=10)
        return _halved(draw(np.arange(len(labels)), labels, 0)), labels
    with np.load(data / "mnist.npz") as archive:
        images = np.concatenate([archive["x_train"], archive["x_test"]])
        labels = np.concatenate([archive["y_train"], archive["y_test"]])
    return _halved(images[:, None].astype(np.float32) / 255), labels.astype(np.int64)


@functools.cache
def photographs(data: Path | None, count: int = 10_000) -> tuple[Inputs, Labels]:
    """Return pictures of ten classes, 0 to 1: CIFAR-10 at half its size (n, 3, 16, 16), or small digits."""
    if data is None:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        return (bunch.images[:, None] / 16).astype(np.float32), bunch.target.astype(np.int64)
    import pyarrow.parquet as pq
    from PIL import Image

    table = pq.read_table(data / "cifar10-train.parquet", columns=["image", "label"]).slice(0, count)
    pixels = [np.asarray(Image.open(io.BytesIO(each.as_py())).resize((16, 16))) for each in table["image"]]
    images = np.stack(pixels).astype(np.float32).transpose(0, 3, 1, 2) / 255
    return np.ascontiguousarray(images), table["label"].to_numpy().astype(np.int64)


def divided(labels: Labels, counts: NDArray[np.int64], tested: int, seed: int) -> tuple[Labels, Labels]:
    """Choose samples: `counts` (classes,) of each class to train on, `tested` others of each to test on."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    train, test = [], []
    for number, count in enumerate(counts):
        members = order[labels[order] == number]
        train.append(members[:count])
        test.append(members[count : count + tested])
    return np.concatenate(train), np.concatenate(test)


def _halved(images: Inputs) -> Inputs:
    samples, channels, height, width = images.shape
    return images.reshape(samples, channels, height // 2, 2, width // 2, 2).mean(axis=(3, 5))


def tensors(inputs: Inputs, labels: Labels, chosen: Labels) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(inputs[chosen]), torch.from_numpy(labels[chosen])
