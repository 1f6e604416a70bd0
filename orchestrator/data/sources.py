"""Where samples come from: scikit-learn's bundled sets, Parquet tables and NumPy archives.

Each function here is what a dataset's `_target_` may name; a user's own function that returns a `Source`
works the same way. The generated images are in `orchestrator.data.glyphs`.
"""

from __future__ import annotations

import functools
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest

TABULAR = ("breast_cancer", "iris", "wine")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset for classification: labels at once, samples on demand.

    Attributes:
        labels: (n,) int64, the class of every sample, 0 to len(class_names) - 1.
        class_names: what the classes are called, in the order of their numbers.
        shape: of one sample: (features,) for a table, (channels, height, width) for images.
        load: gives the samples with these indices (k,) as float32 (k, *shape), and reads no others
            where it can help it.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    load: Callable[[NDArray[np.int64]], NDArray[np.float32]]


def digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits: shape (1, 8, 8), values 0 to 1."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images[:, None] / 16).astype(np.float32)
    return _in_memory(images, bunch.target, [str(name) for name in bunch.target_names])


def tabular(*, name: str) -> Source:
    """Return one of scikit-learn's bundled tables by name: shape (features,), values as they are.

    Raises:
        UserError: there is none of that name.
    """
    import sklearn.datasets

    if name not in TABULAR:
        raise UserError(f"there is no table '{name}'", key="datasets.name", hint=nearest(name, TABULAR))
    bunch = getattr(sklearn.datasets, f"load_{name}")()
    return _in_memory(bunch.data.astype(np.float32), bunch.target, [str(each) for each in bunch.target_names])


def npz(*, path: str, inputs: str = "x", labels: str = "y") -> Source:
    """Return arrays from a NumPy archive: `inputs` (n, ...) numbers, `labels` (n,) integers or names.

    Raises:
        UserError: the file or an array is missing or damaged, or the two do not fit.
    """
    _existing(path)
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
            for name in (inputs, labels):
                if name not in archive:
                    raise UserError(f"has no array '{name}'", file=path, hint=nearest(name, archive.files))
            samples, raw_labels = archive[inputs], archive[labels]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"not readable as a NumPy archive ({error})", file=path) from None
    if samples.dtype.kind not in "fiub":
        raise UserError(f"array '{inputs}' holds {samples.dtype}, not numbers", file=path)
    if raw_labels.ndim != 1 or len(raw_labels) != len(samples) or samples.ndim < 2:
        raise UserError(
            f"'{inputs}' {samples.shape} and '{labels}' {raw_labels.shape} do not fit",
            file=path,
            hint="They should be (samples, ...) and (samples,)",
        )
    names, numbers = encode_labels(raw_labels, labels, path)
    samples = samples.astype(np.float32)
    _refuse_non_finite(samples.reshape(len(samples), -1), None, path)
    return _in_memory(samples, numbers, names)


def parquet(*, path: str, label: str, features: Sequence[str] | None = None) -> Source:
    """Return a Parquet table (a file, or a folder of files) as a dataset: shape (features,).

    Args:
        path: of the table.
        label: the column that holds the classes: integers, text or booleans.
        features: the columns to learn from, all numbers; None takes every other column.

    Raises:
        UserError: the file, a column or a value is missing, damaged or of the wrong kind.
    """
    schema = parquet_schema(path)
    chosen = _feature_columns(schema, path, label, features)
    names, numbers = parquet_labels(path, label)

    @functools.cache
    def columns() -> Any:
        return read_columns(path, chosen)

    def load(indices: NDArray[np.int64]) -> NDArray[np.float32]:
        rows = columns().take(indices)
        block = [_float32(rows.column(name)) for name in chosen]
        values = np.stack(block, axis=1) if len(indices) else np.empty((0, len(chosen)), np.float32)
        _refuse_non_finite(values, chosen, path)
        return values

    return Source(labels=numbers, class_names=tuple(names), shape=(len(chosen),), load=load)


def parquet_schema(path: str) -> Any:
    """Read the Arrow schema of a table's first file; no data.

    Raises:
        UserError: there is no such file, or it is no Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    first = _parquet_files(path)[0]
    try:
        return pq.read_schema(first)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"not readable as Parquet ({error})", file=first) from None


def parquet_labels(path: str, label: str) -> tuple[list[str], NDArray[np.int64]]:
    """Read the label column alone and return class names and the class of every row (n,).

    Raises:
        UserError: the column is missing, has gaps, or holds measurements instead of classes.
    """
    import pyarrow as pa

    schema = parquet_schema(path)
    if label not in schema.names:
        raise UserError(f"has no column '{label}'", file=path, hint=nearest(label, schema.names))
    column = read_columns(path, [label]).column(label)
    if column.null_count:
        raise UserError(f"column '{label}' is empty in {column.null_count} of {len(column)} rows", file=path)
    column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()  # its dictionary may hold classes that no row has
    encoded = column.dictionary_encode()
    names, numbers = encode_labels(np.asarray(encoded.dictionary.to_pylist()), label, path)
    return names, numbers[np.from_dlpack(encoded.indices)]


def encode_labels(values: NDArray[Any], name: str, path: object) -> tuple[list[str], NDArray[np.int64]]:
    """Number the classes in their sorted order; return their names and the class of every sample (n,).

    Raises:
        UserError: measurements instead of classes, or fewer than two classes.
    """
    if values.dtype.kind == "f" and not np.array_equal(values, np.floor(values)):
        raise UserError(
            f"'{name}' holds measurements such as {values[values != np.floor(values)][0]:g}, not classes",
            file=path,
            hint="The label should be whole numbers, text or booleans",
        )
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    classes, numbers = np.unique(values, return_inverse=True)
    if len(classes) < 2:
        raise UserError(f"'{name}' has {len(classes)} class, and two are needed", file=path)
    return [str(each) for each in classes.tolist()], numbers.astype(np.int64)


def read_columns(path: str, names: Sequence[str]) -> Any:
    """Read some columns of a Parquet table into memory.

    File by file: pyarrow's own reader of folders imports pandas, which planning has no time for.

    Raises:
        UserError: a file is damaged, or its columns are not those of the first.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in _parquet_files(path):
        try:
            with pq.ParquetFile(file, memory_map=True) as opened:
                missing = [name for name in names if name not in opened.schema_arrow.names]
                if missing:
                    hint = nearest(missing[0], opened.schema_arrow.names)
                    raise UserError(f"has no column '{missing[0]}'", file=file, hint=hint)
                tables.append(opened.read(columns=list(names)).select(list(names)))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"not readable as Parquet ({error})", file=file) from None
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise UserError(f"its files don't fit together ({error})", file=path) from None


def _float32(column: Any) -> NDArray[np.float32]:
    """Return an Arrow column of numbers as float32 (n,); gaps become NaN."""
    import pyarrow as pa

    # By DLPack: `to_numpy` imports pandas, for nothing.
    filled = column.cast(pa.float32(), safe=False).combine_chunks().fill_null(float("nan"))
    return np.asarray(np.from_dlpack(filled), dtype=np.float32)


def _parquet_files(path: str) -> list[Path]:
    """Return a table's files: the file itself, or those of a folder in the order of their names."""
    _existing(path)
    if Path(path).is_file():
        return [Path(path)]
    files = sorted(each for each in Path(path).rglob("*.parquet") if not each.name.startswith((".", "_")))
    if not files:
        raise UserError("the folder has no *.parquet", file=path)
    return files


def _feature_columns(schema: Any, path: str, label: str, features: Sequence[str] | None) -> list[str]:
    """Return the feature columns after checking that they are there and hold numbers."""
    import pyarrow.types as kinds

    chosen = [name for name in schema.names if name != label] if features is None else list(features)
    if not chosen:
        raise UserError("no column is left to learn from", file=path, key="features")
    for name in chosen:
        if name not in schema.names:
            raise UserError(f"has no column '{name}'", file=path, hint=nearest(name, schema.names))
        if name == label:
            raise UserError(f"the label '{label}' is listed as a feature too", file=path)
        kind = schema.field(name).type
        if not (kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind)):
            raise UserError(
                f"column '{name}' holds {kind}, not numbers",
                file=path,
                hint="List the columns to learn from in `features`",
            )
    return chosen


def _refuse_non_finite(values: NDArray[np.float32], names: Sequence[str] | None, path: object) -> None:
    """Refuse missing and infinite values in (k, features), naming the first column that has one."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return
    column = int(wrong.any(axis=0).argmax())
    where = f"column '{names[column]}'" if names else "the array"
    count = int(wrong[:, column].sum()) if names else int(wrong.sum())
    raise UserError(
        f"{where} is empty or not finite in {count} of the {len(values)} samples read",
        file=path,
        hint="Fill the gaps or leave the column out",
    )


def _existing(path: str) -> None:
    """Refuse a path that is not there, naming the nearest in its folder."""
    wanted = Path(path)
    if not wanted.exists():
        beside = [each.name for each in wanted.parent.glob("*")] if wanted.parent.is_dir() else []
        raise UserError("there is no such file", file=path, hint=nearest(wanted.name, beside[:20]))


def _in_memory(samples: NDArray[np.float32], labels: NDArray[Any], names: Sequence[str]) -> Source:
    """Wrap arrays that are in memory already: samples (n, *shape), labels (n,)."""
    return Source(
        labels=np.asarray(labels, dtype=np.int64),
        class_names=tuple(names),
        shape=samples.shape[1:],
        load=lambda indices: samples[indices],
    )
