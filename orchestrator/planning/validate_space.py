"""Checks of the search space against the job's config: each name has a place, each tie has a value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config import job_config
from orchestrator.errors import UserError, nearest
from orchestrator.schema import SweepConfig
from orchestrator.space import active
from orchestrator.space.conditions import relatives, unknown
from orchestrator.space.corners import corners
from orchestrator.space.expressions import Expression
from orchestrator.space.grammar import read_limits
from orchestrator.space.names import NOTHING, Names, at, names_of, options
from orchestrator.space.parameter import CHOICE, Parameter, Value, show
from orchestrator.space.ties import ordered_ties, write_options, write_ties, write_values

MOST_TRIED = 64  # settings; each builds a whole config


def validate_space(config: SweepConfig, space: tuple[Parameter, ...], file: Path | str) -> None:
    """Check parameters, limits and ties before anything is written or submitted.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    if not space:
        raise UserError("nothing varies", file=file, key="space", hint="Give at least one parameter a range")
    if all(parameter.constant for parameter in space):
        raise UserError(
            "nothing varies: every parameter has one value", file=file, key="space",
            hint="Give at least one parameter a range",
        )  # fmt: skip
    for parameter in space:
        if not is_name(parameter.name):
            raise UserError(f"{parameter.name!r} is no parameter's name", file=file, key="space")
    names = names_of(config, space)
    try:
        ties = ordered_ties(config.tied)
        for path, expression in ties.items():
            _check_tie(path, expression, names)
        _check_places(config, names, {name for tie in ties.values() for name in tie.names})
        _check_values(config, space, ties)
    except UserError as error:
        raise UserError(error.problem, file=file, key=error.key, hint=error.hint) from None


def is_name(text: str) -> bool:
    """Say whether something can be called so: in one line, and not by nothing."""
    return bool(text.strip()) and not re.search(r"[\x00-\x1f\x7f-\x9f]", text)


def _check_places(config: SweepConfig, names: Names, used: set[str]) -> None:
    """Each parameter and each limit belongs to a key of the job's config, or serves a tie."""
    for name in names.space:
        here = names.in_options(name) or {"": names.fixed(name)}
        inner = [key for content in here.values() if isinstance(content, dict) for key in content]
        if name in names.groups:
            continue
        if inner:
            raise UserError(
                "is a group of the job's config, not one value", key=f"space.{name}",
                hint="In it: " + ", ".join(f"{name}.{key}" for key in dict.fromkeys(inner))
                + f". To choose between whole groups, give their options under jobs.groups.{name}",
            )  # fmt: skip
        if not names.exists(name) and name not in used:
            own = [known for known in names.everything() if names.exists(known)]
            raise UserError("is not in the job's config", key=f"space.{name}", hint=nearest(name, own))
    for name, limits in config.jobs.limits.items():
        read_limits(limits, "", name)
        known = names.exists(name) or name in names.space or at(names.job, name) is not NOTHING
        if not known:
            raise UserError(
                "is not in the job's config", key=f"jobs.limits.{name}",
                hint=nearest(name, names.everything()),
            )  # fmt: skip


def _check_tie(path: str, expression: Expression, names: Names) -> None:
    key = f"tied.{path}"
    if path in names.space:
        raise UserError("is in the space too, and can't be both searched and computed", key=key)
    if path in names.scaled:
        raise UserError("is what each stage sets, so it can't be computed", key=key)
    if not names.exists(path):
        own = [known for known in names.everything() if names.exists(known)]
        raise UserError("is not in the job's config", key=key, hint=nearest(path, own))
    for content in [*names.in_options(path).values(), names.fixed(path)]:
        if isinstance(content, dict):
            raise UserError("is a group of the job's config, not one value", key=key)
    for name in expression.names:
        if name not in names.space and name not in names.tied and not names.exists(name):
            error = unknown(name, names)
            raise UserError(error.problem, key=key, hint=error.hint)


def _check_values(config: SweepConfig, space: Sequence[Parameter], ties: dict[str, Expression]) -> None:
    """Compute the ties where the ranges end: what goes wrong somewhere mostly goes wrong there."""
    needed = _needed(config, space, ties)
    for setting in corners(needed, MOST_TRIED) if ties else ():
        params = active(space, setting)
        node = job_config(config)
        write_options(node, config, params)
        write_values(node, config, params)
        write_ties(node, config, params)
        for path in ties:
            _check_limits(config, path, node, params)


def _needed(config: SweepConfig, space: Sequence[Parameter], ties: dict[str, Expression]) -> list[Parameter]:
    """Return the parameters that ties depend on, near or far, and those that choose groups."""
    names = {name for tie in ties.values() for name in tie.names}
    wanted = [p for p in space if p.name in names or (p.kind == CHOICE and options(config, p.name))]
    above = {other.name for parameter in wanted for other in relatives(parameter.name, space)}
    return [parameter for parameter in space if parameter.name in above]


def _check_limits(config: SweepConfig, path: str, node: object, params: dict[str, Value]) -> None:
    """A tie obeys the hard limits of what it computes."""
    low, high = config.jobs.limits.get(path) or (None, None)
    try:
        value = OmegaConf.select(node, path)  # type: ignore[arg-type]
    except OmegaConfBaseException:
        return
    if not isinstance(value, int | float):
        return
    if (low is not None and value < low) or (high is not None and value > high):
        where = ", ".join(f"{name} {show(param)}" for name, param in params.items())
        bounds = f"{show(low) if low is not None else '…'} to {show(high) if high is not None else '…'}"
        raise UserError(f"is {show(value)} at {where}, past its hard limits {bounds}", key=f"tied.{path}")
