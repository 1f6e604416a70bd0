"""What a task of the search benchmark is: a space, fidelities, and the error of a setting at one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.space import Parameter

Setting = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """What one training gave; both are errors or losses (lower is better) and always finite.

    Methods see `validation` alone; `test` is what the benchmark scores.
    """

    validation: float
    test: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task: what is searched, how cheaply it can be looked at, and what a setting is worth.

    Attributes:
        name: family/name.
        family: rpart, lcbench, taskset, table or live.
        half: tuning (methods may be tuned on it) or held-out.
        space: the parameters; a setting names every one of them.
        lowest: the smallest fidelity, a share of a full-scale training.
        levels: the fidelities that exist, ascending, the last one 1.0; empty: every value from `lowest` to 1.
        resumable: going on from a checkpoint costs only the rest (epochs, steps); not so for data size.
        score: the results of settings at fidelities, for one seed.
        pool: every known setting, where the task is a finite table of them; empty: any setting is known.
    """

    name: str
    family: str
    half: str
    space: tuple[Parameter, ...]
    lowest: float
    levels: tuple[float, ...] = ()
    resumable: bool
    score: Callable[[Sequence[Setting], Sequence[float], int], list[Result]]
    pool: tuple[Setting, ...] = ()

    @property
    def fidelities(self) -> tuple[float, ...]:
        """Return the levels that exist, or the two ends of the continuous range."""
        return self.levels or (self.lowest, 1.0)

    def snap(self, fidelity: float) -> float:
        """Return the fidelity that exists nearest to the one asked for; this is also its cost."""
        if self.levels:
            return min(self.levels, key=lambda level: abs(level - fidelity))
        return min(max(float(fidelity), self.lowest), 1.0)

    def evaluate(self, setting: Setting, fidelity: float = 1.0, seed: int = 0) -> Result:
        """Return what training with a setting gives at a fidelity (snapped to one that exists)."""
        return self.score([setting], [self.snap(fidelity)], seed)[0]

    def evaluate_many(
        self, settings: Sequence[Setting], fidelities: Sequence[float] | float = 1.0, seed: int = 0
    ) -> list[Result]:
        """Return the results of many settings at once, at one fidelity or at one for each."""
        asked = fidelities if isinstance(fidelities, Sequence) else [fidelities] * len(settings)
        return self.score(settings, [self.snap(fidelity) for fidelity in asked], seed) if settings else []

    def curve(self, setting: Setting, fidelity: float = 1.0, seed: int = 0) -> list[tuple[float, float]]:
        """Return (fidelity, validation error) at every level of a resumable task up to a fidelity."""
        if not self.resumable:
            raise ValueError(f"{self.name} has no learning curve: its fidelity is not a length of training")
        last = self.snap(fidelity)
        levels = [level for level in self.levels if level <= last]
        results = self.score([setting] * len(levels), levels, seed)
        return [(level, result.validation) for level, result in zip(levels, results, strict=True)]
