"""Samples that are far from all others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.finding import NOTE, Finding, counted
from orchestrator.inspection.raw import Ids

FAR = 5.0
"""Robust deviations of the log distance, from its median."""
NEIGHBOURS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlier:
    """A sample far from the others.

    Attributes:
        id: of it.
        times: its distance over the usual one.
    """

    id: int
    times: float


def nearest(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], Ids]:
    """Return distances to each sample's 5 nearest others, and their places: (n, 5) or fewer columns.

    Args:
        rows: (n, features), finite.
    """
    count = min(NEIGHBOURS, len(rows) - 1)
    if count < 1 or not rows.shape[1]:
        return np.empty((len(rows), 0)), np.empty((len(rows), 0), dtype=np.int64)
    from sklearn.neighbors import NearestNeighbors

    distances, places = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows).kneighbors()
    return distances, places.astype(np.int64)


def far(distances: NDArray[np.float64], ids: Ids) -> tuple[Outlier, ...]:
    """Return the samples whose distance to the 5th neighbour is out of all proportion, farthest first.

    Distances are compared on a logarithmic scale: they are positive and skewed.

    Args:
        distances: (n, neighbours) ascending.
        ids: (n,).
    """
    if not distances.shape[1] or len(distances) < 4 * NEIGHBOURS:
        return ()
    last = distances[:, -1]
    positive = last[last > 0]
    if not len(positive):
        return ()
    logs = np.log(np.maximum(last, positive.min()))
    median = np.median(logs)
    spread = 1.4826 * np.median(np.abs(logs - median)) or logs.std()
    if not spread:
        return ()
    score = (logs - median) / spread
    order = np.argsort(-score, kind="stable")
    usual = float(np.exp(median))
    return tuple(Outlier(id=int(ids[k]), times=float(last[k] / usual)) for k in order if score[k] > FAR)


def strange(
    row: NDArray[Any], centre: NDArray[Any], width: NDArray[Any], names: tuple[str, ...]
) -> list[str]:
    """Say in what a table's row is unusual: its three columns farthest out, as "name = value".

    Args:
        row: (features,); centre, width: medians and deviations of the columns.
        names: of the columns.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        distance = np.abs(row - centre) / np.where(width > 0, width, np.nan)
    distance = np.nan_to_num(distance, nan=-1.0, posinf=np.inf)
    order = np.argsort(-distance, kind="stable")[:3]
    return [f"{names[k]} = {row[k]:.4g}" for k in order if distance[k] > 1]


def outlier_findings(found: tuple[Outlier, ...], looked: int) -> list[Finding]:
    """Say what outliers mean; `looked` is how many samples were compared."""
    if not found:
        return []
    lie = "lies" if len(found) == 1 else "lie"
    text = (
        f"{counted(len(found), 'sample')} of {looked:,} looked at {lie} far from all others, "
        f"up to {found[0].times:.2g} times the usual distance"
    )
    advice = "Look at them: a broken measurement should go, a rare true one should stay"
    return [Finding(code="outliers", level=NOTE, text=text, advice=advice, share=len(found) / looked)]
