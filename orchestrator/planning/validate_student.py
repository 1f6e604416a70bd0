"""Checks of the students: what they are taught with, and the sizes that are tried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, nearest
from orchestrator.schema import SweepConfig, final_runs
from orchestrator.space import Parameter
from orchestrator.space.grammar import read_limits
from orchestrator.space.names import NOTHING, Names, names_of

_KEY = "ensemble.student"


def validate_student(config: SweepConfig, space: Sequence[Parameter], file: Path | str) -> None:
    """Check `ensemble.student`, where there is to be one.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    if not config.ensemble.student.enabled:
        return
    try:
        _numbers(config)
        _job(config)
        names = names_of(config, space)
        for name, values in config.ensemble.student.sizes.items():
            _size(config, names, str(name), values)
    except UserError as error:
        raise UserError(error.problem, file=file, key=error.key, hint=error.hint) from None


def _numbers(config: SweepConfig) -> None:
    student = config.ensemble.student
    for key, value in (("seeds", student.seeds), ("epochs", student.epochs)):
        if value is not None and value < 1:
            raise UserError(f"{value} is too few; the least is 1", key=f"{_KEY}.{key}")
    if not 0 < student.temperature < math.inf:
        raise UserError(
            f"{student.temperature:g} is not above 0", key=f"{_KEY}.temperature", hint="2 is usual"
        )
    if not 0 <= student.weight <= 1:
        raise UserError(
            f"{student.weight:g} is no share of the loss",
            key=f"{_KEY}.weight",
            hint="Write 0.9 for most of it",
        )
    if not 0 <= student.tolerance < math.inf:
        raise UserError(f"{student.tolerance:g} is below 0", key=f"{_KEY}.tolerance")


def _job(config: SweepConfig) -> None:
    """A student learns from an ensemble, and its function has to be told from which file."""
    key = f"{_KEY}.enabled"
    top, _ = final_runs(config.final)
    if not top:
        raise UserError("there are no final runs to learn from", key=key, hint="Say final.top=3")
    if config.jobs.predict is None:
        raise UserError(
            "the job has no `predict`, so there is no ensemble to learn from", key=key,
            hint="Name one: jobs.predict=my_train.predict",
        )  # fmt: skip
    for word in ("teacher", "epochs"):
        wanted = word == "teacher" or config.ensemble.student.epochs is not None
        if wanted and word not in config.jobs.scale:
            raise UserError(
                f"the job has no place for its students' {word}", key=key,
                hint=f"Name the key of its config under jobs.scale: {{{word}: ...}}",
            )  # fmt: skip


def _size(config: SweepConfig, names: Names, name: str, values: Any) -> None:
    key = f"{_KEY}.sizes.{name}"
    if not isinstance(values, list) or not values:
        raise UserError(f"{values!r} is no list of values", key=key, hint=f"Write {name}: [8, 16, 32]")
    if not names.exists(name) and name not in names.groups:
        raise UserError(
            f"'{name}' is not in the job's config", key=key, hint=nearest(name, names.everything())
        )
    if name in names.tied:
        raise UserError(
            f"'{name}' is computed: {names.tied[name]}", key=key, hint="Take what it is computed from"
        )
    if name in names.scaled:
        raise UserError(f"'{name}' is part of the scale, which is the final runs'", key=key)
    low, high = read_limits(config.jobs.limits.get(name), "", name)
    for value in values:
        if isinstance(value, dict | list):
            raise UserError(f"{value!r} is not one value", key=key)
        if name in names.groups and str(value) not in names.groups[name]:
            raise UserError(f"there is no '{value}'", key=key, hint=nearest(str(value), names.groups[name]))
        if isinstance(value, int | float) and not isinstance(value, bool) and not _inside(value, low, high):
            raise UserError(f"{value:g} is outside its limits [{low}, {high}]", key=key)
    default = names.fixed(name)
    if default is not NOTHING and isinstance(default, dict) and name not in names.groups:
        raise UserError(f"'{name}' is a group of the job's config, not one value", key=key)


def _inside(value: float, low: float | None, high: float | None) -> bool:
    return math.isfinite(value) and (low is None or value >= low) and (high is None or value <= high)
