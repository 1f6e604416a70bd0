"""Config mappings to dataclasses: names and types are checked, and errors name the key."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from orchestrator.errors import UserError, nearest

Settings = TypeVar("Settings")


def read(kind: type[Settings], values: object, prefix: str = "") -> Settings:
    """Build a settings dataclass from a mapping, and those inside it from the mappings inside.

    Args:
        kind: the dataclass; what the mapping leaves out has its default.
        values: the mapping.
        prefix: what stands before the keys in messages, such as "model.".

    Raises:
        UserError: an unknown key, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{values!r} should be a mapping", key=prefix.rstrip("."))
    hints = get_type_hints(kind)
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise UserError("no such key", key=f"{prefix}{key}", hint=nearest(str(key), names))
    return kind(**{key: _value(hints[key], value, f"{prefix}{key}") for key, value in values.items()})


def _value(hint: Any, value: Any, key: str) -> Any:
    """Return a value as one of the types that its key allows; a whole float is as good as an integer."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    for kind in kinds:
        if is_dataclass(kind):
            return read(kind, value, f"{key}.")  # type: ignore[arg-type]
        if kind is float and number:
            return float(value)
        if kind is int and number and float(value).is_integer():
            return int(value)
        if kind in (str, bool, types.NoneType) and isinstance(value, kind):
            return value
        nested = get_origin(kind) in (Mapping, Sequence) and not isinstance(value, str)
        if nested and isinstance(value, get_origin(kind)):
            return value
    allowed = " or ".join("null" if kind is types.NoneType else _name(kind) for kind in kinds)
    raise UserError(f"{value!r} is no {allowed}", key=key)


def _name(kind: Any) -> str:
    """Return a type's name as a user would say it."""
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    return names.get(kind, "list" if get_origin(kind) is Sequence else "mapping")
