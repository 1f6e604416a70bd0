"""Parameters and ranges: parsing Hydra's sweep grammar, the transformed space, identity of a setting."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError

FLOAT, INT, CHOICE = "float", "int", "choice"
Value = float | int | str | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter and the range that a stage searches.

    Numbers have `low` and `high` (both included) and `limits`, the hard limits that the range never moves
    past (None: none on that side); choices have `values`. `reason` says in words why the range is this one.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    values: tuple[Value, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    reason: str = "as declared"

    def to_unit(self, value: float) -> float:
        """Place a number in the transformed space: 0 at `low`, 1 at `high`, beyond them outside."""
        low, high = self.transformed(self.low), self.transformed(self.high)
        return 0.5 if high == low else (self.transformed(value) - low) / (high - low)

    def from_unit(self, unit: float) -> Value:
        """Return the value at a place in the transformed space; for choices, one of equal parts of [0, 1]."""
        if self.kind == CHOICE:
            return self.values[min(int(unit * len(self.values)), len(self.values) - 1)]
        if self.kind == INT:
            # Whole numbers share the range equally: the first and the last have as much of it as the others.
            low, high = self.transformed(self.low - 0.5), self.transformed(self.high + 0.5)
            value = round(self.at(low + unit * (high - low)))
            return int(min(max(value, self.low), self.high))
        low, high = self.transformed(self.low), self.transformed(self.high)
        return min(max(self.at(low + unit * (high - low)), self.low), self.high)

    def transformed(self, value: float) -> float:
        """Return a number on the scale that is searched: its logarithm, or itself."""
        return math.log(value) if self.log else float(value)

    def at(self, transformed: float) -> float:
        """Return the number at a place on the searched scale."""
        return math.exp(transformed) if self.log else transformed

    def contains(self, value: Value) -> bool:
        """Say whether a value lies in the range."""
        if self.kind == CHOICE:
            return (type(value), value) in [(type(other), other) for other in self.values]
        return isinstance(value, int | float) and self.low <= value <= self.high

    def describe(self) -> str:
        """Return the range for a person to read."""
        if self.kind == CHOICE:
            return "{" + ", ".join(show(value) for value in self.values) + "}"
        return f"{show(self.low)} … {show(self.high)}{' (log)' if self.log else ''}"


def show(value: Value) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def parse_space(
    space: Mapping[str, Any], limits: Mapping[str, Any], file: Path | str
) -> tuple[Parameter, ...]:
    """Parse the `space` section.

    Args:
        space: dotted path to Hydra's sweep grammar as text, or to a list of choices.
        limits: hard limits [low, high] by dotted path.
        file: for messages.

    Raises:
        UserError: a range that is empty, reversed or not readable, or a logarithm over zero.
    """
    return tuple(parse_parameter(name, text, limits.get(name), file) for name, text in space.items())


def parse_parameter(name: str, declared: Any, limits: Any, file: Path | str) -> Parameter:
    """Parse one parameter of the `space` section; see `parse_space`."""
    key = f"space.{name}"

    def wrong(problem: str, hint: str = "") -> UserError:
        return UserError(problem, file=file, key=key, hint=hint)

    if declared is None or declared == "":
        raise wrong("has no range", "Write interval(low, high), choice(a, b) or a value to hold it fixed")
    if isinstance(declared, list | tuple):
        return _choices(name, declared, wrong)
    if not isinstance(declared, str):
        return _choices(name, [declared], wrong)
    element, tags = _parse_grammar(declared, wrong)
    kind = type(element).__name__
    if kind == "IntervalSweep":
        return _interval(name, element, tags, _limits(limits, file, name), wrong)
    if kind == "RangeSweep":
        return _choices(name, list(element.range()), wrong)
    if kind == "ChoiceSweep":
        return _choices(name, element.list, wrong)
    return _choices(name, element if isinstance(element, list) else [element], wrong)


def _parse_grammar(text: str, wrong: Any) -> tuple[Any, set[str]]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        element = OverridesParser.create().parse_override(f"parameter={text}").value()
    except HydraException as error:
        reason = str(error).split("\n")[0]
        raise wrong(
            f"'{text}' is not in Hydra's sweep grammar ({reason})",
            "Write interval(1e-4, 1), tag(log, interval(1e-4, 1)), int(interval(1, 9)) or choice(a, b)",
        ) from None
    return element, set(getattr(element, "tags", ()))


def _choices(name: str, items: Sequence[Any], wrong: Any) -> Parameter:
    values: list[Value] = []
    for item in items:
        value = item.text if type(item).__name__ == "QuotedString" else item
        if value is not None and not isinstance(value, int | float | str | bool):
            raise wrong("a choice is a number, text, true, false or null; not a list, mapping or pattern")
        if (type(value), value) not in [(type(other), other) for other in values]:
            values.append(value)
    if not values:
        raise wrong("an empty list of choices")
    return Parameter(name=name, kind=CHOICE, values=tuple(values))


def _interval(
    name: str, element: Any, tags: set[str], limits: tuple[float | None, float | None], wrong: Any
) -> Parameter:
    low, high = element.start, element.end
    if not (math.isfinite(low) and math.isfinite(high)):
        raise wrong(f"interval({low}, {high}) is not finite")
    if low > high:
        raise wrong(f"interval({show(low)}, {show(high)}) is reversed", f"Write interval({high:g}, {low:g})")
    if low == high:
        raise wrong(f"interval({show(low)}, {show(high)}) is empty", f"Write {low:g} to hold it fixed")
    log = "log" in tags
    if log and low <= 0:
        raise wrong(f"a logarithm over {show(low)}", "Begin a log range above zero, or leave out the log tag")
    integer = isinstance(low, int) and isinstance(high, int)
    given = (
        limits[0] if limits[0] is not None else -math.inf,
        limits[1] if limits[1] is not None else math.inf,
    )
    if low < given[0] or high > given[1]:
        raise wrong(
            f"{show(low)} … {show(high)} reaches past its hard limits {show(given[0])} … {show(given[1])}"
        )
    return Parameter(
        name=name, kind=INT if integer else FLOAT, low=low, high=high, log=log,
        limits=_natural_limits(low, high, log, integer, limits),
    )  # fmt: skip


def _natural_limits(
    low: float, high: float, log: bool, integer: bool, limits: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Add the limits that go without saying: no change of sign, and a share stays a share.

    A range that starts at or above zero belongs to a quantity that is not negative (a rate, a count, a
    penalty), and a linear one inside [0, 1] to a probability or a share.
    """
    floor, ceiling = limits
    if floor is None and low >= 0:
        floor = (1.0 if low >= 1 else 0.0) if integer else 0.0
    if ceiling is None and not log and not integer and low >= 0 and high <= 1:
        ceiling = 1.0
    return floor, ceiling


def _limits(declared: Any, file: Path | str, name: str) -> tuple[float | None, float | None]:
    if declared is None:
        return None, None
    valid = isinstance(declared, list | tuple) and len(declared) == 2
    if not valid or not all(side is None or isinstance(side, int | float) for side in declared):
        raise UserError(
            "limits are two numbers [low, high], null for none", file=file, key=f"jobs.limits.{name}"
        )
    return declared[0], declared[1]


def advice(space: Sequence[Parameter]) -> list[str]:
    """Warn of ranges that are probably meant otherwise (a linear range over three decades)."""
    warnings = []
    for parameter in space:
        wide = parameter.low > 0 and parameter.high / parameter.low >= 1000
        if parameter.kind != CHOICE and not parameter.log and wide:
            warnings.append(
                f"{parameter.name}: a linear range over three decades or more puts nine of ten trials in the "
                f"last one; write tag(log, interval({parameter.low:g}, {parameter.high:g}))"
            )
    return warnings


def setting_id(params: Mapping[str, Value]) -> str:
    """Return the identity of a setting: a hash of its parameters, the same in any process on any machine."""
    canonical = json.dumps(dict(params), sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(canonical.encode(), digest_size=6).hexdigest()


def to_json(space: Sequence[Parameter], stage: str) -> dict[str, Any]:
    """Return a stage's ranges as the content of its space.json."""
    parameters = {}
    for parameter in space:
        keep = ("kind", "values", "reason") if parameter.kind == CHOICE else (
            "kind", "low", "high", "log", "limits", "reason"
        )  # fmt: skip
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
