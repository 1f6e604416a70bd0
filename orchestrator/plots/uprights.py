"""Upright axes side by side, for lines that go through all of them: where trials lie, and the ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.plots.axis import Axis, spread
from orchestrator.plots.theme import plain, significant
from orchestrator.results.load import Results

ABSENT = -0.09  # where lies what a setting does not have
MOST_TICKS = 6


@dataclass(frozen=True, slots=True)
class Upright:
    """One upright axis.

    Attributes:
        title: safe for Plotly.
        places: where each trial lies, between 0 and 1, or ABSENT.
        values: what each trial has there, for a person.
        ticks: places, and what is said there.
    """

    title: str
    places: list[float]
    values: list[str]
    ticks: list[tuple[float, str]]


def of_parameter(results: Results, name: str, rows: pd.DataFrame, stages: Iterable[str]) -> Upright:
    """Return a parameter's axis, which has room for the ranges of the stages and for all values in `rows`."""
    axis, there = Axis(results, name), rows[f"param.{name}"].notna().to_numpy()
    # Trials of one choice are spread, so that their lines part.
    places = axis.positions(axis.there(rows), jitter=0.3).astype(np.float64)
    column = rows.loc[there, f"param.{name}"]
    texts = [plain(value, 24) if axis.values is not None else f"{value:.4g}" for value in column]
    if axis.values is not None:
        ends: list[float] = [-0.5, len(axis.values) - 0.5]
        ticks = [(float(place), plain(value, 12)) for place, value in enumerate(axis.values)]
    else:
        specs = [spec for stage in stages if (spec := results.spaces.get(stage, {}).get(name))]
        declared = [float(spec[end]) for spec in specs for end in ("low", "high") if end in spec]
        ends = [*declared, *places.tolist()] or [0.0, 1.0]
        # What was promoted or asked for may lie where there is no logarithm.
        log = axis.log and min(ends) > 0
        if log:
            ends, places = [math.log10(end) for end in ends], np.log10(places)
        low, high = min(ends), max(ends)
        ticks = _decades(low, high) if log else _steps(low, high, least=1.0 if axis.whole else 0.0)
    return _upright(plain(name, 28), places, texts, ticks, ends, there)


def of_numbers(
    title: str, column: pd.Series[float], ends: Sequence[float] | None = None, *, falling: bool = False
) -> Upright:
    """Return the axis of a measured column; `falling`: the least is on top."""
    values = column.to_numpy(dtype=float)
    ends = [float(values.min()), float(values.max())] if ends is None else ends
    there = np.ones(len(values), dtype=bool)
    texts = [f"{value:.5g}" for value in values]
    upright = _upright(plain(title, 28), values, texts, _steps(*ends), list(ends), there)
    return _turned(upright) if falling else upright


def of_stages(names: Sequence[str], column: pd.Series[str]) -> Upright:
    """Return the axis of the stages, the first one lowest."""
    places = np.array([names.index(stage) for stage in column]) + 0.3 * np.array(spread(len(column)))
    ticks = [(float(place), plain(name, 12)) for place, name in enumerate(names)]
    ends, there = [-0.5, len(names) - 0.5], np.ones(len(places), dtype=bool)
    return _upright("stage", places, [plain(stage, 24) for stage in column], ticks, ends, there)


def _upright(
    title: str,
    places: NDArray[np.floating[Any]],
    texts: list[str],
    ticks: list[tuple[float, str]],
    ends: Sequence[float],
    there: NDArray[np.bool_],
) -> Upright:
    """Bring an axis to where 0 is its lowest place and 1 its highest."""
    low, high = min(ends), max(ends)
    size = (high - low) or 1.0
    low = low if high > low else low - 0.5
    shares = iter(((places - low) / size).round(4).tolist())
    told = iter(texts)
    return Upright(
        title=title,
        places=[next(shares) if one else ABSENT for one in there],
        values=[next(told) if one else "not there" for one in there],
        ticks=[(round((at - low) / size, 4), said) for at, said in ticks],
    )


def _turned(upright: Upright) -> Upright:
    places = [round(1 - place, 4) for place in upright.places]
    return replace(upright, places=places, ticks=[(round(1 - at, 4), said) for at, said in upright.ticks])


def _decades(low: float, high: float) -> list[tuple[float, str]]:
    """Return ticks at powers of ten, or at the ends where the logarithms `low` and `high` span too few."""
    powers = range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)
    if len(powers) < 2:
        return [(end, f"{10**end:.3g}") for end in dict.fromkeys((low, high))]
    every = math.ceil(len(powers) / MOST_TICKS)
    return [(float(power), f"{10.0**power:g}".replace("e-0", "e-")) for power in powers[::every]]


def _steps(low: float, high: float, least: float = 0.0) -> list[tuple[float, str]]:
    """Return ticks at multiples of 1, 2 or 5 times a power of ten, at least `least` apart."""
    if not high > low:
        return [(low, f"{low:.4g}")]
    rough = max(least, (high - low) / (MOST_TICKS - 1))
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * times for times in (1, 2, 5, 10) if power * times >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(number * step, f"{significant(number * step):g}") for number in range(first, last + 1)]
