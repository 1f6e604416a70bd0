"""What the ensembles are measured on: real data where they are small enough, and generated ones.

Each is a sweep: which data, which networks, how long. The sizes are chosen so that a sweep with its twelve
or so final runs takes a minute or two of one core.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One sweep of the benchmark.

    Attributes:
        says: what the data are, for the page.
        dataset: of datasets/*.yaml, with the keys that differ.
        config: of the job, where it differs from jobs/classify.yaml.
        networks: what `model.name` may be.
        widths: of the networks.
        student: widths of the students.
        epochs: of a trial of the stage, and of a final run.
        prepare: writes the data below a folder, given the folder of --data, and returns its path; None: the
            dataset brings its own.
    """

    says: str
    dataset: dict[str, Any]
    networks: tuple[str, ...]
    widths: tuple[int, ...]
    student: tuple[int, ...]
    epochs: tuple[int, int]
    config: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path, Path | None], Path] | None = None


def made_table(folder: Path, data: Path | None) -> Path:
    """Write 4,000 rows of 40 columns in 8 classes, 3% of them with a wrong class."""
    from sklearn.datasets import make_classification

    inputs, classes = make_classification(
        n_samples=4000, n_features=40, n_informative=14, n_redundant=6, n_classes=8, n_clusters_per_class=2,
        class_sep=1.2, flip_y=0.03, random_state=0,
    )  # fmt: skip
    return _saved(folder / "table.npz", inputs, classes)


def photographs(folder: Path, data: Path | None) -> Path:
    """Write 4,000 pictures of CIFAR-10 at half their size (3, 16, 16), in the order of the file."""
    import pyarrow.parquet as pq
    from PIL import Image

    if data is None:
        raise FileNotFoundError("CIFAR-10 needs --data: a folder with cifar10-train.parquet")
    table = pq.read_table(data / "cifar10-train.parquet", columns=["image", "label"]).slice(0, 4000)
    pixels = [np.asarray(Image.open(io.BytesIO(each.as_py())).resize((16, 16))) for each in table["image"]]
    images = np.stack(pixels).transpose(0, 3, 1, 2) / 255
    return _saved(folder / "photographs.npz", images, table["label"].to_numpy())


def _saved(path: Path, inputs: np.ndarray[Any, Any], classes: np.ndarray[Any, Any]) -> Path:
    np.savez(path, x=np.ascontiguousarray(inputs, dtype=np.float32), y=classes.astype(np.int64))
    return path.resolve()


CONVOLUTIONS = {"model": {"batch_norm": True}}
TASKS: dict[str, Task] = {
    "digits": Task(
        says="scikit-learn's digits: 1,797 images of 8x8 pixels, 10 classes; mlp and cnn",
        dataset={"digits": {}},
        networks=("mlp", "cnn"), widths=(8, 16), student=(4, 8), epochs=(3, 10), config=CONVOLUTIONS,
    ),
    "glyphs": Task(
        says="the generated characters: 2,400 images at 14x14 pixels, 24 classes; mlp and cnn",
        dataset={"glyphs": {"samples": 2400, "num_classes": 24, "resolution": 14}},
        networks=("mlp", "cnn"), widths=(8, 16), student=(4, 8), epochs=(2, 8), config=CONVOLUTIONS,
    ),
    "tumours": Task(
        says="scikit-learn's breast_cancer: 569 rows of 30 columns, 2 classes; mlp and highway",
        dataset={"breast_cancer": {}},
        networks=("mlp", "highway"), widths=(8, 16, 32), student=(4, 8), epochs=(5, 20),
    ),
    "table": Task(
        says="a made-up table (make_classification): 4,000 rows of 40 columns, 8 classes, 3% wrong; mlp and "
             "highway",
        dataset={"npz": {}},
        networks=("mlp", "highway"), widths=(16, 32, 64), student=(8, 32), epochs=(4, 12),
        prepare=made_table,
    ),
    "photographs": Task(
        says="CIFAR-10: 4,000 images at 16x16 pixels, 10 classes; cnn and residual",
        dataset={"npz": {}},
        networks=("cnn", "residual"), widths=(8, 16), student=(4, 8), epochs=(1, 6), config=CONVOLUTIONS,
        prepare=photographs,
    ),
}  # fmt: skip
