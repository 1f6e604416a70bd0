"""The model sampler: settings that may be the best at full scale, by all results at every scale.

Thompson sampling (Thompson 1933; for batches, Kandasamy et al. 2018, arXiv 1705.09236): each proposal is the
best candidate of one random draw of the Gaussian process at full scale. Settings that are certain to be good
and those that may be, for all that is known, are proposed in the right proportion; a batch differs in itself
without further ado; and a single lucky result counts for as much as the noise allows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from orchestrator.planning.sampling.frame import ABSENT, Frame, frame_of
from orchestrator.planning.sampling.gaussian import Floats, Posterior, fit
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.points import Setting, place_of
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import CHOICE, Parameter, active, setting_id

# Results that the process is fitted to: its time grows with their number cubed.
MOST_RESULTS = 160
# Fewer results than this say nothing that a well spread set of settings would not find.
FEWEST_RESULTS = 4
# Candidates of one draw: half spread over the ranges, half around the best settings seen.
CANDIDATES, AROUND = 400, 10
# How far from a good setting its neighbours lie, in widths of the range, and the share of parameters moved.
STEPS, MOVED = (0.02, 0.1, 0.2), 0.5
# Draws from one set of candidates, and sets without a new setting before the space counts as used up.
DRAWS, IDLE_ROUNDS = 24, 4
# Settings of lower scales that are looked at for an improvement: those with the best expectation.
MOST_KNOWN = 150
# Settings of the final runs differ by more than this share of all that was searched, in some parameter.
APART = 0.03
# Where a diverged trial stands, and no result above, in distances from the middle to the best tenth.
DIVERGED, BEST = -50.0, 20.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """What all results say of settings at full scale."""

    frame: Frame
    posterior: Posterior

    def mean(self, settings: Sequence[Mapping[str, Any]]) -> Floats:
        """Return the expected values at full scale, (n,), on the model's own scale; larger is better."""
        return self.posterior.expect(self.frame.features(settings))


def learn(space: Sequence[Parameter], history: Sequence[Observation]) -> Model | None:
    """Fit the model to results at any scale; None where there are too few of them.

    Args:
        space: the ranges of the stage; results outside them count as well.
        history: the results; those that lack a parameter or know others are read as far as they go.
    """
    known = [seen for seen in history if _fits(space, seen.params)]
    finite = [seen.objective for seen in known if math.isfinite(seen.objective)]
    if len(known) < FEWEST_RESULTS or not finite:
        return None
    # Differences of the largest numbers would be infinite.
    unit = max(abs(value) for value in finite) or 1.0
    middle = float(np.median([value / unit for value in finite]))
    spread = float(np.quantile([value / unit for value in finite], 0.9)) - middle
    if spread <= 1e-12:
        spread = max(max(finite) / unit - middle, middle - min(finite) / unit) or 1.0
    values = np.array([_value(seen.objective / unit, seen.settled, middle, spread) for seen in known])
    scales = np.log([seen.scale for seen in known]) / np.log(3.0)
    chosen = _telling(values, MOST_RESULTS)
    frame = frame_of(space, [seen.params for seen in known])
    points = frame.features([known[index].params for index in chosen])
    # Matrices this small are slower on several threads, and threads change the last bits.
    with threadpool_limits(1):
        posterior = fit(points, scales[chosen], values[chosen], frame.groups)
    return Model(frame=frame, posterior=posterior)


def propose(
    space: Sequence[Parameter],
    count: int,
    seed: int,
    history: Sequence[Observation],
    known: Sequence[Mapping[str, Any]] = (),
    *,
    taken: Sequence[Mapping[str, Any]] = (),
) -> list[Setting]:
    """Propose settings that may be the best at full scale.

    Args:
        space: the ranges of the stage: new settings lie inside them.
        count: how many; all different from each other.
        seed: the same seed gives the same settings.
        history: results at any scale.
        known: settings of lower scales that may be proposed as well, wherever they lie.
        taken: settings that are not to be proposed.

    Returns:
        The settings; spread evenly over the ranges while too little is known for a model.
    """
    if count <= 0:
        return []
    with threadpool_limits(1):
        return _propose(space, count, seed, history, known, taken)


def _propose(
    space: Sequence[Parameter],
    count: int,
    seed: int,
    history: Sequence[Observation],
    known: Sequence[Mapping[str, Any]],
    taken: Sequence[Mapping[str, Any]],
) -> list[Setting]:
    model = learn(space, history)
    if model is None:
        return sample(space, count, "sobol", seed, taken=taken)
    random = np.random.default_rng(seed)
    best = _best_expected(model, [seen for seen in history if _fits(space, seen.params)])
    gone = {
        row.tobytes() for row in model.frame.features([params for params in taken if _fits(space, params)])
    }
    old = model.frame.features(known)
    chosen: list[Setting] = []
    idle = 0
    while len(chosen) < count and idle < IDLE_ROUNDS:
        places = _candidates(space, best, random)
        rows = np.vstack([old, model.frame.features_at(space, places)])
        # Of settings that come out the same, and in a small space many do, one is a candidate.
        pool = list({row.tobytes(): at for at, row in reversed(list(enumerate(rows)))}.items())
        pool = [(row, at) for row, at in pool if row not in gone]
        idle = 0 if pool else idle + 1
        for index in _draw(model, rows[[at for _, at in pool]], min(DRAWS, count - len(chosen)), random):
            row, at = pool[index]
            gone.add(row)
            chosen.append(dict(known[at]) if at < len(known) else _setting(space, places[at - len(known)]))
    return chosen


def improve(
    space: Sequence[Parameter],
    count: int,
    seed: int,
    history: Sequence[Observation],
    known: Sequence[Mapping[str, Any]],
    *,
    ran: Sequence[Mapping[str, Any]],
    taken: Sequence[Mapping[str, Any]],
) -> list[Setting]:
    """Propose settings that should be better at full scale than the best of those that ran there.

    Expected improvement (Jones, Schonlau and Welch, "Efficient Global Optimization of Expensive Black-Box
    Functions", 1998): these are the last few trainings, with none after them to explore for. The settings are
    chosen one after another, each as if those before it had given what is expected of them, which keeps them
    apart (the kriging believer of Ginsbourger, Le Riche and Carraro, "Kriging Is Well-Suited to Parallelize
    Optimization", 2010). None is hardly different from another, or from one that ran, while there are others.

    Args:
        space: the ranges: new settings lie inside them.
        count: how many.
        seed: the same seed gives the same settings.
        history: results at any scale.
        known: settings of lower scales that may be proposed as well, wherever they lie.
        ran: settings that ran at full scale, at least one: the best of them is to be improved on.
        taken: settings that are not to be proposed.

    Returns:
        The settings, fewer where there are no others; none where too little is known for a model.
    """
    model = learn(space, history)
    if model is None:
        return []
    with threadpool_limits(1):
        old = [params for params in known if _fits(space, params)]
        old = [old[at] for at in np.argsort(-model.mean(old), kind="stable")[:MOST_KNOWN]]
        near = _best_expected(model, [seen for seen in history if _fits(space, seen.params)])
        places = _candidates(space, near, np.random.default_rng(seed))
        rows = np.vstack([model.frame.features(old), model.frame.features_at(space, places)])
        incumbents, others = (
            model.frame.features([params for params in some if _fits(space, params)]) for some in (ran, taken)
        )
        ran_or_taken = np.vstack([incumbents, others])
        chosen = _most_improving(model.posterior, rows, ran_or_taken, incumbents, count)
    return [dict(old[at]) if at < len(old) else _setting(space, places[at - len(old)]) for at in chosen]


def _most_improving(
    posterior: Posterior, rows: Floats, gone: Floats, incumbents: Floats, count: int
) -> list[int]:
    """Return which candidates (m, d) improve most on incumbents (n, d), one after another.

    Those that are hardly different from any of `gone` (k, d) come after all others, equal ones not at all.
    """
    from scipy.special import ndtr

    best = float(posterior.expect(incumbents).max())
    mean, covariance = posterior.predict(rows)
    chosen: list[int] = []
    free, far = np.ones(len(rows), dtype=bool), np.ones(len(rows), dtype=bool)
    for other in gone:
        free, far = free & _differ(rows, other, 0.0), far & _differ(rows, other, APART)
    while len(chosen) < count and free.any():
        deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-10))
        above = (mean - best) / deviation
        density = np.exp(-(above**2) / 2) / math.sqrt(2 * math.pi)
        gain = deviation * (above * ndtr(above) + density)
        at = int(np.where(far if far.any() else free, gain, -np.inf).argmax())
        chosen.append(at)
        # Several candidates may be the same setting.
        free, far = free & _differ(rows, rows[at], 0.0), far & _differ(rows, rows[at], APART)
        best = max(best, float(mean[at]))
        # As if the mean had come out: it stays what it is everywhere, and what is near becomes certain.
        shared = covariance[:, at] / math.sqrt(covariance[at, at] + posterior.noise + 1e-9)
        covariance = covariance - np.outer(shared, shared)
    return chosen


def _differ(rows: Floats, other: Floats, share: float) -> NDArray[np.bool_]:
    """Say which rows (m, d) differ from another (d,) by more than a share of the range in some feature."""
    return np.asarray((np.abs(rows - other) > share).any(axis=1))


def _draw(model: Model, candidates: Floats, count: int, random: np.random.Generator) -> list[int]:
    """Return the best candidate of each of `count` draws of the process at full scale, all different."""
    if not len(candidates):
        return []
    mean, covariance = model.posterior.predict(candidates)
    covariance[np.diag_indices_from(covariance)] += 1e-6 * max(1.0, float(np.trace(covariance)) / len(mean))
    draws = mean[:, None] + np.linalg.cholesky(covariance) @ random.standard_normal((len(mean), count))
    taken: list[int] = []
    for draw in draws.T[: len(mean)]:
        draw[taken] = -np.inf
        taken.append(int(draw.argmax()))
    return taken


def _best_expected(model: Model, seen: Sequence[Observation]) -> list[Mapping[str, Any]]:
    """Return the settings that do best at full scale by expectation, whatever scale they ran at."""
    finite = (one for one in seen if math.isfinite(one.objective))
    ranked = sorted(finite, key=lambda one: (-one.objective, setting_id(one.params)))[:MOST_RESULTS]
    unique = list({setting_id(one.params): one.params for one in ranked}.values())
    order = np.argsort(-model.mean(unique), kind="stable")
    return [unique[index] for index in order[:AROUND]]


def _candidates(
    space: Sequence[Parameter], best: Sequence[Mapping[str, Any]], random: np.random.Generator
) -> Floats:
    """Draw places of new settings in the unit cube of the ranges: half anywhere, half around the best."""
    places = random.random((CANDIDATES, len(space)))
    rows = np.arange(CANDIDATES // 2)
    steps = random.choice(STEPS, size=len(rows))
    for column, parameter in enumerate(space):
        known = np.array([_place(parameter, setting.get(parameter.name, ABSENT)) for setting in best])
        # A value outside the ranges, or none, says nothing of where to look inside them.
        near = np.where(np.isnan(known), places[: len(best), column], known)[rows % len(best)]
        moved = random.random(len(rows)) < MOVED
        if parameter.kind != CHOICE:
            near = np.clip(near + moved * steps * random.standard_normal(len(rows)), 0.0, 1.0)
        elif parameter.ordered:
            one = moved * random.integers(-1, 2, len(rows)) / len(parameter.values)
            near = np.clip(near + one, 0.0, 1 - 1e-9)
        else:
            near = np.where(moved & (random.random(len(rows)) < 2 * steps), places[rows, column], near)
        places[rows, column] = near
    return places


def _place(parameter: Parameter, value: Any) -> float:
    """Return the place in [0, 1] of a value in a range, NaN for one outside."""
    if value is ABSENT or not parameter.contains(value):
        return math.nan
    if parameter.kind != CHOICE:
        return place_of(parameter, value)
    return (parameter.index(value) + 0.5) / len(parameter.values)


def _setting(space: Sequence[Parameter], places: Floats) -> Setting:
    return active(space, {p.name: p.from_unit(float(u)) for p, u in zip(space, places, strict=True)})


def _value(objective: float, settled: bool, middle: float, spread: float) -> float:
    """Return a result on the model's scale: 0 in the middle, 1 at the best tenth, and bad ones not too far.

    How bad a bad setting is says little of the good ones, and would take the model's whole attention. A trial
    that was stopped is no good one, whatever it had reached by then.
    """
    scaled = (objective - middle) / spread if math.isfinite(objective) else DIVERGED
    return -1 - math.log1p(-scaled - 1) if scaled < -1 else min(scaled, BEST if settled else 0.0)


def _telling(values: Floats, most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return which results to fit to: the better half of `most` by value, others from all over the rest."""
    order = np.argsort(-values, kind="stable")
    if len(order) <= most:
        return np.sort(order)
    rest = order[most // 2 :]
    places = (np.arange(most - most // 2) * len(rest) / (most - most // 2)).astype(np.int64)
    return np.sort(np.concatenate([order[: most // 2], rest[places]]))


def _fits(space: Sequence[Parameter], params: Mapping[str, Any]) -> bool:
    """Say whether a setting's values are of the kind that the parameters have."""
    return all(
        isinstance(params[p.name], int | float) for p in space if p.kind != CHOICE and p.name in params
    )
