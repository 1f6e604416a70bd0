"""The candidates in the order of how good each is alone, and the columns that weighing them needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.library import Library, Rows
from orchestrator.ensemble.scores import SMALLEST, Targets, better, each_sample, is_classes, merit

LARGEST = 100  # candidates that are weighed against each other; of larger libraries the best ones
_CHUNK = 8192  # samples at a time: a block of so many times 100 float32 stays in the cache

Order = Callable[[str], list[int]]


def ranked(library: Library, targets: Targets, score: str) -> list[int]:
    """Return the places of all candidates, the best one first; of equals the earlier one.

    One pass over the library. Dropping all but the best of a large library costs little and helps against
    overfitting: Caruana, Munson and Niculescu-Mizil, "Getting the most out of ensemble selection", ICDM
    2006, section 3.
    """
    merits = []
    for place in range(len(library)):
        predicted = library.probabilities(place)
        assert predicted.shape == (len(targets), library.outputs), f"{predicted.shape}: not as the first"
        assert np.isfinite(predicted).all(), "predictions that are not finite are refused where they are read"
        merits.append(merit(score, predicted, targets))
    return sorted(range(len(library)), key=lambda place: merits[place], reverse=True)


@dataclass(frozen=True, slots=True)
class Alone:
    """What each candidate alone scores for each sample: read once, for rankings on any of the samples.

    Attributes:
        values: by score, (candidates, n) float32.
    """

    values: dict[str, NDArray[np.float32]]

    def order(self, rows: Rows) -> Order:
        """Return what ranks the candidates on some samples, by a score: as `ranked` does."""
        return lambda score: self._ranked(score, rows)

    def _ranked(self, score: str, rows: Rows) -> list[int]:
        tie = "log_loss" if score == "accuracy" else score
        means = {
            name: [better(name, float(each[rows].mean(dtype=np.float64)), 0.0) for each in self.values[name]]
            for name in {score, tie}
        }
        places = range(len(means[score]))
        return sorted(places, key=lambda place: (means[score][place], means[tie][place]), reverse=True)


def alone(library: Library, targets: Targets, score: str) -> Alone:
    """Read what each candidate scores for each sample, by `score` and by the loss that is minimized."""
    values = {
        name: np.empty((len(library), len(targets)), dtype=np.float32) for name in {score, loss_of(targets)}
    }
    for place in range(len(library)):
        predicted = library.probabilities(place)
        for name, table in values.items():
            table[place] = each_sample(name, predicted, targets)
    return Alone(values)


def loss_of(targets: Targets) -> str:
    """Return the score that blend and stacking minimize: log_loss of classes, mse of values."""
    return "log_loss" if is_classes(targets) else "mse"


def sampled(samples: int, most: int, seed: int) -> Rows | None:
    """Return which samples to weigh by where all are too many, in order; None: all of them."""
    if samples <= most:
        return None
    rng = np.random.default_rng([seed, samples])
    return np.sort(rng.choice(samples, most, replace=False)).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Columns:
    """The one number of each prediction on which its loss depends.

    Attributes:
        values: (candidates, n) float32: the right class's probability, or the predicted value.
        targets: right values (n,); None where classes are predicted.
        squared: whether an error of a value counts squared.
    """

    values: NDArray[np.float32]
    targets: NDArray[np.float32] | None
    squared: bool = True

    def losses(
        self, total: NDArray[np.float32], count: int, places: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Return the mean loss of (total + a candidate) / count, for each of some candidates.

        Args:
            total: the sum of the columns of the count - 1 members so far, (n,).
            count: how many members there are with the candidate.
            places: of the candidates.
        """
        sums = np.zeros(len(places))
        everything = len(places) == len(self.values)
        for start in range(0, len(total), _CHUNK):
            part = slice(start, start + _CHUNK)
            block = self.values[:, part] if everything else self.values[places, part]
            sums += self._of_means((block + total[part]) / np.float32(count), part).sum(
                axis=1, dtype=np.float64
            )
        return sums / len(total)

    def loss(self, total: NDArray[np.float32], count: int) -> float:
        """Return the mean loss of total / count."""
        means = (total / np.float32(count))[None]
        return float(self._of_means(means, slice(None)).mean(dtype=np.float64))

    def _of_means(self, means: NDArray[np.float32], part: slice) -> NDArray[np.float32]:
        """Return the loss of each prediction: (candidates, n of the part), changing `means`."""
        if self.targets is None:
            np.maximum(means, np.float32(SMALLEST), out=means)
            np.log(means, out=means)
            return np.negative(means, out=means)
        means -= self.targets[part]
        return np.square(means, out=means) if self.squared else np.abs(means, out=means)


def columns(
    library: Library, targets: Targets, places: list[int], score: str, rows: Rows | None = None
) -> Columns:
    """Read the columns of some candidates, for all samples or for `rows`."""
    targets = targets if rows is None else targets[rows]
    values = np.empty((len(places), len(targets)), dtype=np.float32)
    every = np.arange(len(targets))
    classes = is_classes(targets)
    for row, place in enumerate(places):
        predicted = library.probabilities(place, rows)
        values[row] = predicted[every, targets] if classes else predicted[:, 0]
    return Columns(values, None if classes else targets.astype(np.float32), squared=score != "mae")
