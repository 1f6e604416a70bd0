"""How the labels are distributed: class counts and imbalance, or the values of a regression."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, Finding, counted, some

ENOUGH = 5000
"""Samples of each class for acceptable results (B10)."""
_IMBALANCED, _VERY_IMBALANCED = 3.0, 20.0
_BINS = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Samples of each class.

    Attributes:
        names: of the classes.
        counts: in the same order.
        unlabelled: samples without a class.
        ratio: the largest class over the smallest that has any; NaN without classes.
        effective: the number of equally large classes that would be as uncertain: exp of the entropy.
    """

    names: tuple[str, ...]
    counts: tuple[int, ...]
    unlabelled: int
    ratio: float
    effective: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """The values of a regression.

    Attributes:
        missing: values that are gaps or infinite.
        low, quarter, median, three_quarters, high: of the others, as are mean and deviation; NaN without any.
        skew: their skewness.
        distinct: how many different ones.
        edges: of a histogram's bins, (bins + 1,).
        histogram: samples in each.
    """

    missing: int
    low: float
    quarter: float
    median: float
    three_quarters: float
    high: float
    mean: float
    deviation: float
    skew: float
    distinct: int
    edges: tuple[float, ...]
    histogram: tuple[int, ...]


def class_balance(labels: NDArray[np.int64], names: tuple[str, ...]) -> Balance:
    """Count classes; labels (n,), -1 for none."""
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    present = counts[counts > 0]
    shares = present / max(present.sum(), 1)
    return Balance(
        names=names,
        counts=tuple(counts.tolist()),
        unlabelled=int((labels < 0).sum()),
        ratio=float(present.max() / present.min()) if len(present) else float("nan"),
        effective=float(np.exp(-(shares * np.log(shares)).sum())) if len(present) else 0.0,
    )


def balance_findings(balance: Balance) -> list[Finding]:
    """Say what the class counts mean."""
    found = []
    counts = dict(zip(balance.names, balance.counts, strict=True))
    total = sum(balance.counts) + balance.unlabelled
    present = [name for name, count in counts.items() if count]
    if balance.unlabelled:
        text = f"no label in {counted(balance.unlabelled, 'sample')} of {total:,}"
        advice = "Label them, or leave them out: training refuses them"
        found.append(_finding("no_label", PROBLEM, text, advice, balance.unlabelled / max(total, 1)))
    if len(present) < 2:
        text = f"all samples are of one class, '{present[0]}'" if present else "there is no labelled sample"
        found.append(_finding("one_class", PROBLEM, text, "There is nothing to tell apart", 1.0))
        return found
    lone = [name for name in present if counts[name] == 1]
    if lone:
        text = f"{len(lone)} of {len(counts)} classes have a single sample: {some(lone)}"
        advice = "It can be in one part alone: collect more, merge or drop these classes"
        found.append(_finding("lone_samples", WARNING, text, advice, len(lone) / total))
    if balance.ratio >= _IMBALANCED:
        small, large = min(present, key=counts.__getitem__), max(present, key=counts.__getitem__)
        text = (
            f"class '{large}' has {balance.ratio:,.3g} times the samples of '{small}' ({counts[large]:,} "
            f"and {counts[small]:,}); {len(present)} classes weigh as {balance.effective:.3g} equal ones"
        )
        advice = "Sweep balance (over, under, both, batch), loss.class_weights: inverse_sqrt, a margin loss"
        level = WARNING if balance.ratio >= _VERY_IMBALANCED else NOTE
        found.append(_finding("imbalance", level, text, f"{advice}; report recall by class", 1.0))
    few = [name for name in present if counts[name] < ENOUGH]
    if few:
        fewest = min(counts[name] for name in few)
        which = "every class has" if len(few) == len(present) else f"{some(few)} have"
        text = f"{which} fewer than {ENOUGH:,} samples; the smallest has {fewest:,}"
        advice = "Expect acceptable results from about 5,000 a class: augment, fine-tune, or collect more"
        found.append(_finding("few_samples", NOTE, text, advice, len(few) / len(present)))
    return found


def describe_values(targets: NDArray[np.float64]) -> Values:
    """Describe values (n,) to be predicted."""
    from scipy.stats import skew

    finite = targets[np.isfinite(targets)].astype(np.float64)
    missing = len(targets) - len(finite)
    if not len(finite):
        nan = float("nan")
        numbers: dict[str, Any] = dict.fromkeys(
            ("low", "quarter", "median", "three_quarters", "high", "mean", "deviation", "skew"), nan
        )
        return Values(missing=missing, distinct=0, edges=(), histogram=(), **numbers)
    low, quarter, median, three_quarters, high = np.percentile(finite, (0, 25, 50, 75, 100)).tolist()
    histogram, edges = (
        np.histogram(finite, bins=_BINS) if low < high else (np.array([len(finite)]), [low, low])
    )
    return Values(
        missing=missing,
        low=low,
        quarter=quarter,
        median=median,
        three_quarters=three_quarters,
        high=high,
        mean=float(finite.mean()),
        deviation=float(finite.std()),
        skew=float(skew(finite)) if low < high else 0.0,
        distinct=len(np.unique(finite)),
        edges=tuple(float(each) for each in edges),
        histogram=tuple(int(each) for each in histogram),
    )


def value_findings(values: Values, count: int) -> list[Finding]:
    """Say what the values to be predicted mean; `count` is of all samples."""
    found = []
    if values.missing:
        text = f"the value to predict is missing or infinite in {values.missing:,} of {count:,} samples"
        share = values.missing / max(count, 1)
        found.append(_finding("no_label", PROBLEM, text, "Fill or leave out these samples", share))
    if values.distinct <= 1:
        text = "the value to predict is the same everywhere"
        found.append(_finding("one_class", PROBLEM, text, "There is nothing to predict", 1.0))
    elif abs(values.skew) > 1:
        middle = f"median {values.median:.4g}, mean {values.mean:.4g}"
        text = f"the value to predict is skewed ({values.skew:+.2g}): {middle}"
        advice = "Predict its logarithm, or use a loss that far values do not rule (huber, absolute)"
        found.append(_finding("skewed_target", NOTE, text, advice, 1.0))
    if 1 < values.distinct <= 20 and count > 100:
        text = f"the value to predict takes {values.distinct} different values alone"
        found.append(_finding("few_values", NOTE, text, "It may rather be classes: task=classification", 1.0))
    return found


def _finding(code: str, level: str, text: str, advice: str, share: float) -> Finding:
    return Finding(code=code, level=level, text=text, advice=advice, share=share)
