"""The first range of the learning rate, as a range test before the first stage found it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.space import Parameter
from orchestrator.space.parameter import show
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json


def with_range_test(
    space: tuple[Parameter, ...], directory: SweepDirectory, name: str | None
) -> tuple[Parameter, ...]:
    """Return a space in which the parameter that was tested begins with the range that the test found.

    A test that found none, or that failed in a sweep that goes on anyway, leaves the range as declared.

    Args:
        space: as declared.
        directory: the sweep's.
        name: of the parameter; None: nothing was tested.
    """
    if name is None or not directory.range_test.exists():
        return space
    found = read_json(directory.range_test)
    if found.get("low") is None or found.get("high") is None:
        return space
    return tuple(
        _begun(each, found["low"], found["high"], found["best"]) if each.name == name else each
        for each in space
    )


def _begun(parameter: Parameter, low: float, high: float, best: float) -> Parameter:
    least, most = parameter.limits
    low = low if least is None else max(low, least)
    high = high if most is None else min(high, most)
    declared = parameter.span()
    if not 0 < low < high:
        return replace(
            parameter, reason=f"as declared; the range test's {show(low)} … {show(high)} is no range"
        )
    reason = (
        f"the range test's: the loss begins to fall at {show(low)} and to rise at {show(high)}, "
        f"the best may be near {show(best)}; declared was {declared}"
    )
    return replace(parameter, low=low, high=high, reason=reason)
