"""Stacking: a linear model on the best candidates' predictions, its strength chosen by cross-fitting.

Of classes it is multinomial logistic regression on log probabilities, of values ridge regression on the
predicted values (Wolpert, "Stacked generalization", Neural Networks 1992; Breiman, "Stacked regressions",
Machine Learning 1996). It is bounded: at most 20 candidates, at most 100 inputs (candidates x classes) and
one for each 10 samples, but 2 candidates at least; of more than 10,000 samples a seeded part.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.library import Library
from orchestrator.ensemble.ranking import sampled
from orchestrator.ensemble.scores import SMALLEST, Targets, is_classes, surprises

_CANDIDATES, _INPUTS = 20, 100
_SAMPLES_EACH = 10  # for each input
_SAMPLES = 10_000
_FOLDS = 3
_FEWEST = 2 * _FOLDS  # samples of each class
_STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # of the mean loss against the penalty
_RIDGE = (1e-6, 1e-4, 1e-2, 1.0)
_MAX_ITER = 50
FLOOR = 1e-6  # smaller probabilities have no larger pull on the regression

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Stack:
    """A linear model on predictions.

    Attributes:
        coefficients: (candidates, outputs, outputs): what each output of each candidate adds to each output.
        intercept: (outputs,).
    """

    coefficients: Floats
    intercept: Floats


def why_not(targets: Targets, outputs: int) -> str | None:
    """Return why there can be no stacking, or None where there can.

    Args:
        targets: right classes or values, (n,).
        outputs: how many classes; 1 for values.
    """
    if not is_classes(targets):
        return None if len(targets) >= _FEWEST else f"stacking needs {_FEWEST} samples"
    if outputs > _INPUTS // 2:
        return f"stacking is for at most {_INPUTS // 2} classes"
    fewest = int(np.bincount(targets, minlength=outputs).min())
    return None if fewest >= _FEWEST else f"stacking needs {_FEWEST} samples of each class"


def candidates_for(outputs: int, samples: int) -> int:
    """Return how many candidates can be stacked: at least 2 wherever `why_not` allows it."""
    return min(_CANDIDATES, max(2, min(_INPUTS, samples // _SAMPLES_EACH) // outputs))


def inputs(predicted: NDArray[np.floating], outputs: int) -> Floats:
    """Return what the linear model sees of one candidate: log probabilities, or values as they are."""
    values = predicted.astype(np.float64)
    return values if outputs == 1 else np.log(np.maximum(values, FLOOR))


def predict(scores: Floats) -> Floats:
    """Return probabilities from the linear model's outputs (values stay): (n, outputs), changed in place."""
    if scores.shape[1] == 1:
        return scores
    scores -= scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores


def stack(library: Library, targets: Targets, places: list[int], seed: int) -> Stack:
    """Fit the linear model on some candidates, in the order of `places`.

    Args:
        library: what the candidates predict.
        targets: right classes or values, (n,).
        places: at most `candidates_for(outputs)`.
        seed: of the folds, and of the samples where there are very many.
    """
    rows = sampled(library.samples, _SAMPLES, seed)
    targets = targets if rows is None else targets[rows]
    outputs = library.outputs
    seen = [inputs(library.probabilities(place, rows), outputs) for place in places]
    table = np.concatenate(seen, axis=1)
    weights, intercept = (
        _logistic(table, targets, outputs, seed) if outputs > 1 else _ridge(table, targets, seed)
    )
    return Stack(weights.T.reshape(len(places), outputs, outputs), intercept)


def dealt(targets: Targets, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of each sample: every class dealt out in turn, in a seeded order.

    Unlike scikit-learn's, it takes classes with fewer samples than folds, too: they are in some folds only.

    Args:
        targets: right classes, or values (dealt in any order), (n,).
        folds: how many.
        seed: of the order.
    """
    shuffled = np.random.default_rng([seed, folds]).permutation(len(targets))
    if is_classes(targets):
        shuffled = shuffled[np.argsort(targets[shuffled], kind="stable")]
    found = np.empty(len(targets), dtype=np.int64)
    found[shuffled] = np.arange(len(targets)) % folds
    return found


def _logistic(table: Floats, targets: Targets, outputs: int, seed: int) -> tuple[Floats, Floats]:
    """Return coefficients (classes, inputs) and intercepts (classes,) at the best strength."""
    fold = dealt(targets, _FOLDS, seed)
    losses = np.zeros(len(_STRENGTHS))
    for held in range(_FOLDS):
        own = fold == held
        models = _path(table[~own], targets[~own], outputs, _STRENGTHS)
        for place, (weights, intercept) in enumerate(models):
            losses[place] += surprises(predict(table[own] @ weights.T + intercept), targets[own]).sum()
    return _path(table, targets, outputs, _STRENGTHS[: int(losses.argmin()) + 1])[-1]


def _path(
    table: Floats, targets: Targets, outputs: int, strengths: Sequence[float]
) -> list[tuple[Floats, Floats]]:
    """Fit logistic regressions: strength * mean loss + half the squared coefficients, weakest first.

    Each starts where the one before ended, which is most of the way.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    found = []
    model = LogisticRegression(max_iter=_MAX_ITER, warm_start=True)
    for strength in strengths:
        model.set_params(C=strength / len(targets))
        # Few steps are a restraint like the penalty; the cross-fitting judges what they reach.
        with warnings.catch_warnings(action="ignore", category=ConvergenceWarning):
            model.fit(table, targets)
        weights, intercept = model.coef_.copy(), model.intercept_.copy()
        if outputs == 2:
            # With two classes scikit-learn fits the odds of the second one alone.
            weights = np.vstack([np.zeros_like(weights), weights])
            intercept = np.concatenate([np.zeros(1), intercept])
        found.append((weights, intercept))
    return found


def _ridge(table: Floats, targets: Targets, seed: int) -> tuple[Floats, Floats]:
    """Return coefficients (1, inputs) and the intercept (1,) at the best strength."""
    from sklearn.linear_model import Ridge

    fold = dealt(targets, _FOLDS, seed)
    scale = len(targets) * float(table.var(axis=0).mean())
    losses = []
    for strength in _RIDGE:
        errors = np.empty(len(targets))
        for held in range(_FOLDS):
            model = Ridge(alpha=strength * scale + SMALLEST).fit(table[fold != held], targets[fold != held])
            errors[fold == held] = model.predict(table[fold == held]) - targets[fold == held]
        losses.append(float((errors**2).mean()))
    best = Ridge(alpha=_RIDGE[int(np.argmin(losses))] * scale + SMALLEST).fit(table, targets)
    return best.coef_[None], np.atleast_1d(best.intercept_)
