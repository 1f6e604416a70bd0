"""Reading a table of the results from its file."""

from __future__ import annotations

from collections.abc import Collection
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
    try:
        table = pq.ParquetFile(path, read_dictionary=list(repeated)).read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DamagedTable(path, " ".join(str(error).split())) from None
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            decoded = table.column(place).cast(pa.large_string())
            table = table.set_column(place, pa.field(field.name, decoded.type), decoded)
    return table
