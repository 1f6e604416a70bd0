"""Settings at which expressions are tried before anything runs: the ends of ranges, and all choices."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterable, Iterator, Sequence

from orchestrator.space.parameter import CHOICE, INT, Parameter, Value


def corners(
    space: Sequence[Parameter], most: int, thresholds: Iterable[float] = ()
) -> Iterator[dict[str, Value]]:
    """Yield settings: all combinations of telling values, or `most` of them drawn in a fixed order.

    Args:
        space: the parameters; conditions are not looked at.
        most: how many settings at the most.
        thresholds: numbers at which something changes; those in a range, and their neighbours, are tried.
    """
    thresholds = list(thresholds)
    axes = [_telling(parameter, thresholds) for parameter in space]
    names = [parameter.name for parameter in space]
    if math.prod(map(len, axes)) <= most:
        yield from (dict(zip(names, point, strict=True)) for point in itertools.product(*axes))
        return
    drawn = random.Random(0)
    for number in range(most):
        # Every other one anywhere in the ranges, so that a narrow region between the ends is met too.
        inner = number % 2 == 1
        yield {
            parameter.name: parameter.from_unit(drawn.random()) if inner else drawn.choice(axis)
            for parameter, axis in zip(space, axes, strict=True)
        }


def _telling(parameter: Parameter, thresholds: Sequence[float]) -> list[Value]:
    if parameter.kind == CHOICE:
        return list(parameter.values)
    values: list[float] = [parameter.low, parameter.high]
    for threshold in thresholds:
        if parameter.kind == INT and math.isfinite(threshold):
            values += [math.floor(threshold) + step for step in (-1, 0, 1)]
        else:
            values += [threshold, math.nextafter(threshold, -math.inf), math.nextafter(threshold, math.inf)]
    inside = [value for value in values if parameter.low <= value <= parameter.high]
    return list(dict.fromkeys([*inside, parameter.from_unit(0.5)]))
