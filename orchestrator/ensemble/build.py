"""Build an ensemble: chosen on validation data, then measured once on held-out data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from orchestrator.ensemble.combine import COMBINERS, MODES, Merit, merit, scored, weighted
from orchestrator.ensemble.members import Candidate, Predictions, allowed, of_best_setting
from orchestrator.errors import UserError, nearest

Predict = Callable[[DictConfig, Path, str], Predictions]
Progress = Callable[[int, int], object]


@dataclass(slots=True)
class _Pool:
    """The candidates that could be read, with what they predict for validation data and how good that is."""

    candidates: list[Candidate] = field(default_factory=list)
    predictions: list[Predictions] = field(default_factory=list)
    merits: list[Merit] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)

    def restricted(self, places: Sequence[int]) -> _Pool:
        """Return a pool of some of the candidates."""
        return _Pool(
            [self.candidates[place] for place in places],
            [self.predictions[place] for place in places],
            [self.merits[place] for place in places],
            self.skipped,
        )


def build_ensemble(
    candidates: Sequence[Candidate],
    predict: Predict,
    *,
    members: Sequence[str],
    combine: str,
    max_members: int,
    score: str = "accuracy",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Choose and weigh members on validation data, then measure them once on held-out test data.

    Each candidate predicts the validation part once. Only the chosen members and the best single candidate
    predict the test part, after everything is decided; nothing that is seen there changes the choice.

    Args:
        candidates: checkpoints of final runs.
        predict: the job's; a candidate for which it raises is left out, with a note.
        members: what may differ between members, of "seeds", "settings", "checkpoints".
        combine: "greedy" or "average".
        max_members: most members, counted with their weights.
        score: "accuracy" or "log_loss".
        progress: called with (done, all) after each prediction of validation data.

    Returns:
        What was chosen and measured, ready for JSON.

    Raises:
        UserError: a wrong name, no readable candidate, or candidates of different samples or classes.
    """
    for key, value, choices in (("combine", combine, COMBINERS), ("score", score, MODES)):
        if value not in choices:
            hint = nearest(value, choices)
            raise UserError(f"there is no '{value}'", key=f"ensemble.{key}", hint=hint)
    if max_members < 1:
        raise UserError(f"{max_members} is below 1", key="ensemble.max_members")
    pool = _predict_validation(allowed(candidates, members), predict, score, progress)
    if "settings" not in members:
        pool = pool.restricted(of_best_setting(pool.candidates, [each[0] for each in pool.merits]))
    labels = pool.predictions[0].labels
    probabilities = [each.probabilities for each in pool.predictions]
    weights = COMBINERS[combine](probabilities, labels, score=score, max_members=max_members).tolist()
    best = max(range(len(pool.candidates)), key=lambda place: pool.merits[place])
    chosen = [place for place in range(len(weights)) if weights[place]]
    tested = _predict_test(pool, predict, sorted({*chosen, best}))
    return {
        "score": score,
        "mode": MODES[score],
        "combine": combine,
        "candidates": len(pool.candidates),
        "skipped": pool.skipped,
        "members": [_describe(pool.candidates[place]) | {"weight": weights[place]} for place in chosen],
        "best_single": _describe(pool.candidates[best]),
        "validation": _measure(dict(enumerate(pool.predictions)), chosen, weights, best, score),
        "test": _measure(tested, chosen, weights, best, score),
        "validation_samples": len(labels),
        "test_samples": len(tested[best].labels),
    }


def _predict_validation(
    candidates: Sequence[Candidate], predict: Predict, score: str, progress: Progress | None
) -> _Pool:
    """Let every candidate predict the validation part; leave out those that cannot be read."""
    pool = _Pool()
    for done, each in enumerate(candidates, start=1):
        try:
            predictions = predict(each.config, each.checkpoint, "validation")
            if not np.isfinite(predictions.probabilities).all():
                raise ValueError("its probabilities are not finite")
        except UserError:
            raise
        # Whatever a damaged file makes a user's own predict raise, the other members are still good.
        except Exception as error:
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            pool.skipped.append({"checkpoint": str(each.checkpoint), "why": why})
        else:
            _check(predictions, pool.predictions[0] if pool.predictions else predictions, each)
            pool.candidates.append(each)
            pool.predictions.append(predictions)
            pool.merits.append(merit(score, predictions.probabilities, predictions.labels))
        if progress is not None:
            progress(done, len(candidates))
    if not pool.candidates:
        why = f": {pool.skipped[0]['why']}" if pool.skipped else ""
        raise UserError(f"none of {len(candidates)} checkpoints can be read{why}", key="ensemble")
    return pool


def _predict_test(pool: _Pool, predict: Predict, places: Sequence[int]) -> dict[int, Predictions]:
    """Let the chosen candidates predict the held-out part: the only place where it is read."""
    tested: dict[int, Predictions] = {}
    for place in places:
        each = pool.candidates[place]
        tested[place] = predict(each.config, each.checkpoint, "test")
        _check(tested[place], tested[places[0]], each)
    return tested


def _check(predictions: Predictions, first: Predictions, candidate: Candidate) -> None:
    """Refuse predictions that don't fit together: averaging them would measure nothing."""
    if not np.issubdtype(predictions.labels.dtype, np.integer):
        raise UserError(
            "it predicts values, and an ensemble combines probabilities of classes",
            file=candidate.checkpoint,
            key="ensemble",
            hint="Leave out jobs.predict: there is no ensemble step then",
        )
    shape = predictions.probabilities.shape
    if shape[0] != len(predictions.labels) or shape[0] != len(predictions.ids):
        problem = f"probabilities {shape} do not fit {len(predictions.labels)} labels"
    elif shape[1] != first.probabilities.shape[1]:
        problem = f"it tells {shape[1]} classes apart, the first candidate {first.probabilities.shape[1]}"
    elif not np.array_equal(predictions.ids, first.ids) or not np.array_equal(
        predictions.labels, first.labels
    ):
        problem = "its samples are not those of the first candidate"
    else:
        return
    raise UserError(
        problem,
        file=candidate.checkpoint,
        key="ensemble",
        hint="Members need the same dataset, split and classes: leave those out of the search space",
    )


def _measure(
    predictions: dict[int, Predictions], chosen: Sequence[int], weights: Sequence[int], best: int, score: str
) -> dict[str, float]:
    """Score the best single candidate, the ensemble, and its members on average."""
    labels = predictions[best].labels
    parts = [predictions[place].probabilities for place in chosen]
    combined = weighted(parts, [weights[place] for place in chosen])
    return {
        "best_single": scored(score, predictions[best].probabilities, labels),
        "ensemble": scored(score, combined, labels),
        "average_member": float(np.mean([scored(score, part, labels) for part in parts])),
    }


def _describe(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate ready for JSON."""
    return {
        "trial_id": candidate.trial_id,
        "setting_id": candidate.setting_id,
        "seed": candidate.seed,
        "step": candidate.step,
        "checkpoint": str(candidate.checkpoint),
    }
