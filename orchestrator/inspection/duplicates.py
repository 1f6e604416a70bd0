"""Samples that are there twice: exactly, or nearly; with different labels; on both sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.hashing import LOOK, hashed
from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, Finding, be, counted
from orchestrator.inspection.raw import Ids, Raw, chunks

NEAR = 0.2
"""Of the distance that neighbours usually have: so near is no chance in more than a few dimensions."""
_VERY_NEAR = 0.05
_OF_LOCAL = 0.35  # of the distance to the fifth neighbour
_FEWEST_FEATURES = 4  # with fewer, neighbours are near each other by chance
_SAME = 1e-9
PARTS = ("train", "validation", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicates:
    """Samples that are copies of each other.

    Attributes:
        looked: at so many samples.
        groups: ids of copies, each group ascending; those with different labels first, then those that
            reach across the split.
        copies: samples that could go: all but one of each group.
        conflicting: samples in groups with different labels.
        across: validation and test samples that have a copy in training.
    """

    looked: int
    groups: tuple[tuple[int, ...], ...]
    copies: int
    conflicting: int
    across: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Two samples that are nearly the same.

    Attributes:
        first, second: their ids.
        ratio: their distance over that which nearest neighbours usually have.
        labels_differ: they have different labels.
        across: they are in different parts of the split.
    """

    first: int
    second: int
    ratio: float
    labels_differ: bool
    across: bool


def digests(raw: Raw, ids: Ids, progress: Callable[[int], None] = lambda done: None) -> NDArray[np.uint64]:
    """Return a hash of each sample (k,), the same for the same values; reads them chunk by chunk."""
    result = np.empty(len(ids), dtype=np.uint64)
    done = 0
    for part, samples in chunks(raw, ids):
        rows = np.ascontiguousarray(samples + samples.dtype.type(0)).reshape(len(part), -1)  # no minus zero
        found = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in rows)
        result[done : done + len(part)] = np.frombuffer(b"".join(found), dtype=np.uint64)
        empty = np.isnan(rows).all(axis=1)  # what could not be read is like nothing else
        result[done : done + len(part)][empty] = hashed(0, LOOK, part[empty])
        done += len(part)
        progress(done)
    return result


def exact(
    keys: NDArray[np.uint64], ids: Ids, labels: NDArray[Any] | None, parts: NDArray[np.int8]
) -> Duplicates:
    """Find the samples that are exactly the same.

    Args:
        keys: (k,) what `digests` gave.
        ids: (k,) of the samples.
        labels: (n,) of all samples, or None.
        parts: (n,) of all samples: 0 train, 1 validation, 2 test.
    """
    order = np.argsort(keys, kind="stable")
    starts = (
        np.flatnonzero(np.r_[True, keys[order][1:] != keys[order][:-1]]) if len(keys) else np.array([], int)
    )
    sizes = np.diff(np.r_[starts, len(keys)])
    groups = [
        ids[np.sort(order[s : s + k])] for s, k in zip(starts[sizes > 1], sizes[sizes > 1], strict=True)
    ]
    known = [labels[group][labels[group] >= 0] if labels is not None else group[:0] for group in groups]
    differ = [len(each) > 1 and bool((each != each[0]).any()) for each in known]
    leaks = [int((parts[group] > 0).sum()) if (parts[group] == 0).any() else 0 for group in groups]
    weight = sorted(range(len(groups)), key=lambda k: (not differ[k], leaks[k] == 0, int(groups[k][0])))
    return Duplicates(
        looked=len(keys),
        groups=tuple(tuple(groups[k].tolist()) for k in weight),
        copies=sum(len(group) - 1 for group in groups),
        conflicting=sum(len(group) for group, one in zip(groups, differ, strict=True) if one),
        across=sum(leaks),
    )


def near(
    distances: NDArray[np.float64],
    neighbours: Ids,
    ids: Ids,
    keys: NDArray[np.uint64],
    labels: NDArray[Any] | None,
    parts: NDArray[np.int8],
    features: int,
) -> tuple[Pair, ...]:
    """Find pairs that are nearly the same, nearest first.

    Args:
        distances, neighbours: (k, m) of each sample's nearest others, as places in `ids`.
        ids: (k,) of the samples.
        keys: (k,) their hashes: what is exactly the same is not meant here.
        labels, parts: of all samples, as for `exact`.
        features: how many numbers the distances are of.
    """
    usual = usual_distance(distances)
    if features < _FEWEST_FEATURES or usual <= 0:
        return ()
    # Where samples lie dense, as the ones among handwritten digits do, near is nearer.
    last = distances[:, -1]
    local = _OF_LOCAL * np.minimum(last[:, None], last[neighbours])
    row, column = np.nonzero(
        (distances < NEAR * usual) & ((distances < local) | (distances < _VERY_NEAR * usual))
    )
    other = neighbours[row, column]
    real = (keys[row] != keys[other]) & ((row < other) | ~(neighbours[other] == row[:, None]).any(axis=1))
    pairs = {}
    for k in np.flatnonzero(real):
        first, second = sorted((int(ids[row[k]]), int(ids[other[k]])))
        differ = (
            labels is not None and labels[first] >= 0 <= labels[second] and labels[first] != labels[second]
        )
        pairs[first, second] = Pair(
            first=first,
            second=second,
            ratio=float(distances[row[k], column[k]] / usual),
            labels_differ=bool(differ),
            across=bool(parts[first] != parts[second]),
        )
    return tuple(sorted(pairs.values(), key=lambda pair: pair.ratio))


def usual_distance(distances: NDArray[np.float64]) -> float:
    """Return the median distance to the nearest sample that is not the same; 0 where all are the same."""
    real = np.where(distances > _SAME * max(float(distances.max(initial=0)), 1e-300), distances, np.inf)
    nearest = real.min(axis=1) if distances.shape[1] else np.array([])
    nearest = nearest[np.isfinite(nearest)]
    return float(np.median(nearest)) if len(nearest) else 0.0


def duplicate_findings(found: Duplicates, pairs: tuple[Pair, ...], looked: int) -> list[Finding]:
    """Say what copies mean; `looked` is how many samples were compared for near copies."""
    result = []

    def add(code: str, level: str, count: int, of: int, text: str, advice: str) -> None:
        if count:
            result.append(Finding(code=code, level=level, text=text, advice=advice, share=count / max(of, 1)))

    n = found.looked
    stand = "also stands" if found.across == 1 else "also stand"
    groups = counted(len(found.groups), "group")
    add(
        *("leak", PROBLEM, found.across, n),
        f"{counted(found.across, 'validation or test sample')} {stand} in the training part",
        "Remove the copies before splitting: scores on them measure memory",
    )
    add(
        *("conflicting", PROBLEM, found.conflicting, n),
        f"{counted(found.conflicting, 'sample')} are exact copies of one with another label",
        "One of the labels is wrong, or the inputs do not tell the classes apart",
    )
    add(
        *("duplicates", WARNING if found.copies > 0.01 * n else NOTE, found.copies, n),
        f"{counted(found.copies, 'sample')} of {n:,} {be(found.copies)} the same as another, in {groups}",
        "Keep one of each, unless they are different events that happen to look the same",
    )
    across = sum(pair.across for pair in pairs)
    differ = sum(pair.labels_differ for pair in pairs)
    more = [f"{across} across the parts of the split"] * bool(across) + [
        f"{differ} with different labels"
    ] * bool(differ)
    add(
        *("near_duplicates", WARNING if across or differ else NOTE, len(pairs), looked),
        f"{counted(len(pairs), 'pair')} nearly the same{': ' if more else ''}{', '.join(more)}",
        "Look at them: keep what belongs together in one part of the split",
    )
    return result
