"""Learning-rate schedules, by name, on torch's own; each may begin with a linear warm-up (practice, C3, C5).

The default is none: a decay that was tuned for another length ends training early. Schedules take one step
for each update, so a short trial of a few epochs has as smooth a curve as a long one; plateau acts after each
epoch. All of them keep the ratios of the rates of parameter groups.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    CyclicLR,
    ExponentialLR,
    LambdaLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import OptimizerSettings, ScheduleSettings

_WARMUP_START = 0.01  # of the full rate


@dataclass(frozen=True, slots=True)
class Length:
    """How long a schedule has: updates after the warm-up, and updates of an epoch."""

    updates: int
    epoch_updates: int


@dataclass(frozen=True, slots=True)
class Growth:
    """SGD's momentum from `start` linearly to `end` within `updates` (as in Sutskever et al. 2013)."""

    start: float
    end: float
    updates: int

    def set(self, optimizer: Optimizer, update: int) -> None:
        """Set the momentum that holds after so many updates."""
        share = min(1.0, update / self.updates) if self.updates else 1.0
        for group in optimizer.param_groups:
            group["momentum"] = self.start + (self.end - self.start) * share


class Schedule:
    """What moves an optimizer's rates, and its momentum, during a run.

    After the planned end of the run the rates stay as they are then, so that it may go on.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        total: int,
        by_update: LRScheduler | None = None,
        plateau: ReduceLROnPlateau | None = None,
        plateau_from: int = 0,
        growth: Growth | None = None,
    ) -> None:
        self._optimizer, self._total = optimizer, total
        self._by_update, self._plateau, self._plateau_from = by_update, plateau, plateau_from
        self._growth = growth
        self._updates = 0
        if growth is not None:
            growth.set(optimizer, 0)

    def step(self) -> None:
        """Set the rates for the next update; to be called after each one."""
        self._updates += 1
        if self._by_update is not None and self._updates <= self._total:
            self._by_update.step()
        if self._growth is not None:
            self._growth.set(self._optimizer, self._updates)

    def epoch_end(self, val_loss: float) -> None:
        """Cut the rates where the validation loss has stopped falling; to be called after each epoch."""
        if self._plateau is not None and self._updates >= self._plateau_from:
            self._plateau.step(val_loss)

    def state_dict(self) -> dict[str, Any]:
        """Return plain values for a checkpoint; the rates themselves are in the optimizer's."""
        return {
            "updates": self._updates,
            "by_update": self._by_update.state_dict() if self._by_update is not None else None,
            "plateau": self._plateau.state_dict() if self._plateau is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds; the optimizer's state is to be loaded, too."""
        state = copy.deepcopy(dict(state))  # torch's cyclical takes its part to pieces
        self._updates = state["updates"]
        if self._by_update is not None:
            self._by_update.load_state_dict(state["by_update"])
        if self._plateau is not None:
            self._plateau.load_state_dict(state["plateau"])


def build_schedule(
    optimizer: Optimizer,
    settings: ScheduleSettings,
    *,
    epochs: int,
    epoch_updates: int,
    momentum: OptimizerSettings | None = None,
) -> Schedule | None:
    """Build the schedule of a run of `epochs` epochs of `epoch_updates` updates; None moves nothing.

    Args:
        optimizer: its rates are the highest (cyclical, one_cycle) or the first ones after the warm-up.
        settings: which schedule.
        epochs: planned, or left.
        epoch_updates: batches of an epoch.
        momentum: the optimizer's settings, where a growing momentum is to be followed.

    Raises:
        UserError: a name that does not exist, or a number out of range.
    """
    _check(settings)
    warmup = max(0, round(settings.warmup_epochs * epoch_updates))
    total = epochs * epoch_updates
    length = Length(max(1, total - warmup), epoch_updates)
    growth = _growth(settings, momentum, epoch_updates)
    if settings.name == "none" and warmup == 0 and growth is None:
        return None
    plateau = _plateau(optimizer, settings) if settings.name == "plateau" else None
    by_update = _by_update(optimizer, settings, length, warmup)
    return Schedule(
        optimizer, total=total, by_update=by_update, plateau=plateau, plateau_from=warmup, growth=growth
    )


def _by_update(
    optimizer: Optimizer, settings: ScheduleSettings, length: Length, warmup: int
) -> LRScheduler | None:
    make = SCHEDULES[settings.name]
    if warmup == 0:
        return make(optimizer, settings, length) if make else None
    highest = [group["lr"] for group in optimizer.param_groups]
    if settings.name in CYCLES:
        # They begin low themselves: the rate rises to their low end, not to the top and back down.
        for group in optimizer.param_groups:
            group["lr"] *= settings.cycle_ratio
    rise = LinearLR(optimizer, start_factor=_WARMUP_START, total_iters=warmup)
    if make is None:
        return rise
    if settings.name in CYCLES:
        lows = [group["initial_lr"] for group in optimizer.param_groups]
        for group, lr in zip(optimizer.param_groups, highest, strict=True):
            group["lr"] = lr
        rest = make(optimizer, settings, length)
        for group, lr in zip(optimizer.param_groups, lows, strict=True):
            group["initial_lr"] = lr
    else:
        rest = make(optimizer, settings, length)
    return SequentialLR(optimizer, [rise, rest], milestones=[warmup])


def _step(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Cut the rate by `step_factor` every `step_epochs`."""
    size = max(1, round(settings.step_epochs * length.epoch_updates))
    return StepLR(optimizer, step_size=size, gamma=settings.step_factor)


def _exponential(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Let the rate fall by the same ratio at each update, down to `final_ratio`."""
    return ExponentialLR(optimizer, gamma=settings.final_ratio ** (1 / length.updates))


def _inverse_time(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Let the rate fall as lr / (1 + k t), t in epochs."""
    return LambdaLR(optimizer, lambda update: 1 / (1 + settings.decay * update / length.epoch_updates))


def _cosine(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Let the rate fall as half a cosine down to `final_ratio` (Loshchilov and Hutter 2017, no restarts).

    Torch's own has one lowest rate for all groups, which would not keep their ratios.
    """
    low = settings.final_ratio
    return LambdaLR(
        optimizer,
        lambda update: low + (1 - low) * (1 + math.cos(math.pi * min(1.0, update / length.updates))) / 2,
    )


def _cyclical(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Let the rate rise and fall linearly, momentum against it (Smith 2017)."""
    highest = [group["lr"] for group in optimizer.param_groups]
    low, high = _momentum_range(optimizer, settings)
    return CyclicLR(
        optimizer,
        base_lr=[lr * settings.cycle_ratio for lr in highest],
        max_lr=highest,
        step_size_up=max(1, round(settings.cycle_epochs * length.epoch_updates / 2)),
        cycle_momentum=low < high,
        base_momentum=low,
        max_momentum=high,
    )


def _one_cycle(optimizer: Optimizer, settings: ScheduleSettings, length: Length) -> LRScheduler:
    """Let the rate rise for 30% of the run, then fall to nearly nothing, momentum against it (Smith 2018)."""
    low, high = _momentum_range(optimizer, settings)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        # It counts the rate before the first update, too.
        total_steps=length.updates + 1,
        div_factor=1 / settings.cycle_ratio,
        cycle_momentum=low < high,
        base_momentum=low,
        max_momentum=high,
    )


CYCLES = ("cyclical", "one_cycle")
SCHEDULES: dict[str, Callable[[Optimizer, ScheduleSettings, Length], LRScheduler] | None] = {
    "none": None,
    "step": _step,
    "exponential": _exponential,
    "inverse_time": _inverse_time,
    "cosine": _cosine,
    "cyclical": _cyclical,
    "one_cycle": _one_cycle,
    "plateau": None,  # moves by the epoch
}


def _momentum_range(optimizer: Optimizer, settings: ScheduleSettings) -> tuple[float, float]:
    """Return the ends between which momentum moves; equal where it stays or the optimizer has none.

    The high end is the optimizer's own momentum, or Adam's beta1.
    """
    group = optimizer.param_groups[0]
    high = float(group["betas"][0]) if "betas" in group else float(group.get("momentum", 0.0))
    return (min(settings.cycle_momentum_low, high) if settings.cycle_momentum else high), high


def _plateau(optimizer: Optimizer, settings: ScheduleSettings) -> ReduceLROnPlateau:
    """Cut the rate by `step_factor` when `plateau_epochs` in a row brought no better validation loss."""
    patience = settings.plateau_epochs - 1  # torch's are epochs that are let pass before the one that cuts
    factor = settings.step_factor
    return ReduceLROnPlateau(optimizer, factor=factor, patience=patience, threshold=0.0, eps=0.0)


def _growth(
    settings: ScheduleSettings, momentum: OptimizerSettings | None, epoch_updates: int
) -> Growth | None:
    if momentum is None or momentum.momentum_start is None:
        return None
    if settings.name in CYCLES and settings.cycle_momentum:
        raise UserError(
            f"grows the momentum, which the {settings.name} schedule moves too",
            key="optimizer.momentum_start",
            hint="Say schedule.cycle_momentum=false, or null here",
        )
    if not momentum.momentum_epochs >= 0:
        raise UserError(f"{momentum.momentum_epochs} is negative", key="optimizer.momentum_epochs")
    updates = round(momentum.momentum_epochs * epoch_updates)
    return Growth(momentum.momentum_start, momentum.momentum, updates)


def _check(settings: ScheduleSettings) -> None:
    if settings.name not in SCHEDULES:
        hint = nearest(settings.name, SCHEDULES)
        raise UserError(f"there is no schedule '{settings.name}'", key="schedule.name", hint=hint)
    for key in ("step_epochs", "step_factor", "final_ratio", "cycle_epochs"):
        if not 0 < getattr(settings, key) < math.inf:
            raise UserError(f"{getattr(settings, key)} is not above 0", key=f"schedule.{key}")
    for key in ("warmup_epochs", "decay"):
        if not 0 <= getattr(settings, key) < math.inf:
            raise UserError(f"{getattr(settings, key)} is negative", key=f"schedule.{key}")
    if not 0 < settings.cycle_ratio <= 1:
        raise UserError(f"{settings.cycle_ratio} is not in 0 to 1", key="schedule.cycle_ratio")
    if not 0 <= settings.cycle_momentum_low < 1:
        raise UserError(
            f"{settings.cycle_momentum_low} is not from 0 to below 1", key="schedule.cycle_momentum_low"
        )
    if settings.plateau_epochs < 1:
        raise UserError(f"{settings.plateau_epochs} is below 1", key="schedule.plateau_epochs")
    if settings.name == "plateau" and settings.step_factor >= 1:
        raise UserError(f"{settings.step_factor} is no cut", key="schedule.step_factor", hint="Say 0.5")
