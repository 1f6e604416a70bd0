"""The batch size and learning rate of a run: a number or the largest that fits, of one process or several.

Goyal et al. 2017, "Accurate, large minibatch SGD", section 2.1, the linear scaling rule: with k times the
batch, k times the learning rate. It is for sgd; adaptive optimizers bear less, and a warm-up
(schedule.warmup_epochs) helps both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from orchestrator.errors import UserError, nearest
from orchestrator.training.distributed import Peers
from orchestrator.training.largest import LEAST_UPDATES, largest_batch
from orchestrator.training.run import Run
from orchestrator.training.settings import LARGEST, JobSettings

LINEAR, NONE = SCALING = ("linear", "none")
# The batch size that `optimizer.lr` is meant for where the size is `largest`; the rate grows in proportion.
REFERENCE_BATCH = 256


def check_scaling(settings: JobSettings) -> None:
    """Refuse a rule that does not exist.

    Raises:
        UserError: with the key.
    """
    if settings.scaling not in SCALING:
        hint = nearest(settings.scaling, SCALING)
        raise UserError(f"there is no rule '{settings.scaling}'", key="scaling", hint=hint)


def resolved(
    settings: JobSettings,
    state: Mapping[str, Any] | None,
    peers: Peers,
    begin: Callable[[JobSettings], Run],
) -> JobSettings:
    """Return settings with the batch size and the rate of all processes together.

    A run that is taken up again keeps its batch and rate, by however many processes.

    Args:
        settings: as they are declared.
        state: that the run is taken up from, None where it begins.
        peers: who train it; all of them call this.
        begin: gives a run of this process alone, to measure what fits.

    Raises:
        UserError: a batch has fewer samples than there are processes.
    """
    if settings.batch_size == LARGEST:
        size = state["batch_size"] if state else peers.agreed(lambda: _largest(settings, peers.count, begin))
        return sized(settings, size)
    assert isinstance(settings.batch_size, int), "it is a number, or `largest`"
    if state:
        return scaled(settings, state["batch_size"] // settings.batch_size)
    if settings.scaling == LINEAR:
        return scaled(settings, peers.count)
    if settings.batch_size < peers.count:
        raise UserError(
            f"{settings.batch_size} samples are fewer than the {peers.count} processes that share them",
            key="batch_size",
            hint="Say scaling=linear, or a larger size",
        )
    return settings


def scaled(settings: JobSettings, times: int) -> JobSettings:
    """Return settings with so many times the batch and, in proportion, the rates."""
    assert isinstance(settings.batch_size, int), "`largest` was resolved before"
    return _with(settings, settings.batch_size * times, float(times)) if times > 1 else settings


def sized(settings: JobSettings, size: int) -> JobSettings:
    """Return settings with a batch size in place of `largest`, and the learning rate scaled with it."""
    return _with(settings, size, size / REFERENCE_BATCH)


def _with(settings: JobSettings, size: int, times: float) -> JobSettings:
    rates = settings.optimizer
    later = None if rates.switch.lr is None else rates.switch.lr * times
    optimizer = replace(rates, lr=rates.lr * times, switch=replace(rates.switch, lr=later))
    return replace(settings, batch_size=size, optimizer=optimizer)


def _largest(settings: JobSettings, processes: int, begin: Callable[[JobSettings], Run]) -> int:
    """Return the largest batch of all processes: what fits one of them, times their number with `linear`."""
    samples = 0

    def sample(size: int) -> Run:
        nonlocal samples
        run = begin(sized(settings, size))
        samples = len(run.train)
        return run

    size = largest_batch(sample)
    if settings.scaling == NONE or processes == 1:
        return size
    return min(size * processes, max(size, samples // LEAST_UPDATES))
