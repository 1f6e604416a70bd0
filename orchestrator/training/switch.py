"""Another optimizer from some moment on: Adam to come close fast, then SGD, which generalizes better.

Keskar and Socher 2017, "Improving generalization performance by switching from Adam to SGD".

The loop asks after each epoch, and on the answer makes the new optimizer out of the old one's groups:

    if switch is not None and switch.due(epoch, val_loss):
        optimizer = switch.make(optimizer)
        schedule = build_schedule(optimizer, after_switch(settings.schedule), epochs=left, ...)

A run that is taken up again builds the first optimizer as ever, loads the switch's state, and where
`switch.switched` says so does the same with `switch.switched_at` as the epoch, before it loads the states of
optimizer and schedule. What `make` sets is then overwritten by what was saved, so the run has the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch.optim import Optimizer

from orchestrator.errors import UserError, nearest
from orchestrator.training.optimizers import ADAPTIVE, OPTIMIZERS, build_optimizer
from orchestrator.training.settings import OptimizerSettings, ScheduleSettings

# SGD's good rates lie about so far above Adam's.
SGD_OVER_ADAPTIVE = 10.0


class Switch:
    """When another optimizer takes over, and what it is.

    Attributes:
        switched_at: the epoch after which it did, None before that.
    """

    def __init__(self, settings: OptimizerSettings) -> None:
        self._settings = settings
        self.switched_at: int | None = None
        self._best = math.inf
        self._without_gain = 0

    @property
    def switched(self) -> bool:
        """Whether the other optimizer has taken over."""
        return self.switched_at is not None

    def due(self, epoch: int, val_loss: float) -> bool:
        """Say whether the other optimizer takes over now; to be asked once after each epoch.

        Args:
            epoch: passes done, from 1.
            val_loss: after that pass; one that is not finite counts as no gain.
        """
        if self.switched:
            return False
        gained = val_loss < self._best
        self._best = min(self._best, val_loss) if gained else self._best
        self._without_gain = 0 if gained else self._without_gain + 1
        wanted = self._settings.switch
        due = epoch >= wanted.at if wanted.at is not None else self._without_gain >= wanted.patience
        if due:
            self.switched_at = epoch
        return due

    def make(self, before: Optimizer) -> Optimizer:
        """Return the other optimizer, with the groups of the one before and the ratios of their rates.

        Its rates begin at `switch.lr`, or at what the one before has now, ten times that for sgd after an
        adaptive one. Its own state begins empty.
        """
        to, lr = self._settings.switch.to, self._settings.switch.lr
        assert to is not None, "build_switch makes none then"
        factor = SGD_OVER_ADAPTIVE if to == "sgd" and self._settings.name in ADAPTIVE else 1.0
        if lr is not None:
            highest = max(group["lr"] for group in before.param_groups)
            factor = lr / highest if highest > 0 else 0.0
        groups = [{"params": group["params"], "lr": group["lr"] * factor} for group in before.param_groups]
        return build_optimizer(groups, after(self._settings))

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint."""
        return {"switched_at": self.switched_at, "best": self._best, "without_gain": self._without_gain}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds."""
        self.switched_at, self._best = state["switched_at"], state["best"]
        self._without_gain = state["without_gain"]


def build_switch(settings: OptimizerSettings) -> Switch | None:
    """Return the switch that the settings ask for, None where they ask for none.

    Raises:
        UserError: an optimizer that does not exist, or a number out of range.
    """
    wanted = settings.switch
    if wanted.to is None:
        return None
    if wanted.to not in OPTIMIZERS:
        hint = nearest(wanted.to, OPTIMIZERS)
        raise UserError(f"there is no optimizer '{wanted.to}'", key="optimizer.switch.to", hint=hint)
    if wanted.patience < 1:
        raise UserError(f"{wanted.patience} is below 1", key="optimizer.switch.patience")
    for key in ("at", "lr"):
        value = getattr(wanted, key)
        if value is not None and not value >= 0:
            raise UserError(f"{value} is negative", key=f"optimizer.switch.{key}")
    return Switch(settings)


def after(settings: OptimizerSettings) -> OptimizerSettings:
    """Return the settings of the other optimizer: the same but for the name, no growing momentum."""
    return replace(settings, name=settings.switch.to or settings.name, momentum_start=None)


def after_switch(settings: ScheduleSettings) -> ScheduleSettings:
    """Return the schedule of the epochs that are left: the same one, without warming up again."""
    return replace(settings, warmup_epochs=0.0)
