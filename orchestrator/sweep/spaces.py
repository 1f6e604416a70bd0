"""A stage's `space.json`, read and vetted: the ranges that it searches, and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.space import CHOICE, FLOAT, INT, Parameter, from_json
from orchestrator.sweep.files import read_as

RANGES = "a stage's ranges"  # what such a file is to be, in messages


def read_ranges(path: Path) -> dict[str, dict[str, Any]]:
    """Return each parameter's range as it is written: kind, values or low, high and log, and reason.

    Raises:
        UserError: the file is damaged, or something else's.
    """
    return read_as(path, _ranges, RANGES)


def read_space(path: Path) -> tuple[Parameter, ...]:
    """Return a stage's parameters.

    Raises:
        UserError: the file is damaged, or something else's.
    """
    return read_as(path, _space, RANGES)


def read_diagnosis(path: Path) -> list[str]:
    """Return what the diagnoses of the trials of the stage before have in common, in sentences.

    Raises:
        UserError: the file is damaged, or something else's.
    """
    return read_as(path, lambda content: [str(each) for each in content.get("diagnosis", [])], RANGES)


def _space(content: Mapping[str, Any]) -> tuple[Parameter, ...]:
    _ranges(content)
    return from_json(content)


def _ranges(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    ranges: dict[str, dict[str, Any]] = {}
    for name, given in content["parameters"].items():
        if not isinstance(given, dict):
            raise TypeError(f"'{name}' has no range")
        if given["kind"] not in (FLOAT, INT, CHOICE):
            raise ValueError(f"'{name}' is of the kind {given['kind']!r}")
        if given["kind"] == CHOICE:
            if not isinstance(given["values"], list):
                raise TypeError(f"the values of '{name}' are no list")
        elif not all(isinstance(given[end], int | float) for end in ("low", "high")):
            raise TypeError(f"the ends of '{name}' are no numbers")
        ranges[name] = given
    return ranges
