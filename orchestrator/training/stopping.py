"""When training ends, and what then becomes of the validation data (Goodfellow et al. 2016, section 7.8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import UserError, nearest
from orchestrator.training.metrics import gain
from orchestrator.training.settings import StoppingSettings

STOP, RETRAIN, GO_ON, REPORT = "stop", "retrain", "go_on", "report"
CONTINUATIONS = (STOP, RETRAIN, GO_ON, REPORT)


@dataclass(slots=True)
class Best:
    """The best epoch so far, and the one that patience is counted from.

    Attributes:
        metrics: of the best epoch, with its number as `best_epoch`; None before the first.
        updates: steps of the optimizer that it had had.
        mark: metrics of the last epoch that was better by more than `min_gain`, and its number.
    """

    metrics: dict[str, float] | None = None
    updates: int = 0
    mark: dict[str, float] | None = None

    def see(self, epoch: int, metrics: Mapping[str, float], updates: int, name: str, min_gain: float) -> bool:
        """Take in an epoch; say whether it is the best so far."""
        known = {**metrics, "best_epoch": float(epoch)}
        if self.mark is None or gain(metrics, self.mark, name) > min_gain:
            self.mark = known
        if self.metrics is not None and not gain(metrics, self.metrics, name) > 0:
            return False
        self.metrics, self.updates = known, updates
        return True

    def waited(self, epoch: int) -> int:
        """Return the epochs since the last one that was better."""
        return epoch - int(self.mark["best_epoch"]) if self.mark is not None else 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"metrics": self.metrics, "updates": self.updates, "mark": self.mark}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.metrics, self.updates, self.mark = state["metrics"], state["updates"], state["mark"]


@dataclass(slots=True)
class Plateau:
    """A stretch of epochs in which patience came to its end.

    Attributes:
        since: the last epoch that was better.
        until: the next one that was; None while there is none.
        before: the metrics of the epoch `since`.
    """

    since: int
    until: int | None
    before: dict[str, float]


def check_stopping(settings: StoppingSettings) -> None:
    """Refuse settings that mean nothing.

    Raises:
        UserError: with the key.
    """
    if settings.then not in CONTINUATIONS:
        hint = nearest(settings.then, CONTINUATIONS)
        raise UserError(f"there is no '{settings.then}'", key="stopping.then", hint=hint)
    if settings.then == REPORT and settings.patience is None:
        raise UserError(
            "reports plateaus, and there is no patience to find them with",
            key="stopping.then",
            hint="Say after how many epochs: stopping.patience=10",
        )
    if settings.patience is not None and settings.patience < 1:
        raise UserError(f"{settings.patience} is below 1", key="stopping.patience")
    if not settings.min_gain >= 0 or math.isinf(settings.min_gain):
        raise UserError(f"{settings.min_gain} is not a number from 0 up", key="stopping.min_gain")


def is_over(settings: StoppingSettings, best: Best, epoch: int) -> bool:
    """Say whether patience has come to its end after an epoch, and training with it."""
    return (
        settings.then != REPORT and settings.patience is not None and best.waited(epoch) >= settings.patience
    )
