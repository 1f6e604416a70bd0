"""Evidence: a stage's results put in order, the good ones marked, and how sure that is under resampling."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import Parameter

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# Bootstrap replicates, and their seed: the same results give the same ranges on any machine. Of very many
# trials fewer replicates do (so many draws in all, but never fewer than the least): less depends on chance.
REPLICATES, DRAWS, FEWEST_REPLICATES, SEED = 100, 200_000, 20, 20230
# However small the share that counts as good, so many trials are.
FEWEST_GOOD = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResults:
    """What a stage found.

    Attributes:
        name: the stage's name.
        scale: how much of a full-scale training its trials saw, in (0, 1].
        observations: its finished trials, in any order.
    """

    name: str
    scale: float
    observations: tuple[Observation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """Trials, best first, with the good ones marked, as they are and as resampling could have given them.

    Attributes:
        trials: best first.
        marks: for each trial, how good it is as one number, the same for trials that are equally good.
        weights: how often each replicate drew each trial; the first replicate is the trials as they are.
        good: for each replicate, 1.0 where the trial is among the best share of that replicate, else 0.0.
    """

    trials: tuple[Observation, ...]
    marks: Floats
    weights: Floats
    good: Floats

    @property
    def best(self) -> tuple[Observation, ...]:
        """The good trials, best first; resampling aside."""
        return tuple(trial for trial, good in zip(self.trials, self.good[0], strict=True) if good)

    def only(self, some: Booleans) -> Sample:
        """Return some of the trials, marked as they are among all."""
        return Sample(
            trials=tuple(trial for trial, taken in zip(self.trials, some, strict=True) if taken),
            marks=self.marks[some],
            weights=self.weights[:, some],
            good=self.good[:, some],
        )


def standing(trial: Observation) -> tuple[int, float]:
    """Return what a trial is sorted by, the best first: settled, then pruned, then diverged ones."""
    if not math.isfinite(trial.objective):
        return 2, 0.0
    return (0 if trial.settled else 1), -trial.objective


def ranked(trials: Sequence[Observation]) -> list[Observation]:
    """Return the trials best first, equal ones in an order that does not depend on the one they came in."""
    ordered = []
    for _, equal in itertools.groupby(sorted(trials, key=standing), key=standing):
        group = list(equal)
        if len(group) > 1:
            group.sort(key=lambda trial: repr(sorted(trial.params.items())))
        ordered += group
    return ordered


def sound(trial: Observation) -> bool:
    """Say whether a trial gave a number: neither diverged nor infinite."""
    return math.isfinite(trial.objective)


def samples(
    space: Sequence[Parameter], observations: Sequence[Observation], keep: float
) -> Mapping[str, Sample]:
    """Return, for each parameter, the trials that have it: the others say nothing about it.

    Args:
        space: the parameters; one that no trial has is left out.
        observations: a stage's trials, in any order.
        keep: the share that counts as good.
    """
    ordered = ranked(observations)
    shared: dict[tuple[int, ...], Sample] = {}
    found = {}
    for parameter in space:
        there = tuple(i for i, trial in enumerate(ordered) if parameter.name in trial.params)
        if there and there not in shared:
            shared[there] = sample_of([ordered[i] for i in there], keep)
        if there:
            found[parameter.name] = shared[there]
    return found


def sample_of(ordered: Sequence[Observation], keep: float) -> Sample:
    """Mark the best share of trials as good, in the trials themselves and in resamples of them.

    The bootstrap draws trials with replacement and picks the best share of each draw anew, so that what is
    read off the replicates tells how far the ends of a range depend on single, noisy results (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13).

    Args:
        ordered: the trials, best first; see `ranked`.
        keep: the share that counts as good; equally good trials are good or not together.
    """
    wanted = max(FEWEST_GOOD, keep * len(ordered))

    def mark(weights: Floats, first: NDArray[np.intp]) -> Floats:
        before = weights.cumsum(axis=1) - weights
        return (before[:, first] < wanted).astype(float)

    return _sample(ordered, mark)


def soundness_of(ordered: Sequence[Observation]) -> Sample:
    """Mark every trial that did not diverge, in the trials themselves and in resamples of them."""
    return _sample(ordered, lambda weights, first: np.ones((len(weights), len(first))))


def _sample(ordered: Sequence[Observation], mark: Callable[[Floats, NDArray[np.intp]], Floats]) -> Sample:
    keys = [standing(trial) for trial in ordered]
    # The place of the first trial that is as good as this one.
    first = np.zeros(len(keys), dtype=np.intp)
    for place in range(1, len(keys)):
        first[place] = first[place - 1] if keys[place] == keys[place - 1] else place
    size = len(ordered)
    replicates = min(REPLICATES, max(FEWEST_REPLICATES, DRAWS // size))
    drawn = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), replicates)
    weights = np.vstack([np.ones((1, size)), drawn.astype(float)])
    finite = np.array([sound(trial) for trial in ordered], dtype=float)
    return Sample(
        trials=tuple(ordered),
        marks=first.astype(float),
        weights=weights,
        good=mark(weights, first) * finite,
    )
