"""An observation: a finished trial as samplers and narrowing see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished trial as a sampler sees it: its setting, and its objective with larger always better."""

    # only the parameters that are there in this setting
    params: Mapping[str, Any]
    # -inf: it diverged
    objective: float
    # how much of a full-scale training the trial saw, in (0, 1]
    scale: float = 1.0
    # False: stopped before its end, so the objective is only an early value
    settled: bool = True
