"""Models that are fitted in a second: the majority class, a linear one, and a forest."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler
from torch import Tensor

from orchestrator.checks.setup import Setup

# Samples that are fitted, and measured on; inputs of more numbers are reduced to their principal components.
MOST, MEASURED = 1500, 1000
FEATURES, COMPONENTS = 300, 60
# The share that is held out where a set-up has no validation samples.
HELD_OUT, FEW, HELD_OUT_OF_FEW = 0.3, 300, 0.5
TREES = 60

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Quick:
    """What simple models make of a set-up's data.

    Attributes:
        classes: whether the targets are classes; else they are values.
        truth: (m,), targets of the samples that are measured on.
        majority: (m,), the most frequent class, or the mean, of the samples that were fitted.
        linear: (m,), predictions of logistic or ridge regression.
        forest: (m,), predictions of extremely randomized trees (Geurts et al. 2006).
        fitted: how many samples were fitted.
        validation: whether it was measured on the set-up's own validation samples.
    """

    classes: bool
    truth: Array
    majority: Array
    linear: Array
    forest: Array
    fitted: int
    validation: bool

    def score(self, predicted: Array) -> float:
        """Return the accuracy, or R^2 of values."""
        if self.classes:
            return float((predicted == self.truth).mean())
        rest, spread = (
            np.square(self.truth - predicted).sum(),
            np.square(self.truth - self.truth.mean()).sum(),
        )
        return float(1 - rest / spread) if spread > 0 else 0.0


def quick_models(setup: Setup, *, own_validation: bool = True, shuffled: int | None = None) -> Quick | None:
    """Fit simple models to some of the training samples and predict others.

    Args:
        setup: gives the samples.
        own_validation: measure on the set-up's validation samples where it has some; else on training samples
            that are held out.
        shuffled: shuffle the targets of the samples that are fitted, from this seed.

    Returns:
        None where targets are not one class or one finite value for each sample, where there are fewer than
        four samples, or one class alone, or where nothing in the inputs is finite.
    """
    whole = not setup.targets.is_floating_point()
    inputs, targets = setup.inputs, _flat(setup.targets)
    if targets is None or len(targets) < 4:
        return None
    validation = setup.validation if own_validation else None
    if validation is None:
        held = min(MEASURED, round((HELD_OUT if len(targets) >= FEW else HELD_OUT_OF_FEW) * len(targets)))
        measured, truth = inputs[:held], targets[:held]
        inputs, targets = inputs[held:], targets[held:]
    else:
        their = _flat(validation[1])
        if their is None or validation[0].shape[1:] != inputs.shape[1:]:
            return None
        measured, truth = validation[0][:MEASURED], their[:MEASURED]
    inputs, targets = inputs[:MOST], targets[:MOST]
    if shuffled is not None:
        order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(shuffled))
        targets = targets[order.to(targets.device)]
    known, wanted = _array(targets, whole), _array(truth, whole)
    if len(np.unique(known)) < 2 or not (np.isfinite(known).all() and np.isfinite(wanted).all()):
        return None
    columns, other, counted = _columns(inputs, measured)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # That it stopped before the end does not matter in a baseline.
        warnings.simplefilter("ignore")
        linear = _linear(columns, whole, counted).fit(columns, known).predict(other)
        trees = ExtraTreesClassifier if whole else ExtraTreesRegressor
        positions = (columns, other) if not counted else _positions(inputs, measured)
        forest = (
            trees(TREES, min_samples_leaf=2, random_state=0).fit(positions[0], known).predict(positions[1])
        )
    return Quick(
        classes=whole,
        truth=wanted,
        majority=np.full(len(wanted), _middle(known, whole)),
        linear=linear,
        forest=forest,
        fitted=len(known),
        validation=validation is not None,
    )


def _flat(targets: Tensor) -> Tensor | None:
    """Return targets as (n,); None where a sample has several."""
    if targets.ndim == 1:
        return targets
    return targets[:, 0] if targets.ndim == 2 and targets.shape[1] == 1 else None


def _array(values: Tensor, whole: bool) -> Array:
    array: Array = values.cpu().numpy() if whole else values.float().cpu().numpy().astype(np.float64)
    return array


def _middle(known: Array, whole: bool) -> Any:
    if not whole:
        return known.mean()
    names, counts = np.unique(known, return_counts=True)
    return names[counts.argmax()]


def _columns(inputs: Tensor, measured: Tensor) -> tuple[Any, Any, bool]:
    """Return both parts as tables, and whether they are counts of tokens."""
    if not inputs.is_floating_point():
        most = int(max(inputs.max(), measured.max())) + 1
        return _counts(inputs, most), _counts(measured, most), True
    tables = []
    for part in (inputs, measured):
        flat = part.reshape(len(part), -1).float().cpu()
        tables.append(torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0).numpy())
    scaled = StandardScaler().fit(tables[0])
    one, other = (scaled.transform(table) for table in tables)
    if one.shape[1] > FEATURES and len(one) > COMPONENTS:
        shrink = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(one)
        one, other = shrink.transform(one), shrink.transform(other)
    return one, other, False


def _counts(tokens: Tensor, most: int) -> Any:
    """Return how often each token stands in each sequence, padding left out."""
    table = tokens.reshape(len(tokens), -1).cpu().numpy()
    rows = np.repeat(np.arange(len(table)), table.shape[1])
    entries = (np.ones(table.size, np.float32), (rows, table.ravel().clip(min=0)))
    counts = sparse.csr_matrix(entries, shape=(len(table), most))
    return counts[:, 1:] if most > 1 else counts


def _positions(inputs: Tensor, measured: Tensor) -> tuple[Array, Array]:
    """Return the tokens themselves, by position: some tasks are about order, not counts."""
    return tuple(part.reshape(len(part), -1).cpu().numpy() for part in (inputs, measured))  # type: ignore[return-value]


def _linear(columns: Any, whole: bool, counted: bool) -> Any:
    model = LogisticRegression(max_iter=60, C=0.1 if not counted else 1.0) if whole else Ridge(alpha=1.0)
    return make_pipeline(MaxAbsScaler(), model) if counted else model
