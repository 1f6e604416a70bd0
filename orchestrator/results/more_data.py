"""How much more data would help: the best error of stages against their training samples (practice, A13)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.results.analysis import planned_trials
from orchestrator.results.load import Results
from orchestrator.sweep.directory import FINAL, TRAINED
from orchestrator.sweep.records import PRUNED

# What is extrapolated: twice the samples. Further than that no law fitted to a few sizes can be trusted.
TIMES = 2.0
# The chi-squared of one quantity that a 90% interval leaves out.
INSIDE = 2.706
# The exponents that are tried: what was measured lies between 0.07 and 0.35, what theory gives is 0.5 or 1.
EXPONENTS = np.geomspace(0.02, 2.0, 180)
FLOORS = np.linspace(0.0, 1.0, 181)  # the error that no data remove, as a share of the least one measured
FEWEST_TRIALS, LEAST_NOISE = 3, 0.02  # of a stage, and as a share of its error
BEST_SHARE, MOST_BEST = 0.1, 10  # of a stage's trials, whose spread stands for noise where nothing ran twice
HARDLY = 0.05  # an error that is lower by less than this share is hardly lower


@dataclass(frozen=True, slots=True)
class Point:
    """The best of one stage.

    Attributes:
        stage: its name.
        samples: training samples.
        epochs: that its trials trained; None where it is not known.
        error: of the best setting: 1 - objective of what is to be high, else the objective.
        noise: one standard error of it.
    """

    stage: str
    samples: int
    epochs: float | None
    error: float
    noise: float


@dataclass(frozen=True, kw_only=True, slots=True)
class MoreData:
    """The best error against training samples, and what a power law makes of it.

    Attributes:
        error: what the error is, for a person: "1 - val/accuracy".
        points: the stages that can be compared, fewest samples first.
        left_out: the other stages, each with the reason.
        reason: why nothing can be told; empty where something can.
        samples: (n,) where the law was worked out, up to four times the most samples.
        low, high: (n,) between which the error lies there (90%, if the law holds).
        middle: (n,) by the law that fits best.
        gain: the least and the most that the error falls with twice the samples, as shares of it.
        caveats: what else than data differs between the points, in sentences.
    """

    error: str
    points: tuple[Point, ...]
    left_out: Mapping[str, str]
    reason: str = ""
    samples: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    middle: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    gain: tuple[float, float] = (0.0, 1.0)
    caveats: tuple[str, ...] = field(default=())

    @property
    def known(self) -> bool:
        """Whether anything can be told."""
        return not self.reason

    @property
    def sentence(self) -> str:
        """What it comes to, in words."""
        if self.reason:
            return f"Whether more data would help can't be told: {self.reason}."
        least, most = self.gain
        if most < HARDLY:
            verdict = "More data would hardly help"
        elif least >= HARDLY:
            verdict = "More data would help"
        else:
            verdict = "More data may help"
        last, names = self.points[-1], [point.stage for point in self.points]
        return (
            f"{verdict}: twice the {last.samples:,} training samples of {last.stage} would lower its error "
            f"({self.error}, {last.error:.3g}) by {least:.0%} to {most:.0%} (90% interval, if the power law "
            f"through {', '.join(names)} holds)."
        )


def more_data(results: Results) -> MoreData | None:
    """Fit the best error of the stages against their training samples, and extrapolate to twice as many.

    The law is error = floor + a · samples^-b, which learning curves of many tasks follow (Hestness et al.,
    "Deep Learning Scaling is Predictable, Empirically", 2017, section 2; among the best fits of many in
    Viering and Loog, "The Shape of Learning Curves: a Review", 2021, section 4.1). A sweep has two to five
    sizes, so the law's three numbers are mostly not determined. Hence no single fit is believed: for each
    exponent and floor of a grid the best `a` follows by least squares, and the interval is what all laws say
    that the points don't contradict (profile likelihood, 90%). Two sizes thus give the whole of what lies
    between no further gain and a law without a floor.

    Only stages that pose the same problem are compared: with as many classes, pixels and the like as the
    last one. Of stages with equally many samples the first counts, as final runs train longer than stages.

    Returns:
        None where no stage has results.
    """
    phases = [phase for phase in results.plan["phases"] if phase["kind"] in TRAINED and phase.get("samples")]
    ended = _ended(results)
    error = _error_name(results)
    points: dict[str, Point] = {}
    left_out: dict[str, str] = {}
    for phase in phases:
        if phase["name"] not in ended:
            continue
        if (point := _point(results, phase)) is None:
            left_out[phase["name"]] = "too few results"
        else:
            points[phase["name"]] = point
    if not points:
        return _unknown_sizes(results, ended, error)
    if not error:
        reason = f"nothing says what the best possible {results.metric} is"
        return MoreData(error=results.metric, points=(), left_out=left_out, reason=reason)
    alike = _comparable([phase for phase in phases if phase["name"] in points], points, left_out)
    if len(alike) < 2:
        return MoreData(error=error, points=alike, left_out=left_out, reason=_too_few(alike, left_out))
    if reason := _rises(alike[0], alike[-1]):
        return MoreData(error=error, points=alike, left_out=left_out, reason=reason)
    return fitted(error, alike, left_out)


def _unknown_sizes(results: Results, ended: set[str], error: str) -> MoreData | None:
    """Say that nobody knows how many samples a job of the user's own trains on; None where nothing ended."""
    plan = results.plan["phases"]
    if not any(one["kind"] in TRAINED and not one.get("samples") and one["name"] in ended for one in plan):
        return None
    reason = "how many samples its trials trained on is known to the job alone"
    return MoreData(error=error or results.metric, points=(), left_out={}, reason=reason)


def _ended(results: Results) -> set[str]:
    """Return the stages that have all results that anybody waits for."""
    planned, done = planned_trials(results), results.trials["stage"].value_counts()
    names = results.stages
    return {
        name
        for place, name in enumerate(names)
        if done[name] >= planned[name] or any(done[later] for later in names[place + 1 :])
    }


def _error_name(results: Results) -> str:
    """Return what is to be brought to zero; empty where it isn't known."""
    values = results.trials["objective"]
    values = values[np.isfinite(values)]
    if values.empty:
        return ""
    if results.mode == "min":
        return results.metric if values.min() > 0 else ""
    return f"1 - {results.metric}" if values.max() <= 1 else ""


def _point(results: Results, phase: Mapping[str, Any]) -> Point | None:
    """Return the best of a stage; None where too few trials ended well."""
    rows = results.at(phase["name"])
    rows = rows[np.isfinite(rows["objective"]) & (rows["state"] != PRUNED)]
    if len(rows) < FEWEST_TRIALS:
        return None
    errors = 1 - rows["objective"] if results.mode == "max" else rows["objective"]
    grouped = errors.groupby(rows["setting_id"])
    # A single run is the best of many by luck too: where settings ran several times their mean counts.
    error = float(grouped.mean().min()) if phase["kind"] == FINAL else float(errors.min())
    noise = _noise(errors, grouped.agg(["std", "count"]))
    size = phase["scale"].get("validation_size")
    if size and results.mode == "max" and 0 < error < 1:
        noise = max(noise, math.sqrt(error * (1 - error) / size))
    epochs = phase["scale"].get("epochs")
    return Point(phase["name"], int(phase["samples"]), epochs, error, max(noise, LEAST_NOISE * abs(error)))


def _noise(errors: pd.Series[float], settings: pd.DataFrame) -> float:
    """Return how far one run is from its setting's mean, or else how far apart the best of a stage are."""
    again = settings[settings["count"] > 1]
    if len(again):
        freedom = again["count"] - 1
        return math.sqrt(float((again["std"] ** 2 * freedom).sum() / freedom.sum()))
    count = min(MOST_BEST, max(FEWEST_TRIALS, round(BEST_SHARE * len(errors))))
    return float(errors.nsmallest(count).std())


def _comparable(
    phases: Sequence[Mapping[str, Any]], points: Mapping[str, Point], left_out: dict[str, str]
) -> tuple[Point, ...]:
    """Return the points that pose the problem of the last stage, one for each size, fewest samples first."""
    keys = ("classes", "class_list", "resolution", "augment")
    last = phases[-1]["scale"]
    sizes: dict[int, Point] = {}
    for phase in phases:
        differs = [key for key in keys if phase["scale"].get(key) != last.get(key)]
        point = points[phase["name"]]
        if differs:
            left_out[phase["name"]] = f"other {differs[0].replace('class_list', 'classes')}"
        elif point.samples in sizes:
            left_out[phase["name"]] = f"as many samples as {sizes[point.samples].stage}"
        elif point.error <= 0:
            left_out[phase["name"]] = "no errors at all"
        else:
            sizes[point.samples] = point
    return tuple(sizes[size] for size in sorted(sizes))


def _too_few(alike: Sequence[Point], left_out: Mapping[str, str]) -> str:
    """Say why there is nothing to compare, and what would change that."""
    if not alike:
        return "the last stage makes no errors that could become fewer"
    others = [f"{name} ({why})" for name, why in left_out.items()]
    beside = f"; left out: {', '.join(others)}" if others else ""
    return (
        f"only {alike[0].samples:,} samples were tried so far at the problem of {alike[-1].stage}, and a "
        f"curve needs two sizes or more (stages that differ in data alone){beside}"
    )


def _rises(few: Point, many: Point) -> str:
    """Say that the error is surely higher with more samples, which no law of learning gives."""
    if many.error - few.error <= 2 * math.hypot(few.noise, many.noise):
        return ""
    return (
        f"the error rises from {few.error:.3g} with {few.samples:,} samples ({few.stage}) to "
        f"{many.error:.3g} with {many.samples:,} ({many.stage}), so the stages differ in more than data"
    )


def fitted(error: str, points: tuple[Point, ...], left_out: Mapping[str, str]) -> MoreData:
    """Extrapolate points that pose one problem, two or more, fewest samples first; see `more_data`."""
    sizes = np.array([point.samples for point in points], dtype=float)
    most = sizes[-1]
    at = np.unique(np.concatenate([np.geomspace(sizes[0], 4 * most, 40), [most, TIMES * most]]))
    laws, best = _laws(sizes, points)
    a, b, floor = (part[:, None] for part in laws)
    curves = floor + a * (at[None, :] / most) ** -b
    now, then = (curves[:, int(np.flatnonzero(at == size)[0])] for size in (most, TIMES * most))
    falls = 1 - then / now
    return MoreData(
        error=error,
        points=points,
        left_out=left_out,
        samples=tuple(at.tolist()),
        low=tuple(curves.min(axis=0).tolist()),
        middle=tuple(curves[best].tolist()),
        high=tuple(curves.max(axis=0).tolist()),
        gain=(float(falls.min()), float(falls.max())),
        caveats=_caveats(points),
    )


Array = NDArray[np.float64]


def _laws(sizes: Array, points: Sequence[Point]) -> tuple[tuple[Array, Array, Array], int]:
    """Return a, b and floor of all laws that the points don't contradict, and the place of the best one.

    `a` is the error at the most samples that is above the floor. Noise is made larger where no law fits
    within it (Birge's ratio).
    """
    errors = np.array([point.error for point in points])
    weights = 1 / np.array([point.noise for point in points]) ** 2
    b, share = (grid.ravel() for grid in np.meshgrid(EXPONENTS, FLOORS))
    floor = share * errors.min()
    shape = (sizes[None, :] / sizes[-1]) ** -b[:, None]
    over = errors[None, :] - floor[:, None]
    a = np.maximum(0.0, (weights * shape * over).sum(axis=1) / (weights * shape**2).sum(axis=1))
    chi = (weights * (over - a[:, None] * shape) ** 2).sum(axis=1)
    best = int(chi.argmin())
    inside = chi - chi[best] <= INSIDE * max(1.0, chi[best] / max(1, len(points) - 2))
    inside[best] = True
    return (a[inside], b[inside], floor[inside]), int(inside[:best].sum())


def _caveats(points: Sequence[Point]) -> tuple[str, ...]:
    epochs = [point.epochs for point in points]
    if len(set(epochs)) < 2 or None in epochs:
        return ()
    told = ", ".join(f"{one:g}" for one in epochs if one is not None)
    return (f"These stages trained for {told} epochs: a part of the difference is longer training.",)
