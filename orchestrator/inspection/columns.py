"""A table's columns, or the channels of images: gaps, constants, skew and scales."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, Finding, some

SKEWED = 1.0
_NO_LONGER = 0.75
_NEARLY = 0.99  # of the samples have one value
_CODES = 10  # different values: with so few a column is rather a code than a measurement
_SCALES_APART = 100.0  # largest deviation over smallest
_SINGULAR = {"have": "has", "hold": "holds", "are": "is"}
_SPREADING = ("log", "power", "uniform_quantiles")
_MOST_TRIED = 5000  # samples to try a transform on


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One feature of a table, or one channel.

    Attributes:
        name: of it.
        missing, infinite: values among those looked at.
        looked: how many were.
        distinct: different finite values.
        commonest: the share of the finite values that are the commonest one.
        low, median, high, mean, deviation, skew: of the finite values; NaN where there are none.
        transform: the transform of orchestrator.data.transforms that takes the skew away; "" where none is
            needed or helps.
        skew_after: with it.
    """

    name: str
    looked: int
    missing: int
    infinite: int
    distinct: int
    commonest: float
    low: float
    median: float
    high: float
    mean: float
    deviation: float
    skew: float
    transform: str = ""
    skew_after: float = float("nan")

    @property
    def constant(self) -> bool:
        """It has one value, or none."""
        return self.distinct <= 1


def describe_columns(
    inputs: NDArray[Any], names: Sequence[str], *, advise: bool = True
) -> tuple[Column, ...]:
    """Describe each column.

    Args:
        inputs: (n, features), gaps and all.
        names: (features,).
        advise: look for the transform that a skewed column needs.
    """
    return tuple(
        _describe(np.asarray(inputs[:, k], dtype=np.float64), name, advise) for k, name in enumerate(names)
    )


def _describe(values: NDArray[np.float64], name: str, advise: bool) -> Column:
    finite = values[np.isfinite(values)]
    counts: dict[str, Any] = {
        "looked": len(values),
        "missing": int(np.isnan(values).sum()),
        "infinite": int(np.isinf(values).sum()),
    }
    if not len(finite):
        nan = float("nan")
        numbers: dict[str, Any] = dict.fromkeys(
            ("low", "median", "high", "mean", "deviation", "skew", "commonest"), nan
        )
        return Column(name=name, distinct=0, **counts, **numbers)
    _, repeats = np.unique(finite, return_counts=True)
    skewness = skew_of(finite)
    transform, after = "", float("nan")
    if advise and abs(skewness) > SKEWED and len(repeats) > _CODES:
        transform, after = spreading(finite, skewness)
    return Column(
        name=name,
        distinct=len(repeats),
        commonest=float(repeats.max() / len(finite)),
        low=float(finite.min()),
        median=float(np.median(finite)),
        high=float(finite.max()),
        mean=float(finite.mean()),
        deviation=float(finite.std()),
        skew=skewness,
        transform=transform,
        skew_after=after,
        **counts,
    )


def skew_of(values: NDArray[Any]) -> float:
    """Return the skewness of finite values (n,); 0 where they are constant."""
    from scipy.stats import skew

    values = np.asarray(values, dtype=np.float64)
    spread = values.std() if len(values) else 0.0
    # Of a constant column rounding leaves a deviation, and its skewness is noise.
    if not np.isfinite(spread) or spread <= 1e-9 * max(1e-300, float(np.abs(values).max(initial=0))):
        return 0.0
    return float(skew((values - values.mean()) / spread))


def spreading(values: NDArray[np.float64], skewness: float) -> tuple[str, float]:
    """Find the mildest transform that takes skew away, by trying them: its name and the skewness after it.

    None ("", NaN) where none makes it at least three times smaller.
    """
    from orchestrator.data.transforms import Transform

    step = max(1, len(values) // _MOST_TRIED)
    with np.errstate(over="ignore"):
        column = values[::step, None].astype(np.float32)
    column = column[np.isfinite(column[:, 0])]
    if len(column) < 3:
        return "", float("nan")
    best = ("", float("nan"))
    for name in _SPREADING:
        with warnings.catch_warnings():  # scikit-learn's, about what it cannot fit: another one is tried
            warnings.simplefilter("ignore")
            after = skew_of(Transform(name).fit(column)(column)[:, 0])
        if abs(after) < _NO_LONGER:
            return name, after
        if abs(after) < abs(skewness) / 3 and not abs(best[1]) <= abs(after):
            best = (name, after)
    return best


def column_findings(columns: Sequence[Column], *, what: str = "column") -> list[Finding]:
    """Say what the columns' gaps, constants, skew and scales mean; `what` is "column" or "channel"."""
    if not columns:
        return []
    found: list[Finding] = []

    def add(code: str, level: str, which: list[Column], text: str, advice: str) -> None:
        if which:
            names = some([each.name for each in which])
            if len(which) == 1:
                verb, rest = text.split(" ", 1)
                text = f"{_SINGULAR[verb]} {rest}"
            are = f"{len(which)} of {len(columns)} {what}s {text}: {names}"
            share = len(which) / len(columns)
            found.append(Finding(code=code, level=level, text=are, advice=advice, share=share))

    gaps = [each for each in columns if each.missing]
    gaps.sort(key=lambda each: -each.missing)
    worst = f" (up to {gaps[0].missing / gaps[0].looked:.1%} of the samples)" if gaps else ""
    fill = "Fill the gaps (by the median, say) or leave the columns out: training refuses them"
    add("missing", PROBLEM, gaps, f"have gaps{worst}", fill)
    infinite = [each for each in columns if each.infinite]
    add(
        "not_finite", PROBLEM, infinite, "hold infinite values", "Find the division or the log that made them"
    )
    constant = [each for each in columns if each.constant]
    add("constant", WARNING, constant, "are constant", "Leave them out: they say nothing")
    nearly = [each for each in columns if not each.constant and each.commonest >= _NEARLY]
    add(
        "nearly_constant",
        NOTE,
        nearly,
        f"have one value in {_NEARLY:.0%} of the samples or more",
        "They say little",
    )
    for name in dict.fromkeys(each.transform for each in columns if each.transform):
        those = [each for each in columns if each.transform == name]
        those.sort(key=lambda each: -abs(each.skew))
        most = those[0]
        text = f"are skewed (the worst {most.skew:+.2g}, and {most.skew_after:+.2g} after {name})"
        add("skewed", WARNING, those, text, f"Try transform: [{name}, standardize]")
    return found + _scales(columns, what)


def _scales(columns: Sequence[Column], what: str) -> list[Finding]:
    """Say whether deviations differ by orders of magnitude."""
    real = [each for each in columns if each.deviation > 0 and not each.constant]
    if len(real) < 2:
        return []
    small, large = min(real, key=lambda each: each.deviation), max(real, key=lambda each: each.deviation)
    ratio = large.deviation / small.deviation
    if ratio < _SCALES_APART:
        return []
    text = (
        f"the {what}s' scales are far apart: '{large.name}' varies by {large.deviation:.3g} and "
        f"'{small.name}' by {small.deviation:.3g}, {ratio:,.3g} times less"
    )
    advice = "Use transform: standardize, or robust where there are outliers"
    return [Finding(code="scales", level=WARNING, text=text, advice=advice, share=1.0)]


def identifiers(inputs: NDArray[Any], names: Sequence[str]) -> list[Finding]:
    """Notice columns that number the rows, and columns that are copies of another; inputs (n, features)."""
    found = []
    if len(inputs) > 20:
        steps = np.diff(np.asarray(inputs, dtype=np.float64), axis=0)
        with np.errstate(invalid="ignore"):
            counting = (steps > 0).all(axis=0) & (np.floor(inputs) == inputs).all(axis=0)
        which = [names[int(k)] for k in np.flatnonzero(counting)]
        if which:
            text = f"{some(which)}: whole numbers that only grow from row to row, as an identifier does"
            advice = "Leave it out: it says where a row is in the file, not what it is"
            found.append(
                Finding(code="identifier", level=WARNING, text=text, advice=advice, share=1 / len(names))
            )
    first: dict[bytes, str] = {}
    copies = []
    for k, name in enumerate(names):
        column = np.ascontiguousarray(inputs[:, k])
        if len(column) and (column != column[0]).any():
            original = first.setdefault(column.tobytes(), name)
            copies += [f"{name} = {original}"] if original != name else []
    if copies:
        text = f"columns that are copies of another: {some(copies)}"
        advice = "Leave one of each out"
        found.append(
            Finding(code="same_columns", level=NOTE, text=text, advice=advice, share=len(copies) / len(names))
        )
    return found
