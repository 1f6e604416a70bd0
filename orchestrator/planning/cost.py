"""What trials cost: trained samples, seconds, and hours of GPU or core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.planning.plan import Cost
from orchestrator.schema import SweepConfig, task_cores, trials_at_once


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Seconds of one trial before and for each trained sample, and what it holds of a GPU or core."""

    startup_seconds: float | None
    sample_seconds: float | None
    unit: str
    # GPUs (or cores) that one trial holds
    share: float

    @classmethod
    def of(cls, config: SweepConfig) -> Price:
        """Read the price from a sweep's job and cluster."""
        slurm, cost = config.slurm, config.jobs.cost
        gpus = slurm.gpus_per_task
        return cls(
            startup_seconds=cost.startup_seconds,
            sample_seconds=cost.sample_seconds,
            unit="GPU" if gpus else "core",
            share=(gpus or task_cores(slurm)) / trials_at_once(slurm),
        )


def phase_cost(price: Price, trials: int, samples: int | None, epochs: float | None) -> Cost:
    """Return what `trials` trials of `samples` samples and `epochs` epochs cost."""
    trained = None if samples is None or epochs is None else float(trials) * samples * epochs
    seconds = None
    if price.startup_seconds is not None and (trained is not None or price.sample_seconds is None):
        seconds = trials * price.startup_seconds + (trained or 0.0) * (price.sample_seconds or 0.0)
    hours = None if seconds is None else seconds * price.share / 3600
    return Cost(trained_samples=trained, seconds=seconds, hours=hours)


def total_cost(costs: Sequence[Cost]) -> Cost:
    """Add costs up; what is not known of any is not known of all, the free ensemble step apart."""
    known = [cost for cost in costs if cost != Cost()]

    def add(values: list[float | None]) -> float | None:
        return None if not values or None in values else sum(value or 0.0 for value in values)

    return Cost(
        trained_samples=add([cost.trained_samples for cost in known]),
        seconds=add([cost.seconds for cost in known]),
        hours=add([cost.hours for cost in known]),
    )
