"""Hydra's sweep grammar, read as parameters."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, nearest
from orchestrator.space.parameter import CHOICE, FLOAT, INT, Parameter, Value, is_numeric, show

MOST_CHOICES = 10_000
_TAGS = {"IntervalSweep": ("log",), "ChoiceSweep": ("ordered", "unordered")}
_FORMS = "Write interval(1e-4, 1), tag(log, interval(1e-4, 1)), int(interval(1, 9)) or choice(a, b)"
Limits = tuple[float | None, float | None]


def parse_parameter(name: str, declared: Any, limits: Any, file: Path | str) -> Parameter:
    """Parse one entry of the `space` section.

    Args:
        name: its dotted path.
        declared: text in Hydra's grammar, a list of choices, or one value.
        limits: hard limits [low, high], or None.
        file: for messages.

    Raises:
        UserError: a range that is empty, reversed or not readable, or a logarithm over zero.
    """
    key = f"space.{name}"

    def wrong(problem: str, hint: str = "") -> UserError:
        return UserError(problem, file=file, key=key, hint=hint)

    bounds = read_limits(limits, file, name)
    if declared is None or declared == "":
        raise wrong("has no range", "Write interval(low, high), choice(a, b) or a value to hold it fixed")
    if isinstance(declared, dict):
        inner = next(iter(declared), "name")
        raise wrong("is a mapping, not a range", f"Write interval(low, high), or {name}.{inner}: ...")
    if isinstance(declared, list | tuple):
        return _choices(name, declared, set(), bounds, wrong)
    if not isinstance(declared, str):
        return _choices(name, [declared], set(), bounds, wrong)
    element = _parse_grammar(declared, wrong)
    kind, tags = type(element).__name__, set(getattr(element, "tags", ()))
    if not tags and re.search(r"\btag\(", re.sub(r"'[^']*'|\"[^\"]*\"", "", declared)):
        # Hydra's casts of choices drop what they are tagged with.
        raise wrong("a cast takes the tag away", "Put the cast inside: tag(ordered, int(choice(1, 2)))")
    valid = _TAGS.get(kind.replace("Range", "Choice"), ())
    if unknown := sorted(tags - {*valid}):
        what = "an interval" if kind == "IntervalSweep" else "choices"
        raise wrong(f"the tag '{unknown[0]}' means nothing for {what}", nearest(unknown[0], valid))
    if kind == "IntervalSweep":
        return _interval(name, element, tags, bounds, wrong)
    if kind == "RangeSweep":
        return _choices(name, _steps(element, wrong), tags, bounds, wrong)
    if kind == "ChoiceSweep":
        return _choices(name, element.list, tags, bounds, wrong)
    if kind == "Glob":
        raise wrong("a pattern names no choices", "Write them out: choice(a, b)")
    return _choices(name, element if isinstance(element, list) else [element], tags, bounds, wrong)


def _parse_grammar(text: str, wrong: Callable[..., UserError]) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        return OverridesParser.create().parse_override(f"parameter={text}").value()
    except Exception as error:
        # Besides its own errors Hydra lets through what its casts raise, of many types.
        reason = str(error).split("\n")[0] or type(error).__name__
        raise wrong(f"'{text}' is not in Hydra's sweep grammar ({reason})", _FORMS) from None


def _steps(element: Any, wrong: Callable[..., UserError]) -> list[float]:
    """List the numbers of a range; in decimals, so that 0.1 steps to 0.2 and 0.3."""
    start, stop, step = element.start, element.stop, element.step
    written = f"range({start}, {stop}, {step})" if step != 1 else f"range({start}, {stop})"
    if not all(math.isfinite(number) for number in (start, stop, step)):
        raise wrong(f"{written} is not finite")
    if step == 0:
        raise wrong(f"{written} never moves on", "Give a step above zero")
    count = math.ceil((Decimal(str(stop)) - Decimal(str(start))) / Decimal(str(step)))
    if count <= 0:
        reversed_ = f"range({stop}, {start}{'' if abs(step) == 1 else f', {abs(step)}'})"
        same = start == stop
        raise wrong(
            f"{written} is {'empty' if same else 'reversed'}",
            f"Write {start} to hold it fixed" if same else f"Write {reversed_}",
        )
    if count > MOST_CHOICES:
        whole = all(isinstance(number, int) for number in (start, stop, step))
        interval = f"interval({start}, {stop - 1 if whole else stop})"
        raise wrong(f"{written} are {count:,} choices", f"Write {f'int({interval})' if whole else interval}")
    if all(isinstance(number, int) for number in (start, stop, step)):
        return list(range(start, stop, step))
    return [float(Decimal(str(start)) + place * Decimal(str(step))) for place in range(count)]


def _choices(
    name: str, items: Sequence[Any], tags: set[str], limits: Limits, wrong: Callable[..., UserError]
) -> Parameter:
    values: list[Value] = []
    for item in items:
        if not _is_plain(item):
            raise wrong(
                "several ranges are not one, nor is a range one of several choices",
                "Write one range, like interval(1, 30), or choice(a, b)",
            )
        value = choice_value(item)
        if isinstance(value, float) and math.isnan(value):
            raise wrong("nan is not a value to choose")
        if (type(value), value) not in [(type(other), other) for other in values]:
            values.append(value)
    if not values:
        raise wrong("an empty list of choices")
    if {"ordered", "unordered"} <= tags:
        raise wrong("is tagged both ordered and unordered")
    numeric = is_numeric(tuple(values))
    if numeric and not tags:
        values.sort(key=_number)
    if numeric:
        _check_limits(min(map(_number, values)), max(map(_number, values)), limits, wrong)
    return Parameter(
        name=name, kind=CHOICE, values=tuple(values),
        ordered="ordered" in tags or (numeric and "unordered" not in tags),
    )  # fmt: skip


def _is_plain(item: Any) -> bool:
    """Say whether a choice has none of Hydra's ranges in it."""
    if isinstance(item, list | tuple):
        return all(map(_is_plain, item))
    if isinstance(item, dict):
        return all(map(_is_plain, item.values()))
    return item is None or isinstance(item, str | int | float) or type(item).__name__ == "QuotedString"


def choice_value(item: Any) -> Value:
    """Return a choice as a setting holds it: lists and mappings by their JSON text (see `groups.options`)."""
    plain = plain_choice(item)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, list | dict) else plain


def plain_choice(item: Any) -> Any:
    """Return a choice without Hydra's own types in it."""
    if isinstance(item, list | tuple):
        return [plain_choice(part) for part in item]
    if isinstance(item, dict):
        return {str(plain_choice(key)): plain_choice(part) for key, part in item.items()}
    return item.text if type(item).__name__ == "QuotedString" else item


def list_choices(declared: Any) -> list[Any]:
    """Return those choices of one entry of `space` that are lists or mappings.

    What is not readable has none: `parse_parameter` says what is wrong with it.
    """
    items: Any = declared
    if isinstance(declared, str):
        try:
            element = _parse_grammar(declared, lambda problem, hint: UserError(problem, hint=hint))
        except UserError:
            return []
        items = getattr(element, "list", element) if type(element).__name__ == "ChoiceSweep" else element
    if not isinstance(items, list):
        return []
    return [plain for plain in map(plain_choice, items) if isinstance(plain, list | dict)]


def _number(value: Value) -> float:
    assert isinstance(value, int | float)
    return value


def _interval(
    name: str, element: Any, tags: set[str], limits: Limits, wrong: Callable[..., UserError]
) -> Parameter:
    low, high = element.start, element.end
    if not (math.isfinite(low) and math.isfinite(high)):
        raise wrong(f"interval({low}, {high}) is not finite")
    if low > high:
        raise wrong(f"interval({show(low)}, {show(high)}) is reversed", f"Write interval({high:g}, {low:g})")
    if not math.isfinite(float(high) - float(low)):
        raise wrong(f"interval({low:g}, {high:g}) is too wide to compute with", "Write ends closer to zero")
    log = "log" in tags
    if log and low <= 0:
        raise wrong(f"a logarithm over {show(low)}", "Begin a log range above zero, or leave out the log tag")
    integer = isinstance(low, int) and isinstance(high, int)
    _check_limits(low, high, limits, wrong)
    return Parameter(
        name=name, kind=INT if integer else FLOAT, low=low, high=high, log=log,
        limits=_natural_limits(low, high, log, integer, limits),
    )  # fmt: skip


def _check_limits(low: float, high: float, limits: Limits, wrong: Callable[..., UserError]) -> None:
    floor = limits[0] if limits[0] is not None else -math.inf
    ceiling = limits[1] if limits[1] is not None else math.inf
    if low < floor or high > ceiling:
        raise wrong(
            f"{show(low)} … {show(high)} reaches past its hard limits {show(floor)} … {show(ceiling)}"
        )


def _natural_limits(low: float, high: float, log: bool, integer: bool, limits: Limits) -> Limits:
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


def read_limits(declared: Any, file: Path | str, name: str) -> Limits:
    """Read the hard limits of one parameter, `jobs.limits.NAME`.

    Raises:
        UserError: they are not two numbers in their order.
    """
    if declared is None:
        return None, None

    def wrong(problem: str, hint: str = "") -> UserError:
        return UserError(problem, file=file, key=f"jobs.limits.{name}", hint=hint)

    def is_side(side: Any) -> bool:
        return side is None or (type(side) in (int, float) and not math.isnan(side))

    if not isinstance(declared, list | tuple) or len(declared) != 2 or not all(map(is_side, declared)):
        raise wrong("limits are two numbers [low, high], null for none")
    low, high = declared
    if low is not None and high is not None and low > high:
        raise wrong(f"[{low:g}, {high:g}] is reversed", f"Write [{high:g}, {low:g}]")
    return low, high
