"""Parquet tables: columns of numbers, or one column of encoded images, read row group by row group."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.columns import feature_columns, float32, image_column, is_number, refuse_missing
from orchestrator.data.files import existing
from orchestrator.data.labels import Encoded, encode, encode_labels
from orchestrator.data.source import CLASSIFICATION, REGRESSION, Source
from orchestrator.data.splits import Indices
from orchestrator.errors import UserError, nearest


def parquet(
    *,
    path: str,
    label: str,
    features: Sequence[str] | None = None,
    task: str = CLASSIFICATION,
    resolution: int | None = None,
    mode: str | None = None,
) -> Source:
    """Return a Parquet table (a file, or a folder of files) as a dataset.

    A table of numbers has the shape (features,). Images come as (channels, side, side), 0 to 1. Only the row
    groups and columns that are needed are read, one group at a time, so a table may be larger than memory.

    Args:
        path: of the table.
        label: the column that holds the classes (integers, text or booleans), or the values to predict.
        features: the columns to learn from: all numbers, or one of encoded images (bytes, or a struct with a
            field `bytes`). None takes the one column of images where there is one, and otherwise every column
            but the label.
        task: CLASSIFICATION or REGRESSION.
        resolution: for images: pixels of a side; None takes the power of two nearest to their median side.
        mode: for images: "grey", "color", or None for what most of them are.

    Raises:
        UserError: the file, a column or a value is missing, damaged or of the wrong kind.
    """
    groups = _row_groups(path)
    schema = parquet_schema(path)
    images, chosen = _learned_from(schema, path, label, features)
    encoded = read_labels(path, label, task)
    for file in dict.fromkeys(group.file for group in groups):
        _check_columns(file, chosen, schema)

    @functools.lru_cache(maxsize=1)  # a chunk's last group is mostly the next one's first
    def group_rows(number: int) -> Any:
        return _read_group(groups[number], chosen)

    def rows(indices: Indices) -> Iterator[tuple[NDArray[np.int64], Any]]:
        """Give places in `indices` and the table of their rows, group by group."""
        group_of = np.searchsorted([group.start for group in groups], indices, side="right") - 1
        for number in np.unique(group_of).tolist():
            places = np.flatnonzero(group_of == number)
            yield places, group_rows(number).take(indices[places] - groups[number].start)

    if images:
        return _images(path, images, encoded, rows, resolution, mode)

    def load(indices: Indices) -> NDArray[np.float32]:
        values = np.empty((len(indices), len(chosen)), np.float32)
        for places, table in rows(indices):
            for column, name in enumerate(chosen):
                values[places, column] = float32(table.column(name))
        return values

    return Source(
        labels=encoded.labels,
        class_names=encoded.class_names,
        targets=encoded.targets,
        shape=(len(chosen),),
        load=load,
        columns=tuple(chosen),
    )


def _images(
    path: str, column: str, encoded: Encoded, rows: Any, resolution: int | None, mode: str | None
) -> Source:
    """Return a table's column of encoded images as a source."""
    from orchestrator.data.images import choose_format, decode

    def content(value: Any, index: int) -> tuple[bytes, str]:
        found = value.get("bytes") if isinstance(value, dict) else value
        name = f"{path}: row {index} of column '{column}'"
        if not found:
            raise UserError("there is no image", file=name)
        return found, name

    def opener(index: int) -> tuple[bytes, str]:
        _, table = next(rows(np.array([index])))
        return content(table.column(column)[0].as_py(), index)

    wanted = choose_format(len(encoded.labels), opener, resolution=resolution, mode=mode)

    def load(indices: Indices) -> NDArray[np.float32]:
        decoded = np.empty((len(indices), *wanted.shape), np.float32)
        for places, table in rows(indices):
            for place, value in zip(places.tolist(), table.column(column), strict=True):
                decoded[place] = decode(*content(value.as_py(), int(indices[place])), wanted)
        return decoded

    return Source(
        labels=encoded.labels,
        class_names=encoded.class_names,
        targets=encoded.targets,
        shape=wanted.shape,
        load=load,
    )


class _Group(NamedTuple):
    """A row group: its file, its number in it, and the number of its first row in the table."""

    file: Path
    number: int
    start: int


def _row_groups(path: str) -> list[_Group]:
    """List a table's row groups that have rows; their footers are read, no data."""
    groups, start = [], 0
    for file in _parquet_files(path):
        with _opened(file) as opened:
            for number in range(opened.metadata.num_row_groups):
                if count := opened.metadata.row_group(number).num_rows:
                    groups.append(_Group(file, number, start))
                    start += count
    return groups


def _opened(file: Path) -> Any:
    """Open a Parquet file, memory-mapped."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(file, memory_map=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(file, error) from error


def _read_group(group: _Group, names: Sequence[str]) -> Any:
    import pyarrow as pa

    with _opened(group.file) as opened:
        try:
            return opened.read_row_group(group.number, columns=list(names))
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(group.file, error) from error


def _unreadable(file: Path, error: Exception) -> UserError:
    return UserError(f"not readable as Parquet ({error})", file=file)


def check_features(path: str, label: str, features: Sequence[str] | None) -> None:
    """Refuse columns to learn from that a table does not have or that hold no numbers; reads no data.

    Raises:
        UserError: names the column.
    """
    _learned_from(parquet_schema(path), path, label, features)


def _learned_from(
    schema: Any, path: str, label: str, features: Sequence[str] | None
) -> tuple[str | None, list[str]]:
    """Return the column of images, where it is that, and all columns to learn from."""
    images = image_column(schema, label, features)
    return images, [images] if images else feature_columns(schema, path, label, features)


def parquet_schema(path: str) -> Any:
    """Read the Arrow schema of a table's first file; no data.

    Raises:
        UserError: there is no such file, or it is no Parquet.
    """
    with _opened(_parquet_files(path)[0]) as opened:
        return opened.schema_arrow


def read_labels(path: str, label: str, task: str = CLASSIFICATION) -> Encoded:
    """Read the label column alone.

    Raises:
        UserError: the column is missing, has gaps, or does not fit the task.
    """
    if task != REGRESSION:
        column = _label_column(path, label)
        if not len(column) or task != CLASSIFICATION:
            return encode(np.empty(0), task, label, path)
        names, numbers = _classes(column, label, path)
        return Encoded(numbers, tuple(names), None)
    import pyarrow as pa

    column = _label_column(path, label)
    if not is_number(column.type):
        hint = f"Or are they classes? Then say datasets.task={CLASSIFICATION}"
        raise UserError(f"column '{label}' holds {column.type}, not numbers", file=path, hint=hint)
    return encode(np.from_dlpack(column.cast(pa.float64(), safe=False)), task, label, path)


def parquet_labels(path: str, label: str) -> tuple[list[str], NDArray[np.int64]]:
    """Read the label column alone and return class names and the class of every row (n,).

    Raises:
        UserError: the column is missing, has gaps, or holds measurements instead of classes.
    """
    encoded = read_labels(path, label)
    return list(encoded.class_names), encoded.labels


def _label_column(path: str, label: str) -> Any:
    """Return the label column as one Arrow array without gaps."""
    schema = parquet_schema(path)
    if label not in schema.names:
        raise UserError(f"has no column '{label}'", file=path, hint=nearest(label, schema.names))
    column = read_columns(path, [label]).column(label)
    if column.null_count:
        raise UserError(f"column '{label}' is empty in {column.null_count} of {len(column)} rows", file=path)
    return column.combine_chunks()


def _classes(column: Any, label: str, path: str) -> tuple[list[str], NDArray[np.int64]]:
    """Number the classes of a column: their names, and the class of every row (n,)."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()  # its dictionary may hold classes that no row has
    encoded = column.dictionary_encode()
    names, numbers = encode_labels(np.asarray(encoded.dictionary.to_pylist()), label, path)
    return names, numbers[np.from_dlpack(encoded.indices)]


def read_columns(path: str, names: Sequence[str]) -> Any:
    """Read some columns of a Parquet table into memory.

    File by file: pyarrow's own reader of folders imports pandas, which planning has no time for.

    Raises:
        UserError: a file is damaged, or its columns are not those of the first.
    """
    import pyarrow as pa

    tables = []
    for file in _parquet_files(path):
        with _opened(file) as opened:
            refuse_missing(file, names, opened.schema_arrow)
            try:
                tables.append(opened.read(columns=list(names)).select(list(names)))
            except (pa.ArrowException, OSError) as error:
                raise _unreadable(file, error) from error
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise UserError(f"its files don't fit together ({error})", file=path) from None


def _check_columns(file: Path, chosen: Sequence[str], first: Any) -> None:
    """Refuse a file of a folder whose columns are missing, or of another kind than in the first file."""
    with _opened(file) as opened:
        schema = opened.schema_arrow
    refuse_missing(file, chosen, schema)
    for name in chosen:
        kind, wanted = schema.field(name).type, first.field(name).type
        if is_number(kind) != is_number(wanted):
            raise UserError(f"column '{name}' holds {kind}, and {wanted} in the first file", file=file)


def _parquet_files(path: str) -> list[Path]:
    """Return a table's files: the file itself, or those of a folder in the order of their names."""
    if existing(path, named="a Parquet table").is_file():
        return [Path(path)]
    files = sorted(each for each in Path(path).rglob("*.parquet") if not each.name.startswith((".", "_")))
    if not files:
        raise UserError("the folder has no *.parquet", file=path)
    return files
