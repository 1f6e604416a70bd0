"""Learning-rate schedules, by name, on torch's own; each may begin with a linear warm-up.

The default is none: a decay that was tuned for another length ends training early. Schedules take one step
for each update, so a short trial of a few epochs has as smooth a curve as a long one.
"""

from __future__ import annotations

from collections.abc import Callable

from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    SequentialLR,
    StepLR,
)

from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import ScheduleSettings

_WARMUP_START = 0.01  # of the full rate


def _none(optimizer: Optimizer, settings: ScheduleSettings, updates: int, epoch_updates: int) -> LRScheduler:
    return ConstantLR(optimizer, factor=1.0, total_iters=0)


def _cosine(
    optimizer: Optimizer, settings: ScheduleSettings, updates: int, epoch_updates: int
) -> LRScheduler:
    return CosineAnnealingLR(optimizer, T_max=updates)


def _step(optimizer: Optimizer, settings: ScheduleSettings, updates: int, epoch_updates: int) -> LRScheduler:
    size = max(1, round(settings.step_epochs * epoch_updates))
    return StepLR(optimizer, step_size=size, gamma=settings.step_factor)


def _exponential(
    optimizer: Optimizer, settings: ScheduleSettings, updates: int, epoch_updates: int
) -> LRScheduler:
    return ExponentialLR(optimizer, gamma=settings.final_ratio ** (1 / updates))


SCHEDULES: dict[str, Callable[[Optimizer, ScheduleSettings, int, int], LRScheduler]] = {
    "none": _none,
    "cosine": _cosine,
    "step": _step,
    "exponential": _exponential,
}


def build_schedule(
    optimizer: Optimizer, settings: ScheduleSettings, *, epochs: int, epoch_updates: int
) -> LRScheduler | None:
    """Build the schedule of a run of `epochs` epochs of `epoch_updates` updates; None keeps the rate.

    Raises:
        UserError: a name that does not exist, or a number out of range.
    """
    if settings.name not in SCHEDULES:
        hint = nearest(settings.name, SCHEDULES)
        raise UserError(f"there is no schedule '{settings.name}'", key="schedule.name", hint=hint)
    for key in ("step_epochs", "step_factor", "final_ratio"):
        if not getattr(settings, key) > 0:
            raise UserError(f"{getattr(settings, key)} is not above 0", key=f"schedule.{key}")
    warmup = round(settings.warmup_epochs * epoch_updates)
    if warmup <= 0 and settings.name == "none":
        return None
    updates = max(1, epochs * epoch_updates - max(warmup, 0))
    if warmup <= 0:
        return SCHEDULES[settings.name](optimizer, settings, updates, epoch_updates)
    rise = LinearLR(optimizer, start_factor=_WARMUP_START, total_iters=warmup)
    rest = SCHEDULES[settings.name](optimizer, settings, updates, epoch_updates)
    return SequentialLR(optimizer, [rise, rest], milestones=[warmup])
