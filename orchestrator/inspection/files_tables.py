"""Tables and arrays read as they are: Parquet and NumPy archives."""

from __future__ import annotations

import functools
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest
from orchestrator.inspection.files_images import encoded_pictures
from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, Finding, some
from orchestrator.inspection.raw import IMAGES, TABLE, TOKENS, Ids, Raw, kind_of

_LABELS = ("label", "labels", "target", "targets", "class", "y")
_TRAINING_LABELS = ("y_train", "train_labels", "labels_train")
_INPUTS = ("x", "inputs", "data", "images", "features", "x_train", "train_images", "train_data")
_MOST_CLASSES = 1000


class Answers(NamedTuple):
    """What a column of labels comes to; the fields as in `Raw`."""

    labels: Ids | None
    class_names: tuple[str, ...]
    targets: NDArray[np.float64] | None


def answers(values: NDArray[Any], known: NDArray[np.bool_], task: str | None) -> Answers:
    """Turn raw labels into classes or values; measurements are values unless `task` says otherwise.

    Args:
        values: (n,) numbers or texts.
        known: (n,) False where there is none.
        task: classification, regression, or None to find out.
    """
    if values.dtype.kind in "fiub":
        numbers = values.astype(np.float64)
        known = known & np.isfinite(numbers)
        whole = bool((np.floor(numbers[known]) == numbers[known]).all())
        many = len(np.unique(numbers[known])) > _MOST_CLASSES
        if task == "regression" or (task is None and (not whole or many)):
            return Answers(None, (), np.where(known, numbers, np.nan))
        values = numbers.astype(object) if not whole else np.where(known, numbers, 0).astype(np.int64)
        if np.array_equal(np.unique(values[known]), [0, 1]) and numbers.dtype.kind == "b":
            values = values.astype(bool)
    labels = np.full(len(values), -1, dtype=np.int64)
    names, places = np.unique(values[known], return_inverse=True)
    labels[known] = places
    return Answers(labels, tuple(str(each) for each in names.tolist()), None)


def open_npz(path: Path, given: Mapping[str, Any]) -> Raw:
    """Open a NumPy archive; `given` may name its arrays (inputs, labels) and the task.

    Raises:
        UserError: it is damaged, or has no array that could be the samples, or the two do not fit.
    """
    try:
        with open(path, "rb") as handle, np.load(handle, allow_pickle=False) as archive:
            inputs, label = _array_names(path, archive.files, given)
            samples = archive[inputs]
            raw_labels = archive[label] if label else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError, AttributeError) as error:
        raise UserError(f"not readable as a NumPy archive ({error})", file=path) from None
    if samples.dtype.kind not in "fiub" or samples.ndim < 1:
        raise UserError(f"array '{inputs}' holds {samples.dtype}, not numbers", file=path)
    if raw_labels is not None and (raw_labels.ndim != 1 or len(raw_labels) != len(samples)):
        raise UserError(
            f"'{inputs}' {samples.shape} and '{label}' {raw_labels.shape} do not fit",
            file=path,
            hint="They should be (samples, ...) and (samples,)",
        )
    if not len(samples):
        raise UserError(f"array '{inputs}' has no samples", file=path)
    vocabulary = given.get("vocabulary")
    samples = _channels_first(samples, given.get("layout"))
    found = (
        answers(*_texts(raw_labels), given.get("task")) if raw_labels is not None else Answers(None, (), None)
    )
    shape = samples.shape[1:]
    kind = kind_of(shape, vocabulary)
    number = np.int64 if kind == TOKENS else np.float32
    return Raw(
        kind=kind,
        count=len(samples),
        shape=shape,
        load=lambda ids: samples[ids].astype(number),
        vocabulary=vocabulary,
        labels=found.labels,
        class_names=found.class_names,
        targets=found.targets,
        columns=tuple(f"column {k}" for k in range(shape[0])) if kind == TABLE else (),
        named=lambda number: f"sample {number}",
        seen=_unlabelled(label, "labels", _not_taken(archive.files, inputs, label)),
    )


def _texts(values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    return values, np.ones(len(values), dtype=bool)


def _array_names(path: Path, names: Sequence[str], given: Mapping[str, Any]) -> tuple[str, str | None]:
    for key in ("inputs", "labels", "label"):
        if key in given and given[key] not in names:
            # What a catalogue's file has by default is no wish of anybody's.
            raise UserError(
                f"has no array '{given[key]}'", file=path, key=key, hint=nearest(str(given[key]), names)
            )
    if not names:
        raise UserError("the archive has no arrays", file=path)
    inputs = given.get("inputs") or next((name for name in (*_INPUTS, *names) if name in names), names[0])
    beside = (inputs.replace("x", "y"), *_TRAINING_LABELS, *_LABELS)
    others = [name for name in names if name != inputs]
    label = (
        given.get("labels") or given.get("label") or next((name for name in beside if name in others), None)
    )
    return str(inputs), label


def _not_taken(names: Sequence[str], inputs: str, label: str | None) -> str:
    rest = [name for name in names if name not in (inputs, label)]
    return f"arrays {some(rest)} were not looked at" if rest else ""


def _channels_first(samples: NDArray[Any], layout: str | None) -> NDArray[Any]:
    """Return samples (n, ...) with one shape for images: whole numbers in 3 dimensions are grey images."""
    if samples.ndim == 1:
        return samples[:, None]
    if samples.ndim == 3 and (samples.dtype == np.uint8 or layout == "grey"):
        return samples[:, None]
    if samples.ndim == 4 and samples.shape[1] not in (1, 3, 4) and samples.shape[3] in (1, 3, 4):
        return samples.transpose(0, 3, 1, 2)
    return samples.reshape(len(samples), -1) if samples.ndim > 4 else samples


def open_parquet(path: Path, given: Mapping[str, Any]) -> Raw:
    """Open a Parquet table (a file, or a folder of files); `given` may have label, features and task.

    Raises:
        UserError: a file is damaged, a column is not there, or none holds numbers or pictures.
    """
    import pyarrow as pa
    import pyarrow.types as kinds

    table = _Groups(path)
    label = _label_column(path, table.schema.names, given)
    features = given.get("features")
    wanted = [name for name in table.schema.names if name != label] if features is None else list(features)
    for name in wanted:
        if name not in table.schema.names:
            raise UserError(f"has no column '{name}'", file=path, hint=nearest(name, table.schema.names))

    def numeric(kind: Any) -> bool:
        return bool(
            kinds.is_integer(kind)
            or kinds.is_floating(kind)
            or kinds.is_boolean(kind)
            or kinds.is_decimal(kind)
        )

    numbers = [name for name in wanted if numeric(table.schema.field(name).type)]
    found = Answers(None, (), None)
    if label:
        column = table.column(label)
        found = answers(*_arrow_values(column), given.get("task"))
    pictures = [name for name in wanted if _holds_bytes(table.schema.field(name).type)]
    if not table.rows:
        raise UserError("the table has no rows", file=path)
    common: dict[str, Any] = {
        "count": table.rows,
        "labels": found.labels,
        "class_names": found.class_names,
        "targets": found.targets,
    }
    if pictures and (not numbers or given.get("image")):
        name = str(given.get("image") or pictures[0])
        load, shape, seen = encoded_pictures(lambda ids: table.take([name], ids).column(name), table.rows)
        return Raw(kind=IMAGES, shape=shape, load=load, seen=(*seen, *_unlabelled(label, "label")), **common)
    if not numbers:
        raise UserError("no column holds numbers or pictures", file=path, hint=f"Its columns: {some(wanted)}")
    texts = [name for name in wanted if name not in numbers]

    def load_rows(ids: Ids) -> NDArray[Any]:
        rows = table.take(numbers, ids)
        columns = [_float32(rows.column(name), pa) for name in numbers]
        return np.stack(columns, axis=1) if len(ids) else np.empty((0, len(numbers)), np.float32)

    return Raw(
        kind=TABLE,
        shape=(len(numbers),),
        load=load_rows,
        columns=tuple(numbers),
        seen=(*_left_out(texts), *_unlabelled(label, "label")),
        **common,
    )


class _Groups:
    """The row groups of a table's files, read when asked for and no more than a few kept."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
        self.path, self._files, groups, starts = path, [], [], [0]
        for number, file in enumerate(files):
            try:
                opened = pq.ParquetFile(file, memory_map=True)
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"not readable as Parquet ({error})", file=file) from None
            if not number:
                self.schema: Any = opened.schema_arrow
            self._files.append((file, opened))
            if opened.schema_arrow.names != self.schema.names:
                raise UserError(
                    "its columns are not those of the first file", file=file, hint=f"That is {files[0].name}"
                )
            for group in range(opened.num_row_groups):
                groups.append((number, group))
                starts.append(starts[-1] + opened.metadata.row_group(group).num_rows)
        self._where, self._starts = groups, np.array(starts)
        self.rows = int(starts[-1])
        self._read = functools.lru_cache(maxsize=2)(self._group)

    def _group(self, number: int, names: tuple[str, ...]) -> Any:
        import pyarrow as pa

        file, opened = self._files[self._where[number][0]]
        try:
            return opened.read_row_group(self._where[number][1], columns=list(names)).select(list(names))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"not readable as Parquet ({error})", file=file) from None

    def column(self, name: str) -> Any:
        """Read a whole column."""
        return self.take([name], np.arange(self.rows, dtype=np.int64)).column(name)

    def take(self, names: Sequence[str], ids: Ids) -> Any:
        """Read some rows of some columns; `ids` may be in any order."""
        import pyarrow as pa

        order = np.argsort(ids, kind="stable")
        group = np.searchsorted(self._starts, ids[order], side="right") - 1
        parts = []
        for number in np.unique(group):
            rows = ids[order][group == number] - self._starts[number]
            parts.append(self._read(int(number), tuple(names)).take(pa.array(rows)))
        if not parts:
            return self.schema.empty_table().select(list(names))
        back = np.empty(len(ids), dtype=np.int64)
        back[order] = np.arange(len(ids))
        table = pa.concat_tables(parts, promote_options="permissive")
        return table if (order == np.arange(len(ids))).all() else table.take(pa.array(back))


def _float32(column: Any, pa: Any) -> NDArray[np.float32]:
    filled = column.cast(pa.float64(), safe=False).combine_chunks().fill_null(float("nan"))
    with np.errstate(over="ignore"):
        return np.asarray(np.from_dlpack(filled), dtype=np.float64).astype(np.float32)


def _arrow_values(column: Any) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    known = np.array([not each for each in column.is_null().to_pylist()], dtype=bool)
    raw = column.to_pylist()
    if all(isinstance(each, int | float) for each, here in zip(raw, known, strict=True) if here):
        return np.array(
            [each if here else np.nan for each, here in zip(raw, known, strict=True)], float
        ), known
    return np.array([str(each) if here else "" for each, here in zip(raw, known, strict=True)]), known


def _holds_bytes(kind: Any) -> bool:
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return any(kind.field(k).name == "bytes" for k in range(kind.num_fields))
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def _label_column(path: Path, names: Sequence[str], given: Mapping[str, Any]) -> str | None:
    label = given.get("label") or given.get("labels")
    if label is not None and label not in names:
        raise UserError(f"has no column '{label}'", file=path, hint=nearest(str(label), names))
    return label or next((name for name in _LABELS if name in names), None)


def _unlabelled(label: str | None, key: str, more: str = "") -> tuple[Finding, ...]:
    found = [Finding(code="not_looked_at", level=NOTE, text=more)] if more else []
    if label is None:
        advice = f"Say which one they are: {key}=NAME"
        text = "looked at without labels: no name says which they are"
        found.append(Finding(code="no_labels", level=WARNING, text=text, advice=advice, share=1.0))
    return tuple(found)


def _left_out(texts: list[str]) -> tuple[Finding, ...]:
    if not texts:
        return ()
    were = "column holds no numbers and was" if len(texts) == 1 else "columns hold no numbers and were"
    text = f"{len(texts)} {were} not looked at: {some(texts)}"
    advice = "Encode them as numbers, or list the columns to learn from: features=[...]"
    return (Finding(code="text_columns", level=PROBLEM, text=text, advice=advice, share=0.1),)
