"""Averages of weights across runs: a greedy soup of those between which the loss has no barrier.

Wortsman et al. 2022, "Model soups: averaging weights of multiple fine-tuned models improves accuracy without
increasing inference time", recipe 1: from the best model down, each is stirred in that makes the mean better
on validation data. That works for networks of one basin, such as those that begin from one checkpoint.
Networks that begin from different initial values rarely are, so the barrier on the straight path between
each and the best is measured first (Frankle et al. 2020, "Linear mode connectivity and the lottery ticket
hypothesis"; Ainsworth et al. 2023, "Git re-basin", definition 2.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from omegaconf import DictConfig

from orchestrator.ensemble.averaging import NoAverage, write_mixture
from orchestrator.ensemble.fitted import describe
from orchestrator.ensemble.members import AVERAGE, Candidate, Predictions
from orchestrator.ensemble.scores import is_classes, log_loss, merit, mse
from orchestrator.ensemble.store import score_of, write_predictions
from orchestrator.ensemble.stored_library import SPLITS, VALIDATION, read_named
from orchestrator.schema import SCORES, SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.training.checkpoints import UnreadableCheckpoint

Predict = Callable[[DictConfig, Path, str], Predictions]

# Of the files that hold what it predicts.
NAME = "soup"
# Where on the path between two networks the loss is measured.
PLACES = (0.25, 0.5, 0.75)
# The highest barrier that is none: nats of log loss; of squared errors a share of what they are at the ends.
HIGHEST, HIGHEST_SHARE = 0.05, 0.05
# Other runs that are looked at, the best ones: each takes four predictions of the validation data.
MOST = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Barrier:
    """The loss on validation data on the straight path from the best network to another one.

    Attributes:
        trial_id: of the other one's run.
        losses: at the best one, at each of `PLACES`, and at the other one; empty where there is no path.
        height: how far the path rises above the line between its ends at most; may be below 0.
        low: whether that is no barrier.
        why: why there is no path.
    """

    trial_id: str
    losses: tuple[float, ...] = ()
    height: float = math.nan
    low: bool = False
    why: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Soup:
    """An average of weights, and how it came to be.

    Attributes:
        candidate: None where nothing could be averaged.
        score: on validation data.
        barriers: to each of the other runs.
        note: what was measured and done, in a sentence.
    """

    candidate: Candidate | None
    score: float
    barriers: tuple[Barrier, ...]
    note: str


def soup(
    candidates: Sequence[tuple[Candidate, float]],
    config: SweepConfig,
    predict: Predict,
    *,
    score: str,
    path: Path,
) -> Soup:
    """Average weights across runs as far as that helps on validation data; else take the best run's average.

    Args:
        candidates: with their scores on validation data; checkpoints, and averages along runs.
        config: of the sweep.
        predict: the job's.
        score: of `SCORES`.
        path: of the new checkpoint.
    """
    best, *others = _best_of_each_run(candidates, score)
    with TemporaryDirectory(prefix="soup-") as folder:
        bowl = _Bowl(config, predict, Path(folder) / "mixed.pt")
        start = bowl.predicted(best.config, best.checkpoint)
        barriers = [_barrier(bowl, best, start, other) for other in others[:MOST]]
        chosen, top = [best], merit(score, start.probabilities, start.labels)
        for other, between in zip(others, barriers, strict=False):
            if not between.low:
                continue
            mixed = bowl.mean([*chosen, other])
            found = merit(score, mixed.probabilities, mixed.labels)
            if found > top:
                chosen, top = [*chosen, other], found
        if len(chosen) == 1:
            return _along_one_run(candidates, score, barriers)
        paths = [each.checkpoint for each in chosen]
        write_mixture(path, paths, [1 / len(paths)] * len(paths), config, best.config)
    parts = tuple(part for each in chosen for part in (each.parts or (str(each.checkpoint),)))
    return Soup(
        candidate=replace(best, checkpoint=path, kind=AVERAGE, parts=parts),
        score=top[0] if SCORES[score] == "max" else -top[0],
        barriers=tuple(barriers),
        note=f"the weights of {len(chosen)} runs are averaged. {_told(barriers)}",
    )


@dataclass(frozen=True, slots=True)
class _Bowl:
    """What mixtures are predicted with.

    Attributes:
        config: of the sweep.
        predict: the job's.
        file: where a mixture lies while it is predicted with.
    """

    config: SweepConfig
    predict: Predict
    file: Path

    def predicted(self, own: DictConfig, checkpoint: Path) -> Predictions:
        return self.predict(own, checkpoint, VALIDATION)

    def mixed(self, own: DictConfig, parts: Sequence[Path], shares: Sequence[float]) -> Predictions:
        write_mixture(self.file, parts, shares, self.config, own)
        return self.predicted(own, self.file)

    def mean(self, chosen: Sequence[Candidate]) -> Predictions:
        parts = [each.checkpoint for each in chosen]
        return self.mixed(chosen[0].config, parts, [1 / len(parts)] * len(parts))


def _barrier(bowl: _Bowl, best: Candidate, start: Predictions, other: Candidate) -> Barrier:
    """Measure the loss on the way to another network; what lies between is built by the best one's config."""
    try:
        way = [
            bowl.mixed(best.config, (best.checkpoint, other.checkpoint), (1 - place, place))
            for place in PLACES
        ]
        end = bowl.predicted(other.config, other.checkpoint)
    except (NoAverage, UnreadableCheckpoint) as error:
        return Barrier(trial_id=other.trial_id, why=str(error))
    losses = [_loss(each) for each in (start, *way, end)]
    height = max(
        loss - ((1 - place) * losses[0] + place * losses[-1])
        for place, loss in zip(PLACES, losses[1:-1], strict=True)
    )
    highest = HIGHEST if is_classes(start.labels) else HIGHEST_SHARE * (losses[0] + losses[-1]) / 2
    # A loss that is not finite is a barrier.
    low = bool(height <= highest)
    return Barrier(trial_id=other.trial_id, losses=tuple(losses), height=height, low=low)


def _loss(predicted: Predictions) -> float:
    if not np.isfinite(predicted.probabilities).all():
        return math.inf
    loss = log_loss if is_classes(predicted.labels) else mse
    return loss(predicted.probabilities, predicted.labels)


def _best_of_each_run(candidates: Sequence[tuple[Candidate, float]], score: str) -> list[Candidate]:
    """Return each run's best candidate, the best run first."""
    found: dict[str, Candidate] = {}
    for each, _ in _ranked(candidates, score):
        found.setdefault(each.trial_id, each)
    return list(found.values())


def _ranked(candidates: Sequence[tuple[Candidate, float]], score: str) -> list[tuple[Candidate, float]]:
    sign = 1 if SCORES[score] == "min" else -1
    return sorted(candidates, key=lambda each: sign * each[1])


def _along_one_run(
    candidates: Sequence[tuple[Candidate, float]], score: str, barriers: Sequence[Barrier]
) -> Soup:
    averages = [each for each in _ranked(candidates, score) if each[0].kind == AVERAGE]
    told = _told(barriers)
    if not averages:
        note = f"no weights are averaged. {told}"
        return Soup(candidate=None, score=math.nan, barriers=tuple(barriers), note=note)
    candidate, value = averages[0]
    note = f"the weights of one run's checkpoints are averaged ({candidate.trial_id}). {told}"
    return Soup(candidate=candidate, score=value, barriers=tuple(barriers), note=note)


def _told(barriers: Sequence[Barrier]) -> str:
    """Say in a sentence what was measured between runs."""
    measured = [each for each in barriers if each.losses]
    if not measured:
        return f"Runs were not mixed: {barriers[0].why}" if barriers else "There is one run alone"
    high = sum(not each.low for each in measured)
    heights = ", ".join(f"{each.height:.3g}" for each in measured)
    apart = len(barriers) - len(measured)
    return (
        f"On {high} of {len(measured)} straight paths from the best run to others the loss has a barrier "
        f"(heights: {heights}); runs without one are mixed where validation improves"
        + (f". {apart} more {'is' if apart == 1 else 'are'} of another build" if apart else "")
    )


def best_soup(
    directory: SweepDirectory,
    config: SweepConfig,
    scored: Sequence[tuple[Candidate, float]],
    predict: Predict,
) -> dict[str, Any] | None:
    """Make the best average of weights, and store what it predicts for validation and test samples.

    Args:
        directory, config: the sweep.
        scored: candidates with their scores on validation data.
        predict: the job's.

    Returns:
        What `choice.json` says of it; None where no weights can be averaged.
    """
    score = score_of(config, read_named(directory, scored[0][0].trial_id, VALIDATION).task)
    made = soup(scored, config, predict, score=score, path=directory.averages / "soup.pt")
    best = made.candidate
    if best is None:
        return None
    for split in SPLITS:
        predicted = predict(best.config, best.checkpoint, split)
        write_predictions(directory, NAME, [(best, predicted)], split)
    heights = [each.height for each in made.barriers if math.isfinite(each.height)]
    return {
        "description": describe(best),
        "checkpoint": str(best.checkpoint),
        "parts": list(best.parts),
        "validation": made.score,
        "barrier": min(heights) if heights else None,
        "barriers": [_as_json(each) for each in made.barriers],
        "note": made.note,
    }


def _as_json(barrier: Barrier) -> dict[str, Any]:
    """Return a barrier for JSON, which has no number that is not finite."""
    numbers = [value if math.isfinite(value) else None for value in (barrier.height, *barrier.losses)]
    return {
        "trial_id": barrier.trial_id,
        "height": numbers[0],
        "losses": numbers[1:],
        "low": barrier.low,
        "why": barrier.why,
    }
