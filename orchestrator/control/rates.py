"""The first range of the learning rate, as a range test before the first stage found it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.space import Parameter
from orchestrator.space.parameter import show
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_as


def with_range_test(
    space: tuple[Parameter, ...], directory: SweepDirectory, name: str | None
) -> tuple[Parameter, ...]:
    """Return a space in which the parameter that was tested begins with the range that the test found.

    It is searched where the test's range and the declared one meet, and over the test's where they don't. A
    test that found none, or that failed in a sweep that goes on anyway, leaves the range as declared.

    Args:
        space: as declared.
        directory: the sweep's.
        name: of the parameter; None: nothing was tested.
    """
    if name is None or not directory.range_test.exists():
        return space
    return read_as(
        directory.range_test,
        lambda found: tuple(_begun(each, found) if each.name == name else each for each in space),
        "a range test",
    )


def _begun(parameter: Parameter, found: Mapping[str, Any]) -> Parameter:
    """Return a parameter between the bounds that were found, within what was declared where the two meet."""
    if found.get("low") is None or found.get("high") is None:
        return parameter
    least, most = parameter.limits
    low = max(found["low"], least or 0.0)
    high = found["high"] if most is None else min(found["high"], most)
    if not 0 < low < high:
        return parameter
    declared = parameter.span()
    rises = f"rises from {show(high)}" if found["exploded"] else f"still falls at {show(high)}"
    words = f"the range test's: the loss falls from {show(low)} on and {rises}; declared was {declared}"
    if low < parameter.high and high > parameter.low:
        low, high = max(low, parameter.low), min(high, parameter.high)
    return replace(parameter, low=low, high=high, reason=words)
