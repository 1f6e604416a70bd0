"""Pooling: earlier results of several scales as one list of scores that a sampler can learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import NormalDist, mean
from typing import Any

from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import Parameter, setting_id

# How fast a result loses its word with the distance of its scale: at a third of the next scale it keeps three
# quarters of it. Chosen, not fitted: where scales were compared, their agreement is measured (`trust`).
TRUST_POWER = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """A setting with one score for all that is known of it, larger better, about normal around zero."""

    params: Mapping[str, Any]
    score: float
    scale: float


def pool(history: Sequence[Observation]) -> list[Scored]:
    """Put results of different scales together.

    Objectives at different scales differ in level (all are worse on a tenth of the data), so within a scale
    only the order counts: its results become normal scores (van der Waerden 1952), which a few outliers can't
    stretch. Scales differ in company, too: the settings of a later stage were chosen, and the middle one of
    them is better than the middle one of the first stage. So a lower scale is laid against the higher one
    where they met, at the settings that ran at both: its scores are shifted until these have the same mean
    there and here (less where few met, not at all where none did).

    The higher scale's word counts more in two ways: a setting has the score of the highest scale that it
    reached, whatever it was below; and the scores of a scale shrink towards their centre with its distance
    from the next, as the expectation of a score does under the correlation between the two (regression to
    the mean). What was merely the best at a small scale is thereby not taken for the best there is.

    Within a scale, results that were stopped early come below all that ran to their end, ordered by their
    early values; diverged ones come a whole deviation below the worst of the others. Repeats of a setting at
    one scale count once, by their mean.

    Args:
        history: the results, in any order.

    Returns:
        One entry for each setting, the lowest scale first: the order does not depend on that of the history.
    """
    scales: dict[float, dict[str, list[Observation]]] = {}
    for seen in history:
        scales.setdefault(seen.scale, {}).setdefault(setting_id(seen.params), []).append(seen)
    scores: dict[str, float] = {}
    pooled: list[Scored] = []
    above = None
    trust = 1.0
    for scale in sorted(scales, reverse=True):
        own = _normal_scores(scales[scale])
        trust *= (scale / above) ** TRUST_POWER if above else 1.0
        met = [key for key in own if key in scores]
        shift = sum(scores[key] - trust * own[key] for key in met) / (len(met) + 2)
        for key in sorted(own.keys() - scores.keys()):
            scores[key] = trust * own[key] + shift
            pooled.append(Scored(params=scales[scale][key][0].params, score=scores[key], scale=scale))
        above = scale
    return sorted(pooled, key=lambda item: item.scale)


def usable(pooled: Sequence[Scored], space: Sequence[Parameter]) -> list[Scored]:
    """Return what lies inside the ranges; only a parameter with a condition may be missing."""
    return [
        item
        for item in pooled
        if all(p.contains(item.params[p.name]) if p.name in item.params else bool(p.when) for p in space)
    ]


def digest(pooled: Sequence[Scored], most: int) -> list[Scored]:
    """Return at most so many: the best half of them, and evenly from the rest, in the order they came in."""
    if len(pooled) <= most:
        return list(pooled)
    best_first = sorted(range(len(pooled)), key=lambda place: -pooled[place].score)
    best, rest = best_first[: most // 2], best_first[most // 2 :]
    share = len(rest) / (most - len(best))
    kept = best + [rest[int((i + 0.5) * share)] for i in range(most - len(best))]
    return [pooled[place] for place in sorted(kept)]


def _normal_scores(results: Mapping[str, Sequence[Observation]]) -> dict[str, float]:
    standing = {key: _standing(runs) for key, runs in results.items()}
    finite = sorted((key for key in standing if math.isfinite(standing[key][1])), key=standing.__getitem__)
    scores: dict[str, float] = {}
    for _, equal in groupby(finite, key=standing.__getitem__):
        tied = list(equal)
        # Equal results share the mean of their places.
        place = len(scores) + (len(tied) + 1) / 2
        score = NormalDist().inv_cdf((place - 0.5 + len(standing) - len(finite)) / len(standing))
        scores |= dict.fromkeys(tied, score)
    floor = min(scores.values(), default=0.0) - 1
    return {key: scores.get(key, floor) for key in standing}


def _standing(runs: Sequence[Observation]) -> tuple[bool, float]:
    """Return what the runs of a setting at one scale are ordered by: whether one ended, and the mean."""
    settled = any(run.settled for run in runs)
    values = sorted(run.objective for run in runs if run.settled == settled)
    return settled, mean(values) if all(map(math.isfinite, values)) else -math.inf
