"""Counts what a method spends on a task, and keeps its choice at every cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from task import Setting, Task

from orchestrator.space import setting_id

# Costs are sums of many small shares; two sums of the same shares may differ by this much.
ROUNDING = 1e-6
# A method that asks this often in a row for what it knows already will ask for ever.
REPEATS = 1000


class Spent(Exception):
    """The budget doesn't allow the training asked for."""


@dataclass(frozen=True, slots=True)
class Point:
    """A method's choice from a cost on: the setting, and how much of a full-scale training it has seen."""

    cost: float
    setting: Setting
    fidelity: float
    validation: float
    rest: float  # what training it at full scale would cost on top


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a method chose and what it had spent by then, the full-scale training of its choice included."""

    setting: Setting
    cost: float


class Meter:
    """A task as a method may see it: validation errors only, each at its price.

    The price of a training is its fidelity; where a task is resumable, going on with a setting costs only
    the rest. What a setting gave at a fidelity is on record and costs nothing the second time.

    The choice is the best validation error at the highest fidelity that any setting has reached
    (`highest_observed_budget` in SMAC's words).
    """

    def __init__(self, task: Task, budget: float, seed: int = 0) -> None:
        self.task, self.budget, self.seed = task, budget, seed
        self.spent = 0.0
        self.trace: list[Point] = []
        self._seen: dict[str, dict[float, float]] = {}
        self._repeats = 0

    @property
    def left(self) -> float:
        """Return what is left of the budget."""
        return self.budget - self.spent

    def price(self, setting: Setting, fidelity: float = 1.0) -> float:
        """Return what training a setting at a fidelity would cost now."""
        asked = self.task.snap(fidelity)
        seen = self._seen.get(setting_id(setting), {})
        if asked in seen:
            return 0.0
        done = max(seen, default=0.0) if self.task.resumable else 0.0
        return max(asked - done, 0.0)

    def evaluate(self, setting: Setting, fidelity: float = 1.0) -> float:
        """Train a setting at a fidelity and return its validation error.

        Raises:
            Spent: the training costs more than is left, or the method only repeats itself.
        """
        asked, price = self.task.snap(fidelity), self.price(setting, fidelity)
        if price > self.left + ROUNDING:
            raise Spent
        self._repeats = 0 if price else self._repeats + 1
        if self._repeats > REPEATS:
            raise Spent
        seen = self._seen.setdefault(setting_id(setting), {})
        if asked not in seen:
            seen[asked] = self.task.evaluate(setting, asked, self.seed).validation
            self.spent += price
            self._consider(setting, asked, seen[asked])
        return seen[asked]

    def _consider(self, setting: Setting, fidelity: float, validation: float) -> None:
        best = self.trace[-1] if self.trace else None
        if best is None or (fidelity, -validation) > (best.fidelity, -best.validation):
            rest = 0.0 if fidelity == 1.0 else 1.0 - fidelity * self.task.resumable
            self.trace.append(Point(self.spent, setting, fidelity, validation, rest))


def choice_at(trace: Sequence[Point], budget: float) -> Outcome | None:
    """Return the last choice whose full-scale training still fits into a budget; None: none does."""
    fitting = [point for point in trace if point.cost + point.rest <= budget + ROUNDING]
    return Outcome(fitting[-1].setting, fitting[-1].cost + fitting[-1].rest) if fitting else None
