"""The search space: its parameters, which of them a setting holds, its files, identity of a setting."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from orchestrator.space import expressions
from orchestrator.space.grammar import parse_parameter
from orchestrator.space.parameter import CHOICE, FLOAT, INT, Parameter, Value, show

__all__ = [
    "CHOICE", "FLOAT", "INT", "Parameter", "Value", "active", "advice", "from_json", "parse_parameter",
    "parse_space", "setting_id", "show", "to_json", "with_reason",
]  # fmt: skip


def parse_space(
    space: Mapping[str, Any], limits: Mapping[str, Any], file: Path | str
) -> tuple[Parameter, ...]:
    """Parse the `space` section alone; `conditions.declared_space` adds what makes parameters conditional.

    Args:
        space: dotted path to Hydra's sweep grammar as text, or to a list of choices.
        limits: hard limits [low, high] by dotted path.
        file: for messages.

    Raises:
        UserError: a range that is empty, reversed or not readable, or a logarithm over zero.
    """
    return tuple(parse_parameter(name, text, limits.get(name), file) for name, text in space.items())


def active(space: Sequence[Parameter], params: Mapping[str, Value]) -> dict[str, Value]:
    """Drop the parameters that don't exist in a setting.

    A condition that refers to a parameter that is not there, or that has no value (a division by zero), does
    not hold. Names that the space does not have are kept.

    Args:
        space: the parameters with their conditions.
        params: a value for each parameter.
    """
    conditions = {parameter.name: parameter.when for parameter in space if parameter.when}
    if not conditions:
        return dict(params)
    known: dict[str, bool] = {}

    def there(name: str) -> bool:
        if name not in known:
            known[name] = False  # what hangs on itself does not exist
            known[name] = name in params and (name not in conditions or holds(conditions[name]))
        return known[name]

    def lookup(name: str) -> Value:
        if not there(name):
            raise expressions.Absent(name)
        return params[name]

    def holds(condition: str) -> bool:
        try:
            return bool(expressions.parse(condition).value(lookup))
        except (expressions.Absent, expressions.ExpressionError):
            return False

    return {name: value for name, value in params.items() if there(name)}


def advice(space: Sequence[Parameter]) -> list[str]:
    """Warn of ranges that are probably meant otherwise: too wide for a linear scale, or of one value."""
    warnings = []
    for parameter in space:
        wide = parameter.low > 0 and parameter.high / parameter.low >= 1000
        if parameter.kind != CHOICE and not parameter.log and wide:
            written = (
                f"int(interval({parameter.low}, {parameter.high}))" if parameter.kind == INT
                else f"interval({parameter.low:g}, {parameter.high:g})"
            )  # fmt: skip
            warnings.append(
                f"{parameter.name}: a linear range over three decades or more puts nine of ten trials in the "
                f"last one; write tag(log, {written})"
            )
        if parameter.constant:
            value = show(parameter.values[0] if parameter.kind == CHOICE else parameter.low)
            warnings.append(f"{parameter.name}: has one value and is held fixed at {value}")
    return warnings


def setting_id(params: Mapping[str, Value]) -> str:
    """Return the identity of a setting: a hash of its parameters, the same in any process on any machine."""
    canonical = json.dumps(dict(params), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


def to_json(space: Sequence[Parameter], stage: str) -> dict[str, Any]:
    """Return a stage's ranges as the content of its space.json."""
    parameters = {}
    for parameter in space:
        keep = ("kind", "values", "ordered", "reason") if parameter.kind == CHOICE else (
            "kind", "low", "high", "log", "limits", "reason"
        )  # fmt: skip
        keep = (*keep, "when") if parameter.when else keep
        parameters[parameter.name] = {key: value for key, value in asdict(parameter).items() if key in keep}
    return {"stage": stage, "parameters": parameters}


def from_json(content: Mapping[str, Any]) -> tuple[Parameter, ...]:
    """Read a stage's ranges from the content of its space.json."""
    parameters = []
    for name, entry in content["parameters"].items():
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        parameters.append(Parameter(name=name, **values))
    return tuple(parameters)


def with_reason(parameter: Parameter, reason: str, **changes: Any) -> Parameter:
    """Return a parameter with a changed range and the reason for it."""
    return replace(parameter, reason=reason, **changes)
