"""Parameters as libraries know them: a choice whose order means something goes in as its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from task import Setting

from orchestrator.space import CHOICE, Parameter


def by_place(parameter: Parameter) -> bool:
    """Say whether a parameter is given to a library as the number of its place."""
    return parameter.kind == CHOICE and parameter.ordered


def last_place(parameter: Parameter) -> int:
    """Return the number of an ordered choice's last place; the first one is 0."""
    return len(parameter.values) - 1


def decode(space: tuple[Parameter, ...], proposed: Mapping[str, Any]) -> Setting:
    """Return the setting that a library's proposal stands for, in plain Python values.

    Choices without an order are proposed as the number of their place too, as text.
    """
    setting: dict[str, Any] = {}
    for parameter in space:
        value = proposed[parameter.name]
        if parameter.kind == CHOICE:
            setting[parameter.name] = parameter.values[int(value)]
        else:
            setting[parameter.name] = int(value) if parameter.kind == "int" else float(value)
    return setting
