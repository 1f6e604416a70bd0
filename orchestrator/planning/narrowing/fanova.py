"""fANOVA: how much of what a forest's predictions vary by each parameter accounts for alone.

Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance" (ICML 2014),
sections 3.2 and 3.3. The forest is scikit-learn's, and the shares are those of Optuna's evaluator, which a
test compares. That one is not called, because it walks through all corners of a choice: two to the power of
its values, which for twenty of them takes an hour. Here the same variance is summed over pairs of leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The forest, and its seed.
TREES, DEPTH, SEED = 32, 8, 0


def fanova(along: Mapping[str, NDArray[np.float64]], values: NDArray[np.float64]) -> dict[str, float]:
    """Return each parameter's share of what the parameters alone account for, without their interactions.

    Args:
        along: by parameter where the trials lie, shape (trials, columns): one column for a number, and for
            a choice one for each of its values, which is 1 where a trial has it and else 0.
        values: the trials' results, shape (trials,).

    Returns:
        Shares by name that add up to 1; equal ones where the forest tells no trials apart.
    """
    names = sorted(along)  # the forest's answer hangs on the order
    places = np.concatenate([along[name] for name in names], axis=1)
    ends = np.cumsum([along[name].shape[1] for name in names])
    columns = [range(end - along[name].shape[1], end) for name, end in zip(names, ends.tolist(), strict=True)]
    shares = [found for tree in _forest(places, values) if (found := _shares(tree, columns)) is not None]
    means = np.mean(shares, axis=0).tolist() if shares else [0.0] * len(names)
    total = math.fsum(means)
    return {n: one / total if total > 0 else 1 / len(names) for n, one in zip(names, means, strict=True)}


def _forest(places: NDArray[np.float64], values: NDArray[np.float64]) -> list[Any]:
    """Return the trees of a forest that was fitted to trials, whose columns it sees between 0 and 1."""
    from sklearn.ensemble import RandomForestRegressor

    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - low) / np.where(high > low, high - low, 1.0)
    forest = RandomForestRegressor(n_estimators=TREES, max_depth=DEPTH, random_state=SEED)
    return [one.tree_ for one in forest.fit(scaled, values).estimators_]


def _shares(tree: Any, columns: list[range]) -> list[float] | None:
    """Return which part of a tree's variance each parameter accounts for; None where there is no variance.

    Args:
        tree: as scikit-learn keeps it, over columns between 0 and 1.
        columns: of each parameter.
    """
    low, high, values = _leaves(tree)
    sizes = high - low
    volumes = sizes.prod(axis=1)
    values = values - values @ volumes
    variance = float(values**2 @ volumes)
    if not variance > 0:
        return None
    shares = []
    for own in columns:
        # What two leaves share along a parameter: there their predictions, averaged over the others, meet.
        meeting = np.ones((len(values), len(values)))
        for column in own:
            upper = np.minimum(high[:, None, column], high[None, :, column])
            lower = np.maximum(low[:, None, column], low[None, :, column])
            meeting *= np.clip(upper - lower, 0.0, None)
        weighed = values * np.delete(sizes, own, axis=1).prod(axis=1)
        shares.append(max(0.0, float(weighed @ meeting @ weighed)) / variance)
    return shares


def _leaves(tree: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return where a tree's leaves begin and end, both of shape (leaves, columns), and what they predict."""
    low, high = np.zeros((tree.node_count, tree.n_features)), np.ones((tree.node_count, tree.n_features))
    feature, threshold = tree.feature.tolist(), tree.threshold.tolist()
    left, right = tree.children_left.tolist(), tree.children_right.tolist()
    for node, column in enumerate(feature):  # parents come before their children
        if column < 0:
            continue
        for child in (left[node], right[node]):
            low[child], high[child] = low[node], high[node]
        high[left[node], column] = low[right[node], column] = threshold[node]
    leaves = np.flatnonzero(tree.feature < 0)
    return low[leaves], high[leaves], tree.value[leaves, 0, 0]
