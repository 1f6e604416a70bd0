"""The data behind the tables: small, so that one training takes under a second on one core.

Each function returns SAMPLES samples as a dataset of the orchestrator, inputs as float32.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.sources import Source, npz, parquet_labels, read_columns
from orchestrator.data.splits import subset

SAMPLES = 6240
CLASSES = 10

# The generated table: see `tabular`.
_LATENT, _CLUSTERS, _INFORMATIVE, _SKEWED, _NOISE = 6, 3, 20, 8, 10
_LABEL_NOISE = 0.04
_SEED = 20250


def mnist(folder: Path) -> Source:
    """Return a part of MNIST's training images, 28x28 averaged to 14x14: shape (1, 14, 14), 0 to 1."""
    whole = npz(path=str(folder / "mnist.npz"), inputs="x_train", labels="y_train")
    chosen = _part(whole.labels)
    return _source(_pooled(whole.load(chosen)[:, None] / 255, 2), whole.labels[chosen])


def cifar10(folder: Path) -> Source:
    """Return a part of CIFAR-10's training images, 32x32 averaged to 8x8: shape (3, 8, 8), 0 to 1."""
    from PIL import Image

    path = str(folder / "cifar10-train.parquet")
    _, labels = parquet_labels(path, "label")
    chosen = _part(labels)
    encoded = read_columns(path, ["image"]).column("image").take(chosen).to_pylist()
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(each)).convert("RGB")) for each in encoded])
    return _source(_pooled(pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255, 4), labels[chosen])


def tabular(folder: Path | None = None) -> Source:
    """Generate a table: 10 classes, 30 features, 10 of them noise; `folder` is not used.

    Each class is three clusters of their own shape in 6 dimensions. Of these a random network makes 20
    features with noise; 8 of them and 3 of the noise columns are skewed (exponentials, as prices and counts
    are), and columns differ in size by a factor of up to a hundred. 4% of the labels are drawn anew.
    """
    random = np.random.RandomState(_SEED)  # NumPy never changes the numbers of this one
    clusters = CLASSES * _CLUSTERS
    labels = np.arange(SAMPLES) % CLASSES
    cluster = labels + CLASSES * random.randint(_CLUSTERS, size=SAMPLES)
    centers = 1.5 * random.randn(clusters, _LATENT)
    shapes = 0.6 * random.randn(clusters, _LATENT, _LATENT) / np.sqrt(_LATENT)
    latent = centers[cluster] + np.einsum("ni,nij->nj", random.randn(SAMPLES, _LATENT), shapes[cluster])
    hidden = np.tanh(latent @ random.randn(_LATENT, 24) / np.sqrt(_LATENT) * 1.5 + random.randn(24))
    features = hidden @ random.randn(24, _INFORMATIVE) / np.sqrt(24)
    features = features / features.std(axis=0) + 0.3 * random.randn(SAMPLES, _INFORMATIVE)
    features[:, :_SKEWED] = np.exp(1.2 * features[:, :_SKEWED])
    noise = random.randn(SAMPLES, _NOISE)
    noise[:, :3] = np.exp(noise[:, :3])
    columns = np.concatenate([features, noise], axis=1)[:, random.permutation(_INFORMATIVE + _NOISE)]
    columns *= 10 ** random.uniform(-1, 1, columns.shape[1])
    redrawn = random.rand(SAMPLES) < _LABEL_NOISE
    labels = np.where(redrawn, random.randint(CLASSES, size=SAMPLES), labels)
    return _source(columns.astype(np.float32), labels)


def _part(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Choose SAMPLES of a dataset's samples, stratified."""
    return subset(labels, np.arange(len(labels)), SAMPLES, seed=0)


def _pooled(images: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Average squares of `side` pixels: (n, channels, height, width) to (n, channels, h/side, w/side)."""
    count, channels, height, width = images.shape
    squares = images.reshape(count, channels, height // side, side, width // side, side)
    return squares.mean(axis=(3, 5), dtype=np.float32)


def _source(inputs: NDArray[np.float32], labels: NDArray[np.int64]) -> Source:
    """Wrap arrays in memory."""
    return Source(
        labels=labels.astype(np.int64),
        class_names=tuple(str(number) for number in range(CLASSES)),
        shape=inputs.shape[1:],
        load=lambda indices: inputs[indices],
    )
