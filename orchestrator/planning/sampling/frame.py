"""The model's coordinates: settings as rows of numbers, the same for all stages, however ranges narrow."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.planning.sampling.gaussian import Floats
from orchestrator.space import CHOICE, INT, Parameter, active

# Stands for the value of a parameter that a setting lacks.
ABSENT = object()
# Two values of a choice without order are as far from each other as this share of a number's range.
APART = 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """Where settings lie: numbers by the ends of all that was searched, choices by all their values.

    Attributes:
        space: the parameters.
        ends: of each number, the ends in the transformed space.
        values: of each choice, with their types (1, 1.0 and True are three).
    """

    space: tuple[Parameter, ...]
    ends: Mapping[str, tuple[float, float]]
    values: Mapping[str, tuple[tuple[type, Any], ...]]

    @property
    def groups(self) -> NDArray[np.int64]:
        """For each feature the number of its parameter."""
        widths = [len(self.values[p.name]) if p.kind == CHOICE and not p.ordered else 1 for p in self.space]
        return np.repeat(np.arange(len(self.space)), widths)

    def features(self, settings: Sequence[Mapping[str, Any]]) -> Floats:
        """Return settings as rows of numbers, (n, d); a parameter that one lacks stands in the middle."""
        columns: list[Floats] = []
        for parameter in self.space:
            given = [setting.get(parameter.name, ABSENT) for setting in settings]
            if parameter.kind == CHOICE:
                values = self.values[parameter.name]
                index = [-1 if v is ABSENT else values.index((type(v), v)) for v in given]
                columns.append(self._choices(parameter, np.array(index)))
            else:
                places = [math.nan if v is ABSENT else parameter.transformed(v) for v in given]
                columns.append(self._numbers(parameter, np.array(places)))
        return np.hstack(columns)

    def features_at(self, space: Sequence[Parameter], places: Floats) -> Floats:
        """Return the features (n, d) of places (n, parameters) in the unit cube of ranges.

        The same as `features` of the settings there, without making each of them.
        """
        if any(parameter.when for parameter in space):
            settings = [
                active(space, {p.name: p.from_unit(float(u)) for p, u in zip(space, row, strict=True)})
                for row in places
            ]
            return self.features(settings)
        columns: list[Floats] = []
        for parameter, unit in zip(space, places.T, strict=True):
            if parameter.kind == CHOICE:
                known = self.values[parameter.name]
                where = np.array([known.index((type(value), value)) for value in parameter.values])
                last = len(parameter.values) - 1
                columns.append(
                    self._choices(parameter, where[np.minimum((unit * (last + 1)).astype(int), last)])
                )
            else:
                columns.append(self._numbers(parameter, _transformed(parameter, unit)))
        return np.hstack(columns)

    def _choices(self, parameter: Parameter, index: NDArray[np.int64]) -> Floats:
        values = self.values[parameter.name]
        if parameter.ordered:
            return np.where(index < 0, 0.5, index / max(1, len(values) - 1))[:, None]
        return np.asarray(APART * (index[:, None] == np.arange(len(values))))

    def _numbers(self, parameter: Parameter, transformed: Floats) -> Floats:
        low, high = self.ends[parameter.name]
        return np.where(np.isnan(transformed), 0.5, (transformed - low) / (high - low))[:, None]


def frame_of(space: Sequence[Parameter], settings: Sequence[Mapping[str, Any]]) -> Frame:
    """Return the frame that holds the ranges and all settings, those outside the ranges too."""
    ends: dict[str, tuple[float, float]] = {}
    values: dict[str, tuple[tuple[type, Any], ...]] = {}
    for parameter in space:
        seen = [setting[parameter.name] for setting in settings if parameter.name in setting]
        if parameter.kind == CHOICE:
            listed = list(dict.fromkeys((type(value), value) for value in (*parameter.values, *seen)))
            if parameter.ordered and all(kind in (int, float) for kind, _ in listed):
                listed.sort(key=lambda pair: float(pair[1]))
            values[parameter.name] = tuple(listed)
        else:
            places = [parameter.transformed(value) for value in (parameter.low, parameter.high, *seen)]
            ends[parameter.name] = (min(places), max(max(places), min(places) + 1e-9))
    return Frame(space=tuple(space), ends=ends, values=values)


def _transformed(parameter: Parameter, unit: Floats) -> Floats:
    """Return what `transformed(from_unit(u))` gives, for many places at once."""
    if parameter.kind != INT:
        low, high = parameter.transformed(parameter.low), parameter.transformed(parameter.high)
        return np.asarray(low + unit * (high - low))
    low, high = parameter.transformed(parameter.low - 0.5), parameter.transformed(parameter.high + 0.5)
    between = low + unit * (high - low)
    whole = np.round(np.exp(between) if parameter.log else between)
    whole = np.clip(whole, parameter.low, parameter.high)
    return np.asarray(np.log(whole) if parameter.log else whole)
