"""Rows of the results as CSV, JSON, JSON lines, Parquet or text, to a file or to standard output."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.errors import UserError
from orchestrator.report.tabular import table_lines, vertical_lines
from orchestrator.sweep.files import replace_atomic

TABLE, VERTICAL = "table", "vertical"
SUFFIXES = {
    ".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
    ".txt": TABLE,
}  # fmt: skip
FORMATS = (TABLE, VERTICAL, "csv", "json", "jsonl", "parquet")
ROWS_AT_ONCE = 10_000


def format_of(asked: str | None, output: Path | None) -> str:
    """Return the format to write: the one asked for, else that of the file's name.

    Raises:
        UserError: the name says nothing, or something else than what was asked for.
    """
    if output is None or str(output) == "-":
        return asked or TABLE
    named = SUFFIXES.get(output.suffix.lower())
    if asked is None:
        if named is None:
            raise UserError(
                f"'{output.suffix}' is no kind of file" if output.suffix else "the name has no ending",
                file=output,
                hint=f"Valid: {', '.join(SUFFIXES)}; or say --format",
            )
        return named
    if named is not None and named != asked and not (named == TABLE and asked == VERTICAL):
        raise UserError(f"a file of this name would hold {named}, not {asked}", file=output)
    return asked


def write_rows(rows: pa.Table, kind: str, output: Path | None) -> None:
    """Write rows whole to a file, or to standard output.

    Args:
        rows: of the results.
        kind: one of FORMATS.
        output: a file that is replaced when all of it is written; None or `-` is standard output.

    Raises:
        UserError: Parquet for a terminal, or a folder in the file's place.
    """
    write = _WRITERS[kind]
    if output is None or str(output) == "-":
        if kind == "parquet" and sys.stdout.isatty():
            raise UserError(
                "Parquet is not for a terminal", file="--format", hint="Add --output FILE.parquet"
            )
        write(rows, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    output = output.expanduser()
    if output.is_dir():
        raise UserError("is a folder", file=output, hint="Name a file in it")

    def fill(path: Path) -> None:
        with open(path, "wb") as file:
            write(rows, file)

    # A device or a pipe is written to; only a file is replaced, and a link's target rather than the link.
    if output.exists() and not output.is_file():
        fill(output)
    else:
        replace_atomic(Path(os.path.realpath(output)), fill)


def _write_csv(rows: pa.Table, file: IO[bytes]) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=False)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows.column_names)
    for row in _rows(rows):
        writer.writerow(row.values())
    text.flush()
    text.detach()


def _write_json(rows: pa.Table, file: IO[bytes]) -> None:
    file.write(b"[")
    for index, row in enumerate(_rows(_finite(rows))):
        file.write((",\n " if index else "\n ").encode() + _json(row))
    file.write(b"\n]\n")


def _write_json_lines(rows: pa.Table, file: IO[bytes]) -> None:
    for row in _rows(_finite(rows)):
        file.write(_json(row) + b"\n")


def _write_parquet(rows: pa.Table, file: IO[bytes]) -> None:
    pq.write_table(rows, file)


def _write_table(rows: pa.Table, file: IO[bytes]) -> None:
    for line in table_lines(rows.to_pylist(), rows.column_names, None).lines:
        file.write(f"{line}\n".encode())


def _write_vertical(rows: pa.Table, file: IO[bytes]) -> None:
    for line in vertical_lines(rows.to_pylist(), rows.column_names):
        file.write(f"{line}\n".encode())


_WRITERS: dict[str, Callable[[pa.Table, IO[bytes]], None]] = {
    TABLE: _write_table, VERTICAL: _write_vertical, "csv": _write_csv, "json": _write_json,
    "jsonl": _write_json_lines, "parquet": _write_parquet,
}  # fmt: skip


def _json(row: dict[str, Any]) -> bytes:
    return json.dumps(row, allow_nan=False).encode()


def _rows(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Give rows one by one; a curve of a large sweep has too many of them for one list."""
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        yield from batch.to_pylist()


def _finite(rows: pa.Table) -> pa.Table:
    """Return rows with null for what JSON has no number for: NaN and infinity."""
    for index, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            column = rows.column(index)
            kept = pc.if_else(pc.is_finite(column), column, pa.scalar(None, field.type))
            rows = rows.set_column(index, field, kept)
    return rows
