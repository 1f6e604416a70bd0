"""Reading a table of the results from its file."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.errors import UserError


class DamagedTable(UserError):
    """A file of the results can't be read; the records have all that it held.

    Args:
        path: of the file.
        why: in Parquet's words.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"is damaged ({why})",
            file=path,
            hint="Delete it, and make it anew from the records: orchestrate report DIR",
        )
        self.path, self.why = path, why

    def __reduce__(self) -> tuple[Any, ...]:
        # It may come from another process.
        return DamagedTable, (self.path, self.why)


@dataclass(frozen=True, slots=True)
class HeldFile:
    """A file as it was at one moment, whatever becomes of it: its bytes, to be decoded later.

    Attributes:
        path: where it was.
        content: all of it.
    """

    path: Path
    content: pa.Buffer

    def table(self, repeated: Collection[str] = ()) -> pa.Table:
        """Decode it, as `read_table` does.

        Raises:
            DamagedTable: a part of it is not sound.
        """
        with _told_as_damaged(self.path):
            return _decoded(pq.ParquetFile(pa.BufferReader(self.content), read_dictionary=list(repeated)))


def hold_file(path: Path) -> HeldFile:
    """Read a file's bytes, and see whether it is whole.

    Raises:
        DamagedTable: it is no Parquet file, or only the beginning of one.
        FileNotFoundError: there is none.
    """
    with _told_as_damaged(path):
        with pa.OSFile(str(path)) as file:
            content = file.read_buffer()
        pq.read_metadata(pa.BufferReader(content))
    return HeldFile(path, content)


def read_table(path: Path, repeated: Collection[str] = ()) -> pa.Table:
    """Read a whole file.

    Args:
        path: of the file.
        repeated: columns of strings that stand in many rows each. They are decoded once for each string, in
            a third of the time, and are large strings then, as pandas has them.

    Raises:
        DamagedTable: it is no Parquet file, or a part of it is not sound.
        FileNotFoundError: there is none.
    """
    with _told_as_damaged(path):
        return _decoded(pq.ParquetFile(path, read_dictionary=list(repeated)))


@contextlib.contextmanager
def _told_as_damaged(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DamagedTable(path, " ".join(str(error).split())) from None


def _decoded(file: pq.ParquetFile) -> pa.Table:
    """Return all of a file, with large strings in place of its dictionaries."""
    table = file.read()
    # What Parquet does not look at, such as whether text is text; where strings are few it costs little.
    table.validate(full=True)
    places = [place for place, field in enumerate(table.schema) if pa.types.is_dictionary(field.type)]
    # Side by side: Arrow takes one thread for each, without Python's lock.
    with ThreadPoolExecutor(max(1, len(places))) as pool:
        columns = pool.map(lambda place: table.column(place).cast(pa.large_string()), places)
        for place, column in zip(places, columns, strict=True):
            table = table.set_column(place, pa.field(table.field(place).name, column.type), column)
    return table
