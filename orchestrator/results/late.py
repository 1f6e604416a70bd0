"""A field of a dataclass that is made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    import pandas as pd


class LateFrame:
    """A frame, given as it is or as a function that makes it when it is first asked for, and then kept.

    A descriptor, so that what has such a field is built, replaced, compared and pickled as if it were a plain
    one. The function must be picklable where the owner is to be; what it raises, whoever asks first is told,
    and the next one too.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, kind: type) -> LateFrame: ...
    @overload
    def __get__(self, owner: object, kind: type | None = None) -> pd.DataFrame: ...

    def __get__(self, owner: object | None, kind: type | None = None) -> pd.DataFrame | LateFrame:
        if owner is None:
            # A dataclass would take what it gets from its class for the field's default.
            raise AttributeError(self._name)
        held: dict[str, Any] = owner.__dict__
        if callable(found := held[self._name]):
            found = held[self._name] = found()
        frame: pd.DataFrame = found
        return frame

    def __set__(self, owner: object, value: pd.DataFrame | Callable[[], pd.DataFrame]) -> None:
        owner.__dict__[self._name] = value
