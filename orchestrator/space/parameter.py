"""One parameter: its range, the transformed space it is searched in, and when it is there at all."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

FLOAT, INT, CHOICE = "float", "int", "choice"
Value = float | int | str | bool | None
# The ends of what a float holds above zero.
SMALLEST, LARGEST = math.ulp(0.0), sys.float_info.max


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One parameter and the range that a stage searches.

    Numbers have `low` and `high` (both included) and `limits`, the hard limits that the range never moves
    past (None: none on that side); choices have `values`, whose order carries meaning when they are
    `ordered`. `when` is a condition, an expression over other parameters (empty: the parameter is always
    there). `reason` says in words why the range is this one.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    values: tuple[Value, ...] = ()
    limits: tuple[float | None, float | None] = (None, None)
    ordered: bool = False
    when: str = ""
    reason: str = "as declared"

    @property
    def constant(self) -> bool:
        """Say whether there is one value only, so that nothing is searched."""
        return len(self.values) == 1 if self.kind == CHOICE else self.low == self.high

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
        """Return the number at a place on the searched scale; beyond all that a float holds, the last one."""
        if self.log:
            return max(math.exp(min(transformed, math.log(LARGEST))), SMALLEST)
        return max(min(transformed, LARGEST), -LARGEST)

    def index(self, value: Value) -> int:
        """Return the number of a choice among the values, where 1, 1.0 and True are three.

        Raises:
            ValueError: it is none of them.
        """
        return [(type(other), other) for other in self.values].index((type(value), value))

    def contains(self, value: Value) -> bool:
        """Say whether a value lies in the range."""
        if self.kind == CHOICE:
            return (type(value), value) in [(type(other), other) for other in self.values]
        return isinstance(value, int | float) and self.low <= value <= self.high

    def describe(self) -> str:
        """Return the range for a person to read, and the condition under which the parameter is there."""
        return f"{self.span()}, only when {self.when}" if self.when else self.span()

    def span(self) -> str:
        """Return the range alone for a person to read."""
        shown = [show(value) for value in self.values]
        if self.kind == CHOICE and is_numeric(self.values):
            return "{" + ", ".join(shown) + "}" + ("" if self.ordered else " (no order)")
        if self.kind == CHOICE:
            # Of text, nobody can guess the order.
            return " < ".join(shown) if self.ordered and len(shown) > 1 else "{" + ", ".join(shown) + "}"
        if self.constant:
            return show(self.low)
        return f"{show(self.low)} … {show(self.high)}{' (log)' if self.log else ''}"


def is_numeric(values: tuple[Value, ...]) -> bool:
    """Say whether all choices are numbers; true and false are none."""
    return bool(values) and all(type(value) in (int, float) for value in values)


def show(value: Value) -> str:
    """Return a value as a person would write it."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)
