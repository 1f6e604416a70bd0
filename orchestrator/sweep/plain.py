"""Facts as they are written: from plain JSON to the dataclasses that they were, whatever may stand there."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

Fact = TypeVar("Fact")


def fact_of(kind: type[Fact], content: Any) -> Fact:
    """Return what `asdict` made plain as the dataclass that it was.

    Args:
        kind: the dataclass.
        content: of a file, from JSON. What it leaves out has its default; what a later version has added is
            passed over.

    Raises:
        TypeError: a part is missing, or of another kind.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise TypeError(str(error)) from None
