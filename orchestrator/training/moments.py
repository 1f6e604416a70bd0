"""The moments of a run at which its model is kept as a member for the ensemble: so many, or named ones.

Snapshots at the ends of a cyclical schedule's cycles are those of Huang et al. 2017, "Snapshot ensembles:
train 1, get M for free", section 3. This module imports no torch: plans are checked with it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import UserError, nearest
from orchestrator.schema import MOMENTS
from orchestrator.training.settings import JobSettings, ScheduleSettings

BEST, LAST, CYCLES, EVERY = MOMENTS
# Schedules that come down to their lowest rate, and where: at the end of each cycle, or of the run.
CYCLED, ONCE = ("cyclical",), ("one_cycle", "cosine")
_EVERY = re.compile(rf"{EVERY} ([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class Moments:
    """When a model is kept.

    Attributes:
        epochs: after these.
        best: at the end of training, that of the best epoch.
        last: that of the epoch that training ends with, whichever that is.
    """

    epochs: frozenset[int] = frozenset()
    best: bool = False
    last: bool = False

    @property
    def any(self) -> bool:
        """Whether anything is kept."""
        return bool(self.epochs) or self.best or self.last


def moments(settings: JobSettings, epoch_updates: int, switched_at: int | None = None) -> Moments:
    """Return the moments that a job's settings ask for.

    Args:
        settings: `checkpoints` is a count (evenly over the second half of the epochs) or a list.
        epoch_updates: updates of an epoch.
        switched_at: the epoch after which another optimizer took over, with the schedule anew.

    Raises:
        UserError: a word that means nothing, or a moment that this run never has.
    """
    listed = settings.checkpoints
    if isinstance(listed, int):
        return Moments(frozenset(kept_epochs(settings.epochs, listed)), best=listed > 0)
    check_moments(listed, "checkpoints", settings.epochs)
    epochs: set[int] = set()
    for word in listed:
        if step := every(word):
            epochs |= set(range(step, settings.epochs + 1, step))
    if CYCLES in listed:
        check_cycles(settings.schedule.name, "checkpoints")
        epochs |= cycle_ends(settings.schedule, settings.epochs, epoch_updates, switched_at)
    return Moments(frozenset(epochs), best=BEST in listed, last=LAST in listed)


def check_moments(listed: Sequence[object], key: str, epochs: float | None = None) -> None:
    """Refuse a list of moments with a word that means nothing.

    Args:
        listed: the words.
        key: where they stand.
        epochs: of the run, where that is known.

    Raises:
        UserError: with the nearest right word.
    """
    if not listed:
        raise UserError("an empty list keeps nothing", key=key, hint=f"Write {key}: [{BEST}, {LAST}]")
    for word in listed:
        step = every(word)
        if step is None and word not in (BEST, LAST, CYCLES):
            raise UserError(f"{word!r} is no moment to keep a checkpoint", key=key, hint=_hint(word))
        if step is not None and epochs is not None and step > epochs:
            problem = f"'{word}' never comes in {epochs:g} epochs"
            raise UserError(problem, key=key, hint="Say a smaller number")


def every(word: object) -> int | None:
    """Return the 10 of "every 10"; None for anything else."""
    found = _EVERY.fullmatch(word.strip()) if isinstance(word, str) else None
    return int(found[1]) if found else None


def _hint(word: object) -> str:
    if str(word).startswith(EVERY[:3]):
        return f"Write '{EVERY} 10': a space, and a whole number of epochs above 0"
    return nearest(str(word), (BEST, LAST, CYCLES, f"{EVERY} 10"))


def check_cycles(schedule: str, key: str) -> None:
    """Refuse `cycles` with a schedule that has none.

    Raises:
        UserError: with the schedules that have.
    """
    if schedule not in (*CYCLED, *ONCE):
        raise UserError(
            f"'{CYCLES}' are kept at the end of a schedule's cycles, and '{schedule}' has none",
            key=key,
            hint=f"Take schedule.name {', '.join((*CYCLED, *ONCE))}, or '{EVERY} 10' here",
        )


def cycle_ends(
    schedule: ScheduleSettings, epochs: int, epoch_updates: int, switched_at: int | None = None
) -> set[int]:
    """Return the epochs whose ends are nearest to those of a schedule's cycles, where the rate is lowest.

    Args:
        schedule: one with cycles; one_cycle and cosine come down once, at the end.
        epochs: of the run.
        epoch_updates: updates of an epoch.
        switched_at: the epoch after which the schedule began anew, without warming up.
    """
    if schedule.name in ONCE:
        return {epochs}
    first = max(0, round(schedule.warmup_epochs * epoch_updates))
    if switched_at is not None:
        first = switched_at * epoch_updates
    # As in orchestrator.training.schedules: both halves of a cycle are whole updates.
    length = 2 * max(1, round(schedule.cycle_epochs * epoch_updates / 2))
    ends = (
        round(end / epoch_updates)
        for end in range(first + length, first + (epochs + 1) * epoch_updates, length)
    )
    return {max(1, end) for end in ends if end <= epochs}


def kept_epochs(epochs: int, count: int) -> set[int]:
    """Return up to `count` epochs, evenly over the second half, the last one among them."""
    if count <= 0:
        return set()
    half = epochs / 2
    return {max(1, round(epochs - half * back / count)) for back in range(count)}
