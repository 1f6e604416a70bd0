"""Where samples come from: what a dataset's `_target_` may name; datasets/*.yaml has one file for each.

A function of the user's own works the same way: it returns a `Source`, or any map-style dataset of (input,
label) pairs, such as a torch Dataset.
"""

from __future__ import annotations

import numpy as np

from orchestrator.data.arrays import in_memory, npz
from orchestrator.data.folders import image_folder
from orchestrator.data.idx import idx
from orchestrator.data.labels import encode
from orchestrator.data.source import CLASSIFICATION, REGRESSION, TASKS, Source
from orchestrator.data.tables import parquet, parquet_labels, read_columns
from orchestrator.errors import UserError, nearest

__all__ = [
    "CLASSIFICATION",
    "REGRESSION",
    "TABULAR",
    "TASKS",
    "Source",
    "digits",
    "idx",
    "image_folder",
    "npz",
    "parquet",
    "parquet_labels",
    "read_columns",
    "tabular",
]

TABULAR = {
    "breast_cancer": CLASSIFICATION,
    "diabetes": REGRESSION,
    "iris": CLASSIFICATION,
    "wine": CLASSIFICATION,
}


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits: shape (1, 8, 8), values 0 to 1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    names = tuple(str(name) for name in bunch.target_names)
    return in_memory(bunch.images[:, None], bunch.target.astype(np.int64), names, divide=16)


def tabular(*, name: str) -> Source:
    """Return one of scikit-learn's bundled tables by name: shape (features,), values as they are.

    Raises:
        UserError: there is none of that name.
    """
    import sklearn.datasets

    if name not in TABULAR:
        raise UserError(f"there is no table '{name}'", key="datasets.name", hint=nearest(name, TABULAR))
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    columns = tuple(str(each) for each in bunch.feature_names)
    if TABULAR[name] == REGRESSION:
        return in_memory(bunch.data, *encode(bunch.target, REGRESSION, "target", name), columns=columns)
    names = tuple(str(each) for each in bunch.target_names)
    return in_memory(bunch.data, bunch.target.astype(np.int64), names, columns=columns)
