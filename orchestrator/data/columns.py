"""The columns of a table that a model learns from: numbers, or encoded images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError, nearest


def float32(column: Any) -> NDArray[np.float32]:
    """Return an Arrow column of numbers as float32 (n,); gaps become NaN."""
    import pyarrow as pa

    # By DLPack: `to_numpy` imports pandas, for nothing.
    filled = column.cast(pa.float32(), safe=False).combine_chunks().fill_null(float("nan"))
    return np.asarray(np.from_dlpack(filled), dtype=np.float32)


def refuse_missing(file: object, names: Sequence[str], schema: Any) -> None:
    """Refuse columns that a schema does not have, with the nearest that it has.

    Raises:
        UserError: as said.
    """
    missing = [name for name in names if name not in schema.names]
    if missing:
        raise UserError(f"has no column '{missing[0]}'", file=file, hint=nearest(missing[0], schema.names))


def is_number(kind: Any) -> bool:
    """Say whether an Arrow type is of numbers; booleans are."""
    import pyarrow.types as kinds

    return bool(kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_boolean(kind))


def is_image(kind: Any) -> bool:
    """Say whether a column may hold encoded images: bytes, or a struct that has them in `bytes`."""
    import pyarrow.types as kinds

    if kinds.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0 and is_image(kind.field("bytes").type))
    return bool(kinds.is_binary(kind) or kinds.is_large_binary(kind))


def image_column(schema: Any, label: str, features: Sequence[str] | None) -> str | None:
    """Return the one column of images to learn from; None where it is numbers."""
    names = schema.names if features is None else list(features)
    if features is not None and len(names) != 1:
        return None
    known = [name for name in names if name != label and name in schema.names]
    found = [name for name in known if is_image(schema.field(name).type)]
    return found[0] if len(found) == 1 else None


def feature_columns(schema: Any, path: str, label: str, features: Sequence[str] | None) -> list[str]:
    """Return the feature columns after checking that they are there and hold numbers.

    Raises:
        UserError: there is none, or one is missing, the label, or no numbers.
    """
    chosen = [name for name in schema.names if name != label] if features is None else list(features)
    if not chosen:
        raise UserError("no column is left to learn from", file=path, key="features")
    for name in chosen:
        if name not in schema.names:
            raise UserError(f"has no column '{name}'", file=path, hint=nearest(name, schema.names))
        if name == label:
            raise UserError(f"the label '{label}' is listed as a feature too", file=path)
        kind = schema.field(name).type
        if not is_number(kind):
            raise UserError(
                f"column '{name}' holds {kind}, not numbers",
                file=path,
                hint="List the columns to learn from in `features`: numbers, or one column of images",
            )
    return chosen
