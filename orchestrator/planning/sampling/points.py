"""Samplers that learn nothing: Sobol points, random points, grids, and all settings of a small space."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.space import CHOICE, FLOAT, INT, Parameter, Value

Setting = dict[str, Value]
# Gives so many further settings, each with a value for every parameter.
Draw = Callable[[int], list[Setting]]


def sobol(space: Sequence[Parameter], seed: int) -> Draw:
    """Scrambled Sobol points (Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points")."""
    from scipy.stats import qmc

    engine = qmc.Sobol(d=len(space), scramble=True, rng=seed)

    def draw(count: int) -> list[Setting]:
        with warnings.catch_warnings():
            # Balance needs a power of two; a stage has as many trials as the user can pay for.
            warnings.simplefilter("ignore", UserWarning)
            return _settings(space, engine.random(count))

    return draw


def random(space: Sequence[Parameter], seed: int) -> Draw:
    """Independent points, uniform in the transformed space.

    Optuna's RandomSampler draws from the same distribution, but keeps a record of each trial in a study: ten
    times slower and, at 100,000 trials, hundreds of megabytes.
    """
    generator = np.random.default_rng(seed)
    return lambda count: _settings(space, generator.random((count, len(space))))


def _settings(space: Sequence[Parameter], points: NDArray[np.float64]) -> list[Setting]:
    return [{p.name: p.from_unit(u) for p, u in zip(space, point, strict=True)} for point in points.tolist()]


def grid(space: Sequence[Parameter], count: int) -> Iterator[Setting]:
    """Give the points of a grid of at most `count` points, one at a time, so that memory stays bounded.

    Choices have all their values. Numbers begin at one level, the middle, and take turns in getting one more
    as long as the grid stays within the count. A grid of choices alone may be larger; then so many of its
    points are taken that every value of every choice comes up equally often, as in a Latin square.
    """
    levels = {p.name: len(p.values) if p.kind == CHOICE else 1 for p in space}
    growing = [p for p in space if p.kind != CHOICE and not p.constant]
    while growing:
        smallest = min(growing, key=lambda p: levels[p.name])
        larger = math.prod(levels.values()) // levels[smallest.name] * (levels[smallest.name] + 1)
        if larger > count or (smallest.kind == INT and levels[smallest.name] > smallest.high - smallest.low):
            growing.remove(smallest)
        else:
            levels[smallest.name] += 1
    axes = [_axis(p, levels[p.name]) for p in space]
    size = math.prod(map(len, axes))
    taken = min(size, count)
    for i in range(taken):
        digits = _digits(i * size // taken, axes)
        if taken < size:
            digits = _rotated(digits, axes)
        yield {p.name: axis[digit] for p, axis, digit in zip(space, axes, digits, strict=True)}


def _axis(parameter: Parameter, levels: int) -> list[Value]:
    if parameter.kind == CHOICE:
        return list(parameter.values)
    places = [0.5] if levels < 2 else [i / (levels - 1) for i in range(levels)]
    return list(dict.fromkeys(parameter.from_unit(place) for place in places))


def _digits(index: int, axes: Sequence[Sequence[Value]]) -> list[int]:
    digits = []
    for axis in reversed(axes):
        index, digit = divmod(index, len(axis))
        digits.append(digit)
    return digits[::-1]


def _rotated(digits: Sequence[int], axes: Sequence[Sequence[Value]]) -> list[int]:
    """Turn each axis by the places on the axes before it; without that an even step never leaves a value."""
    turned: list[int] = []
    for digit, axis in zip(digits, axes, strict=True):
        turned.append((digit + sum(turned)) % len(axis))
    return turned


def cardinality(space: Sequence[Parameter]) -> float:
    """Return how many full assignments a space has; infinite with a real number among its parameters."""
    if any(p.kind == FLOAT and not p.constant for p in space):
        return math.inf
    return math.prod(
        len(p.values) if p.kind == CHOICE else 1 if p.constant else int(p.high) - int(p.low) + 1
        for p in space
    )


def everything(space: Sequence[Parameter], seed: int) -> Iterator[Setting]:
    """Give every assignment of a finite space once, in a random order."""
    axes = [
        list(p.values) if p.kind == CHOICE
        else [p.from_unit(0.5)] if p.constant
        else list(range(int(p.low), int(p.high) + 1))
        for p in space
    ]  # fmt: skip
    order = np.random.default_rng(seed).permutation(math.prod(map(len, axes)))
    for index in order:
        digits = _digits(int(index), axes)
        yield {p.name: axis[digit] for p, axis, digit in zip(space, axes, digits, strict=True)}


def place_of(parameter: Parameter, value: Any) -> float | int:
    """Return where a value lies: the inverse of `Parameter.from_unit`, or a choice's number."""
    if parameter.kind == CHOICE:
        number = parameter.index(value)
        return (number + 0.5) / len(parameter.values) if parameter.ordered else number
    if parameter.kind == INT:
        low, high = parameter.transformed(parameter.low - 0.5), parameter.transformed(parameter.high + 0.5)
        return (parameter.transformed(value) - low) / (high - low)
    return min(max(parameter.to_unit(value), 0.0), 1.0)
