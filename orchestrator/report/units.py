"""Counts and times as a person reads them."""

from __future__ import annotations

import math


def counted(number: int, noun: str) -> str:
    """Return "1 trial", "1,024 trials"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return seconds, minutes or hours; a dash for what is not known."""
    if not math.isfinite(seconds):
        return "–"
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"
