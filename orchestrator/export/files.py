"""Files of samples to predict: NumPy archives, tables, images; read batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.arrays import LAYOUTS, read_inputs
from orchestrator.data.columns import float32, image_column, refuse_missing
from orchestrator.data.folders import SUFFIXES
from orchestrator.data.images import COLOR, GREY, Format, decode
from orchestrator.errors import UserError, nearest
from orchestrator.export.samples import BATCH, Batch, Expected

# What a column of right answers is called where the dataset does not say.
LABELS = ("label", "target", "y", "class")


def open_file(file: Path, takes: Expected) -> Iterator[Batch]:
    """Open a file or a folder of images.

    Args:
        file: an archive, a table, an image, or a folder of images.
        takes: what the models take.

    Raises:
        UserError: it is not there, or not of the kind that the models take.
    """
    if not takes.inputs["raw_shape"]:
        raise UserError("the shape that the models take is not known", file=file)
    if not file.exists():
        raise UserError(
            "there is no such file or folder", file=file, hint="Or say test: the held-out part of its dataset"
        )
    suffix = file.suffix.lower()
    if file.is_dir() or suffix in SUFFIXES:
        return images(file, takes)
    readers: dict[str, Callable[[Path, Expected], Iterator[Batch]]] = {
        ".npz": npz,
        ".parquet": parquet,
        ".csv": csv,
    }
    if suffix not in readers:
        kinds = ", ".join(["test", "a folder of images", *(f"*{each}" for each in readers)])
        raise UserError(f"is of an unknown kind ('{suffix}')", file=file, hint=f"Known: {kinds}")
    return readers[suffix](file, takes)


def npz(file: Path, takes: Expected) -> Iterator[Batch]:
    """Return the samples of a NumPy archive: x, and y where it has it; mapped where it is not compressed.

    Raises:
        UserError: it is damaged, or its arrays do not fit.
    """
    config = takes.inputs.get("dataset") or {}
    is_npz = str(config.get("_target_", "")).endswith(".npz")
    inputs = str(config.get("inputs", "x")) if is_npz else "x"
    labels = str(config.get("labels", "y")) if is_npz else "y"
    raw, targets = read_inputs(str(file), inputs, labels)
    if is_npz and config.get("layout") == LAYOUTS[1] and raw.ndim == 4:
        raw = np.moveaxis(raw, -1, 1)
    elif raw.ndim == 3 and takes.shape[:1] == (1,) and raw.shape[1:] == takes.shape[1:]:
        raw = raw[:, None]  # grey images without their one channel
    if targets is not None and targets.shape != (len(raw),):
        raise UserError(f"'{labels}' {targets.shape} does not fit '{inputs}' {raw.shape}", file=file)
    if not len(raw):
        raise UserError("has no samples", file=file)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(raw), BATCH):
            rows = slice(start, start + BATCH)
            some = takes.checked(np.asarray(raw[rows]), file)
            known = None if targets is None else takes.targets(np.asarray(targets[rows]), file)
            yield Batch(some, known, np.arange(start, start + len(some), dtype=np.int64))

    return batches()


def parquet(file: Path, takes: Expected) -> Iterator[Batch]:
    """Return the rows of a Parquet table: columns of numbers by name, or one of encoded images.

    Raises:
        UserError: it is damaged, or a column is missing or of another kind.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        opened = pq.ParquetFile(file)
        schema = opened.schema_arrow
        if len(takes.shape) == 3:
            return _table_of_images(file, opened, takes)
        columns, label = _columns(file, schema, takes)
        names = [*columns, *([label] if label else [])]
        return _rows(file, opened.iter_batches(BATCH, columns=names), columns, label, takes)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"not readable as Parquet ({error})", file=file) from error


def csv(file: Path, takes: Expected) -> Iterator[Batch]:
    """Return the rows of a CSV table, by the names in its first line.

    Raises:
        UserError: it is damaged, or a column is missing or of another kind.
    """
    import pyarrow as pa
    import pyarrow.csv

    try:
        opened = pyarrow.csv.open_csv(file)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"not readable as CSV ({error})", file=file) from error
    columns, label = _columns(file, opened.schema, takes)
    return _rows(file, opened, columns, label, takes)


def _columns(file: Path, schema: Any, takes: Expected) -> tuple[list[str], str | None]:
    """Return a table's columns to learn from, in the models' order, and that of the right answers, if any."""
    columns = list(takes.inputs.get("columns") or ())
    if not columns or len(takes.shape) != 1:
        raise UserError(
            f"is a table, and the models take samples of shape {takes.shape}",
            file=file,
            hint="Write them to an archive: np.savez('data.npz', x=samples)",
        )
    refuse_missing(file, columns, schema)
    config = takes.inputs.get("dataset") or {}
    wanted = [str(config["label"])] if config.get("label") else list(LABELS)
    label = next((name for name in wanted if name in schema.names and name not in columns), None)
    return columns, label


def _rows(
    file: Path, tables: Any, columns: Sequence[str], label: str | None, takes: Expected
) -> Iterator[Batch]:
    import pyarrow as pa

    start = 0
    try:
        for read in tables:
            for at in range(0, len(read), BATCH):
                table = pa.Table.from_batches([read.slice(at, BATCH)])
                raw = np.stack([_numbers(file, table, name) for name in columns], axis=1)
                known = None if label is None else _answers(file, table.column(label), label, takes)
                yield Batch(
                    takes.checked(raw, file), known, np.arange(start, start + len(table), dtype=np.int64)
                )
                start += len(table)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"not readable after row {start} ({error})", file=file) from error


def _numbers(file: Path, table: Any, name: str) -> NDArray[np.float32]:
    import pyarrow as pa

    try:
        return float32(table.column(name))
    except pa.ArrowException:
        raise UserError(f"column '{name}' holds {table.column(name).type}, not numbers", file=file) from None


def _answers(file: Path, column: Any, name: str, takes: Expected) -> NDArray[Any]:
    if column.null_count:
        raise UserError(f"column '{name}' is empty in some rows", file=file, hint="Fill it, or leave it out")
    return takes.targets(np.asarray(column.to_pylist()), file)


def _table_of_images(file: Path, opened: Any, takes: Expected) -> Iterator[Batch]:
    """Return the images in a Parquet table, with its labels where the dataset says their column."""
    config = takes.inputs.get("dataset") or {}
    label = str(config.get("label") or LABELS[0])
    column = image_column(opened.schema_arrow, label, None)
    if column is None:
        raise UserError("has no column of encoded images, or several", file=file)
    known = label if label in opened.schema_arrow.names else None

    def batches() -> Iterator[Batch]:
        start = 0
        for table in opened.iter_batches(BATCH, columns=[column, *([known] if known else [])]):
            contents = [
                each.get("bytes") if isinstance(each, dict) else each
                for each in table.column(column).to_pylist()
            ]
            rows = range(start, start + len(contents))
            raw = [
                decode(each or b"", f"{file}: row {row}", _format(takes))
                for each, row in zip(contents, rows, strict=True)
            ]
            targets = None if known is None else _answers(file, table.column(known), known, takes)
            yield Batch(takes.checked(np.stack(raw), file), targets, np.asarray(rows, dtype=np.int64))
            start += len(contents)

    return batches()


def images(path: Path, takes: Expected) -> Iterator[Batch]:
    """Return the images of a folder, or one image.

    The folders in it are the right classes where each of them has a class's name.

    Raises:
        UserError: there are none, or some folders have a class's name and others do not.
    """
    if len(takes.shape) != 3 or takes.shape[0] not in (1, 3):
        raise UserError(f"holds images, and the models take samples of shape {takes.shape}", file=path)
    files = [path] if path.is_file() else _listed_images(path)
    if not files:
        raise UserError("holds no images", file=path, hint=f"Images are *{', *'.join(SUFFIXES)}")
    folders = {file.relative_to(path).parts[0] for file in files if path.is_dir() and file.parent != path}
    labelled = bool(folders) and folders <= set(takes.classes) and all(each.parent != path for each in files)
    if folders and not labelled and folders & set(takes.classes):
        unknown = sorted(folders - set(takes.classes)) or ["."]
        raise UserError(
            f"the folder '{unknown[0]}' has the name of no class",
            file=path,
            hint=nearest(unknown[0], takes.classes),
        )

    def batches() -> Iterator[Batch]:
        wanted = _format(takes)
        for start in range(0, len(files), BATCH):
            some = files[start : start + BATCH]
            raw = np.stack([decode(file, str(file), wanted) for file in some])
            of = np.asarray([file.relative_to(path).parts[0] for file in some]) if labelled else None
            yield Batch(
                takes.checked(raw, path),
                None if of is None else takes.targets(of, path),
                np.arange(start, start + len(some), dtype=np.int64),
                [str(file.relative_to(path)) if path.is_dir() else file.name for file in some],
            )

    return batches()


def _listed_images(folder: Path) -> list[Path]:
    return sorted(
        each
        for each in folder.rglob("*")
        if each.suffix.lower() in SUFFIXES and not each.name.startswith((".", "__")) and each.is_file()
    )


def _format(takes: Expected) -> Format:
    channels, height, width = takes.shape
    return Format((height, width), GREY if channels == 1 else COLOR)
