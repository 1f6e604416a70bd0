"""One file of predictions: a row group of Parquet for each member, and what the file says of itself.

Columns: member, sample_id (int64), probabilities (fixed_size_list<float32>[outputs]). The labels lie in a
file of their own, so that reading what is predicted for test samples does not read what is right for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.ensemble.members import CHECKPOINT, STUDENT, Candidate, Predictions
from orchestrator.errors import UserError
from orchestrator.sweep.files import replace_atomic

CLASSIFICATION, REGRESSION = "classification", "regression"

_KEY = b"orchestrator"
# How far the sum of a row may be from 1: that of 16-bit numbers is.
_TOLERANCE = 1e-2


class Unusable(Exception):
    """Predictions that can be no member's, and the message says why."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of predictions that is there, and whole as far as its end tells.

    Attributes:
        path: of the file.
        metadata: Parquet's own, so that the file is opened again without reading its end anew.
        said: what the writer said of it (see `Writer.close`).
        outputs: classes, or values that are predicted for a sample.
    """

    path: Path
    metadata: pq.FileMetaData
    said: Mapping[str, Any]
    outputs: int

    @property
    def samples(self) -> int:
        """How many each member predicts."""
        return int(self.metadata.row_group(0).num_rows)

    def ids(self) -> NDArray[np.int64]:
        """Return which samples they are, in the order of all its members."""
        found = self._read(0, "sample_id").to_numpy()
        return np.asarray(found, dtype=np.int64)

    def probabilities(self, place: int) -> NDArray[np.float32]:
        """Return what one member predicts: (samples, outputs)."""
        values = self._read(place, "probabilities").flatten().to_numpy(zero_copy_only=False)
        return np.asarray(values, dtype=np.float32).reshape(-1, self.outputs)

    def _read(self, place: int, column: str) -> Any:
        try:
            file = pq.ParquetFile(self.path, metadata=self.metadata)
            group = file.read_row_group(place, columns=[column], use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise damaged(self.path, error) from None
        return group.column(0).combine_chunks()


class Writer:
    """Writes one file, a member at a time, so that one member alone is in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: pq.ParquetWriter | None = None

    def add(self, name: str, predictions: Predictions) -> None:
        """Write what one member predicts; all of a file have the same samples in the same order."""
        schema = _schema(predictions.probabilities.shape[1])
        if self._writer is None:
            # Softmax outputs hardly compress, and reading them is what takes the time.
            self._writer = pq.ParquetWriter(self._path, schema, compression="none", use_dictionary=["member"])
        flat = pa.array(np.ascontiguousarray(predictions.probabilities).reshape(-1))
        columns = [
            pa.array([name] * len(predictions.ids), pa.string()),
            pa.array(predictions.ids, pa.int64()),
            pa.FixedSizeListArray.from_arrays(flat, type=schema.field("probabilities").type),
        ]
        table = pa.Table.from_arrays(columns, schema=schema)
        self._writer.write_table(table, row_group_size=len(predictions.ids))

    def close(self, said: Mapping[str, Any]) -> None:
        """End the file, with what it says of itself (JSON): its trial, split, task, members, skipped ones."""
        if self._writer is not None:
            self._writer.add_key_value_metadata({_KEY: json.dumps(dict(said)).encode()})
            self._writer.close()
            self._writer = None


def _schema(outputs: int) -> pa.Schema:
    element = pa.field("element", pa.float32(), nullable=False)
    return pa.schema(
        [
            pa.field("member", pa.string(), nullable=False),
            pa.field("sample_id", pa.int64(), nullable=False),
            pa.field("probabilities", pa.list_(element, outputs), nullable=False),
        ]
    )


def open_file(path: Path) -> StoredFile:
    """Open a file of predictions.

    Raises:
        UserError: it is missing, damaged, or not one of ours.
    """
    try:
        file = pq.ParquetFile(path)
        said = json.loads((file.metadata.metadata or {})[_KEY])
        outputs = file.schema_arrow.field("probabilities").type.list_size
        if file.metadata.num_row_groups != len(said["members"]) or not said["members"]:
            raise ValueError("a member's part is missing")
        return StoredFile(path, file.metadata, said, outputs)
    except FileNotFoundError:
        raise UserError("there are no such predictions", file=path, hint="Predict them anew") from None
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from None


def damaged(path: Path, error: Exception) -> UserError:
    """Return what to say of a file that can't be read."""
    why = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(
        f"these predictions can't be read ({why})",
        file=path,
        hint="Delete the file, and orchestrate retry predicts anew",
    )


def write_labels(path: Path, ids: NDArray[np.int64], labels: NDArray[Any]) -> None:
    """Write what is right for each sample: int64 classes, or float32 values."""
    kind = pa.int64() if np.issubdtype(labels.dtype, np.integer) else pa.float32()
    table = pa.table({"sample_id": pa.array(ids, pa.int64()), "label": pa.array(labels, kind)})
    replace_atomic(path, lambda temporary: pq.write_table(table, temporary))


def is_whole(path: Path) -> bool:
    """Say whether a file of labels is there, by its end: the labels themselves are not read."""
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return False
    return True


def read_labels(path: Path) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return the samples of a file of labels, and what is right for each.

    Raises:
        UserError: the file is missing or damaged.
    """
    try:
        table = pq.ParquetFile(path).read(use_threads=False)
        return table.column("sample_id").to_numpy(), table.column("label").to_numpy()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise damaged(path, error) from None


def as_usable(given: Predictions) -> Predictions:
    """Return predictions in the types that are stored: float32, int64 ids, int64 classes or float32 values.

    Raises:
        Unusable: they are not finite, do not fit the labels, or are no probabilities.
    """
    labels, ids = np.asarray(given.labels), np.asarray(given.ids, dtype=np.int64).reshape(-1)
    values = np.asarray(given.probabilities, dtype=np.float32)
    values = values[:, None] if values.ndim == 1 else values
    labels = labels.reshape(-1) if labels.size == len(labels) else labels
    if values.ndim != 2 or labels.ndim != 1 or not len(values) == len(labels) == len(ids):
        raise Unusable(f"probabilities {values.shape} do not fit {len(labels)} labels, {len(ids)} ids")
    if not len(values) or not values.shape[1]:
        raise Unusable("it predicts nothing")
    if not np.isfinite(values).all():
        raise Unusable("its probabilities are not finite")
    if not np.issubdtype(labels.dtype, np.integer):
        return Predictions(values, labels.astype(np.float32), ids)
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise Unusable(f"there is a label {labels.max()}, and {values.shape[1]} classes are told apart")
    if values.min() < -_TOLERANCE or np.abs(values.sum(axis=1) - 1).max() > _TOLERANCE:
        raise Unusable("its rows are no probabilities: they don't sum to 1")
    return Predictions(values, labels.astype(np.int64), ids)


def task_of(predictions: Predictions) -> str:
    """Say what is predicted: classification or regression."""
    return CLASSIFICATION if np.issubdtype(predictions.labels.dtype, np.integer) else REGRESSION


def member_name(candidate: Candidate) -> str:
    """Return what a file calls a member: step-0042, average, soup; a student's is best."""
    if candidate.kind == CHECKPOINT:
        return f"step-{candidate.step:04d}"
    return "best" if candidate.kind == STUDENT else candidate.kind


def order_of(ids: NDArray[np.int64], like: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the rows that bring samples into another order; None where they have it.

    Raises:
        Unusable: they are other samples.
    """
    if np.array_equal(ids, like):
        return None
    mine, theirs = np.argsort(ids, kind="stable"), np.argsort(like, kind="stable")
    if len(ids) != len(like) or not np.array_equal(ids[mine], like[theirs]):
        raise Unusable("its samples are not those of the first")
    if len(np.unique(ids)) != len(ids):
        raise Unusable("its samples come in another order, and ids are there twice")
    order = np.empty(len(ids), dtype=np.int64)
    order[theirs] = mine
    return order
