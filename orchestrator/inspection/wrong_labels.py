"""Labels that the rest of the data contradicts: confident learning, and residuals for regression.

Confident learning: Northcutt, Jiang and Chuang, "Confident learning: estimating uncertainty in dataset
labels", JAIR 70, 2021, section 3: a sample counts as class j when its out-of-fold probability of j reaches
the mean probability that samples labelled j have; where that is not its label, the label is in doubt.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.finding import NOTE, WARNING, Finding, be, counted
from orchestrator.inspection.raw import TABLE

FOLDS = 5
TRUSTED = 0.8
"""Out-of-fold accuracy from which the estimate means something: below, doubts are the model's own errors."""
_FAR = 6.0  # robust deviations of a residual
_MOST_VALUES = 4_000_000  # samples x classes: above, the nearest neighbours alone are asked
Rows = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A label in doubt.

    Attributes:
        place: of the sample among those looked at.
        given: the label it has: a class's number, or a value.
        suggested: what the others say.
        confidence: of the suggestion less that of the label, 0 to 1; for values, how many robust deviations
            it is off.
    """

    place: int
    given: float
    suggested: float
    confidence: float


@dataclass(frozen=True, kw_only=True, slots=True)
class WrongLabels:
    """Labels in doubt, the most doubtful first.

    Attributes:
        suspects: in order.
        looked: at so many samples.
        accuracy: of the model that doubts, on samples it was not fitted to; for values, its R2.
        estimate: share of wrong labels, 0 to 1; None where the model is too weak to tell.
    """

    suspects: tuple[Suspect, ...]
    looked: int
    accuracy: float
    estimate: float | None


def wrong_classes(rows: Rows, labels: NDArray[np.int64], kind: str) -> WrongLabels | None:
    """Look for wrong classes.

    Args:
        rows: (n, features) as `embed` gives them.
        labels: (n,), -1 for none.
        kind: as `Raw.kind`; for a table trees have a say, otherwise the nearest neighbours.

    Returns:
        None where there are not two classes of at least five samples.
    """
    counts = np.bincount(labels[labels >= 0], minlength=1)
    enough = (labels >= 0) & (counts >= FOLDS)[np.maximum(labels, 0)]
    places = np.flatnonzero(enough)
    names, numbers = np.unique(labels[places], return_inverse=True)
    if len(names) < 2 or not rows.shape[1]:
        return None
    chances = _out_of_fold(rows[places], numbers, kind)
    own = chances[np.arange(len(places)), numbers]
    threshold = np.array([own[numbers == k].mean() for k in range(len(names))])
    confident = np.where(chances >= threshold, chances, -1.0)
    counted_as = confident.argmax(axis=1)
    sure = confident.max(axis=1) >= 0
    joint = np.zeros((len(names), len(names)))
    np.add.at(joint, (numbers[sure], counted_as[sure]), 1.0)
    size = np.bincount(numbers, minlength=len(names))
    off = 1 - np.diag(joint) / np.maximum(joint.sum(axis=1), 1)
    accuracy = float((chances.argmax(axis=1) == numbers).mean())
    estimate = float((off * size).sum() / len(places)) if accuracy >= TRUSTED else None
    others = chances.copy()
    others[np.arange(len(places)), numbers] = -1.0
    rather = np.where(sure & (counted_as != numbers), counted_as, others.argmax(axis=1))
    margin = chances[np.arange(len(places)), rather] - own
    # Pruned by noise rate (section 4.3 there): as many as are estimated to be wrong, by margin; and all
    # that count as another class.
    order = np.argsort(-margin, kind="stable")
    likely = np.zeros(len(places), dtype=bool)
    likely[order[: round((estimate or 0.0) * len(places))]] = True
    doubtful = (likely | (sure & (counted_as != numbers))) & (margin > 0)
    suspects = tuple(
        Suspect(
            place=int(places[k]),
            given=float(names[numbers[k]]),
            suggested=float(names[rather[k]]),
            confidence=float(margin[k]),
        )
        for k in order
        if doubtful[k]
    )
    return WrongLabels(suspects=suspects, looked=len(places), accuracy=accuracy, estimate=estimate)


def _out_of_fold(rows: Rows, numbers: NDArray[np.int64], kind: str) -> Rows:
    """Return the probability of each class (n, classes) by models fitted to the other folds."""
    from sklearn.ensemble import ExtraTreesClassifier
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.neighbors import KNeighborsClassifier

    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    fewest = len(rows) - -(-len(rows) // FOLDS)
    near: Any = KNeighborsClassifier(
        n_neighbors=max(1, min(10, fewest)), weights="distance", algorithm="brute"
    )
    trees: Any = ExtraTreesClassifier(60, min_samples_leaf=2, random_state=0)
    models = [trees if kind == TABLE else near]
    if len(rows) * (numbers.max() + 1) <= _MOST_VALUES // rows.shape[1]:
        models.append(LogisticRegression(max_iter=100, C=0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # good enough to doubt with
        votes = [cross_val_predict(one, rows, numbers, cv=folds, method="predict_proba") for one in models]
    result: Rows = np.mean(votes, axis=0)
    return result


def wrong_values(rows: Rows, targets: NDArray[np.float64]) -> WrongLabels | None:
    """Look for values (n,) that samples like them do not have; None for fewer than 20 finite ones."""
    places = np.flatnonzero(np.isfinite(targets))
    values = targets[places]
    if len(places) < 4 * FOLDS or not rows.shape[1] or not np.ptp(values):
        return None
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(FOLDS, shuffle=True, random_state=0)
    centre, scale = values.mean(), values.std()
    scaled = (values - centre) / scale
    model = ExtraTreesRegressor(60, min_samples_leaf=2, random_state=0)
    predicted = cross_val_predict(model, rows[places], scaled, cv=folds)
    residual = scaled - predicted
    spread = 1.4826 * np.median(np.abs(residual - np.median(residual))) or residual.std()
    score = np.abs(residual - np.median(residual)) / (spread or 1.0)
    suspects = tuple(
        Suspect(
            place=int(places[k]),
            given=float(values[k]),
            suggested=float(predicted[k] * scale + centre),
            confidence=float(score[k]),
        )
        for k in np.argsort(-score, kind="stable")
        if score[k] > _FAR
    )
    fit = 1 - float(np.var(residual))
    return WrongLabels(suspects=suspects, looked=len(places), accuracy=fit, estimate=None)


def wrong_label_findings(found: WrongLabels | None, *, values: bool) -> list[Finding]:
    """Say what labels in doubt mean; `values` for a regression."""
    if found is None or not found.suspects:
        return []
    count, share = len(found.suspects), len(found.suspects) / found.looked
    look = "Look at them, most doubtful first, and correct what is wrong"
    if values:
        what = counted(count, "value")
        text = f"{what} of {found.looked:,} looked at {be(count)} far from what the others suggest"
        return [Finding(code="wrong_labels", level=NOTE, text=text, advice=look, share=share)]
    if found.estimate is None:
        text = (
            f"a simple model is right on {found.accuracy:.1%} of the labels, too few to tell wrong ones; "
            f"it contradicts {count:,} of {found.looked:,}"
        )
        advice = "Look at the surest of its contradictions: most of them are its own errors"
        return [Finding(code="hard_labels", level=NOTE, text=text, advice=advice, share=share)]
    text = (
        f"{counted(count, 'label')} of {found.looked:,} looked at {be(count)} in doubt; "
        f"about {found.estimate:.1%} of all are wrong"
    )
    advice = f"{look} (in doubt by a simple model that is right on {found.accuracy:.1%})"
    return [Finding(code="wrong_labels", level=WARNING, text=text, advice=advice, share=share)]
