"""Differences between variants, paired by seed, and whether they are more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from report import paired
from scipy.stats import t as student


@dataclass(frozen=True, slots=True)
class Difference:
    """A mean difference over seeds.

    Attributes:
        sure: its sign where Student's t says that it is none of chance (95%, both sides), else 0.
    """

    mean: float
    error: float
    sure: int

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ± {self.error:.3f}"


def against(rows: Sequence[dict[str, Any]], metric: str, one: str, other: str) -> Difference:
    """Compare two variants: one - other."""
    mean, error = paired(rows, metric, one, other)
    seeds = len({row["seed"] for row in rows if row["variant"] == one})
    beyond = seeds > 1 and abs(mean) > float(student.ppf(0.975, seeds - 1)) * error
    return Difference(mean, error, int(math.copysign(1, mean)) if beyond else 0)


def mean_of(rows: Sequence[dict[str, Any]], metric: str, variant: str) -> float:
    values = [row[metric] for row in rows if row["variant"] == variant]
    return sum(values) / len(values)
