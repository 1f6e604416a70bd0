"""`start_from`: settings that somebody knows to be decent, a paper's say, tried first in the first stage."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.config import job_config
from orchestrator.errors import UserError, nearest
from orchestrator.schema import SweepConfig
from orchestrator.space import CHOICE, INT, Parameter, Value, active, setting_id, show

KEY = "start_from"


def read_start(entries: Sequence[Any], file: Path | str) -> list[dict[str, Any]]:
    """Return the mappings of `start_from`, those of the YAML files among its entries in their place.

    Args:
        entries: mappings, or paths of YAML files that hold a list of them; relative to the sweep file.
        file: the sweep file.

    Returns:
        Flat mappings: a nested one becomes dotted names, as in `space`.

    Raises:
        UserError: a file is not there or not YAML, or an entry is no mapping.
    """
    settings: list[dict[str, Any]] = []
    for number, entry in enumerate(entries):
        key = f"{KEY}.{number}"
        if not isinstance(entry, str):
            settings.append(_flat(entry, file, key))
            continue
        path = Path(file).resolve().parent / entry
        if not path.is_file():
            names = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
            raise UserError(f"there is no file '{entry}'", file=file, key=key, hint=nearest(path.name, names))
        try:
            content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
        except Exception as error:
            raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", file=path) from None
        if not isinstance(content, list):
            raise UserError("is no list of settings", file=path, hint="Write - {lr: 0.1}, a line for each")
        settings += [_flat(item, path, str(place)) for place, item in enumerate(content)]
    return settings


def starting_settings(
    config: SweepConfig, space: Sequence[Parameter], file: Path | str
) -> list[dict[str, Value]]:
    """Return the settings that the first stage tries first, each once.

    What a setting does not name is as in the job's own config where that lies in the range, and else in the
    middle of the range. A value may lie outside the range, up to the hard limits: it is tried all the same.

    Args:
        config: the sweep.
        space: its parameters, as declared.
        file: for messages, and where relative paths start.

    Raises:
        UserError: an entry is not readable, names no parameter, or has a value that can't be.
    """
    usual = usual_values(config, space)
    settings: dict[str, dict[str, Value]] = {}
    for number, given in enumerate(read_start(config.start_from, file)):
        whole = dict(usual)
        for name, value in given.items():
            key = f"{KEY}.{number}.{name}"
            whole[name] = _checked(_parameter(space, name, file, key), value, file, key)
        setting = active(space, whole)
        for name in given.keys() - setting.keys():
            condition = next(p.when for p in space if p.name == name)
            raise UserError(
                f"does not exist in this setting: it is there only when {condition}",
                file=file, key=f"{KEY}.{number}.{name}", hint="Leave it out",
            )  # fmt: skip
        settings.setdefault(setting_id(setting), setting)
    return list(settings.values())


def usual_values(config: SweepConfig, space: Sequence[Parameter]) -> dict[str, Value]:
    """Return what a parameter is when nobody says: as in the job's own config, or else the middle."""
    return {p.name: middle(p) for p in space} | own_values(config, space)


def own_values(config: SweepConfig, space: Sequence[Parameter]) -> dict[str, Value]:
    """Return the values in the job's own config, those that lie in their parameter's range."""
    node = job_config(config)
    values = {p: OmegaConf.select(node, p.name, throw_on_resolution_failure=False) for p in space}
    return {p.name: own for p, own in values.items() if _is_kind(p, own) and p.contains(own)}


def middle(parameter: Parameter) -> Value:
    """Return the middle of a range; the first of choices without order, which have none."""
    return parameter.from_unit(0.0 if parameter.kind == CHOICE and not parameter.ordered else 0.5)


def _flat(entry: Any, file: Path | str, key: str, prefix: str = "") -> dict[str, Any]:
    if OmegaConf.is_config(entry):
        entry = OmegaConf.to_container(entry, resolve=True)
    if not isinstance(entry, Mapping) or not entry:
        raise UserError(f"{entry!r} is no setting", file=file, key=key, hint="Write a mapping: {lr: 0.1}")
    flat: dict[str, Any] = {}
    for name, value in entry.items():
        path = f"{prefix}{name}"
        flat |= _flat(value, file, key, f"{path}.") if isinstance(value, Mapping) else {path: value}
    return flat


def _parameter(space: Sequence[Parameter], name: str, file: Path | str, key: str) -> Parameter:
    for parameter in space:
        if parameter.name == name:
            return parameter
    raise UserError("is not in the space", file=file, key=key, hint=nearest(name, [p.name for p in space]))


def _is_kind(parameter: Parameter, value: Any) -> bool:
    if parameter.kind == CHOICE:
        return True
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return number and (parameter.kind != INT or value == int(value))


def _checked(parameter: Parameter, value: Any, file: Path | str, key: str) -> Value:
    """Return a value in the parameter's own type."""
    if parameter.kind == CHOICE:
        if not parameter.contains(value):
            hint = nearest(str(value), [show(other) for other in parameter.values])
            raise UserError(f"{value!r} is none of the choices", file=file, key=key, hint=hint)
        chosen: Value = value
        return chosen
    if not _is_kind(parameter, value):
        kind = "a whole number" if parameter.kind == INT else "a number"
        raise UserError(f"{value!r} is not {kind}", file=file, key=key)
    low, high = parameter.limits
    if (low is not None and value < low) or (high is not None and value > high):
        sides = " … ".join("" if side is None else show(side) for side in parameter.limits).strip()
        raise UserError(
            f"{show(value)} lies past the hard limits {sides}", file=file, key=key,
            hint=f"Limits are set in jobs.limits.{parameter.name}",
        )  # fmt: skip
    if parameter.log and value <= 0:
        raise UserError(f"{show(value)} has no place on a logarithmic scale", file=file, key=key)
    return int(value) if parameter.kind == INT else float(value)
