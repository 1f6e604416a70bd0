"""What trials cost: trained samples, seconds, and hours of GPU or core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.data.size import DatasetSize, trained_samples
from orchestrator.planning.plan import Cost, Scale
from orchestrator.schema import SweepConfig, processes, task_cores, trials_at_once
from orchestrator.sweep.directory import FINAL, STAGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Seconds of one trial before and for each trained sample, and what it holds of a GPU or core.

    Several processes that train one trial are taken to be as many times faster, so that its hours are those
    of one but for the start.
    """

    startup_seconds: float | None
    sample_seconds: float | None
    unit: str
    # GPUs (or cores) that one trial holds
    share: float
    # and one of the final runs; None: the same
    final_share: float | None = None

    @classmethod
    def of(cls, config: SweepConfig, kind: str = STAGE) -> Price:
        """Read the price of a phase's trials from a sweep's job and cluster."""
        slurm, cost = config.slurm, config.jobs.cost
        together = processes(config, kind).count
        return cls(
            startup_seconds=cost.startup_seconds,
            sample_seconds=None if cost.sample_seconds is None else cost.sample_seconds / together,
            unit="GPU" if slurm.gpus_per_task else "core",
            share=_held(config, kind),
            final_share=_held(config, FINAL),
        )

    def weight(self, kind: str) -> float:
        """Return what a second of a phase's trial costs, in seconds of a stage's."""
        return 1.0 if kind != FINAL or self.final_share is None else self.final_share / self.share


def _held(config: SweepConfig, kind: str) -> float:
    together = processes(config, kind)
    # What is paid in does not differ from one phase to the next.
    gpus = together.nodes * together.gpus_per_node if config.slurm.gpus_per_task else 0
    return (gpus or together.count * task_cores(config.slurm)) / side_by_side(config, kind)


def side_by_side(config: SweepConfig, kind: str) -> int:
    """Return how many trials of a phase share a task, as far as that is known before it begins."""
    if processes(config, kind).count > 1:
        return 1
    wanted = config.final.runs_at_once if kind == FINAL else None
    return wanted if isinstance(wanted, int) else trials_at_once(config.slurm)


@dataclass(frozen=True, kw_only=True, slots=True)
class FullScale:
    """One training at full scale: its samples and epochs, None where they are not known."""

    samples: int | None
    epochs: float | None

    @classmethod
    def of(cls, config: SweepConfig, size: DatasetSize) -> FullScale:
        """Read it from the final runs' epochs, or the job's own, on the whole of the training data."""
        samples = epoch_samples(config, size, Scale())
        return cls(samples=samples, epochs=config.final.epochs or job_epochs(config))

    @property
    def trained_samples(self) -> float | None:
        """The samples that it trains, over all epochs."""
        return None if self.samples is None or self.epochs is None else self.samples * self.epochs

    def share(self, scale: Scale, samples: int | None, epochs: float | None) -> float | None:
        """Return what a trial trains as a share of this; `samples` and `epochs` are the trial's.

        Where the dataset's size is not known, a fraction of it is still known to be that fraction.
        """
        if samples is not None and self.samples:
            data = samples / self.samples
        elif scale.data <= 1 and scale.classes is None:
            data = scale.data
        else:
            return None
        if epochs is None or self.epochs is None:
            return data if epochs == self.epochs else None
        return data * (epochs / self.epochs)


def epoch_samples(config: SweepConfig, size: DatasetSize, scale: Scale) -> int | None:
    """Return the training samples of one epoch at a scale; None where the dataset's size is not known."""
    chosen = list(scale.class_list) if scale.class_list is not None else scale.classes
    dataset = config.datasets
    return trained_samples(
        size, scale.data, chosen, dataset.get("split"),
        class_rule=scale.class_rule, seed=dataset.get("subset_seed", 0), all_folds=not scale.checkpoints,
    )  # fmt: skip


def job_epochs(config: SweepConfig) -> float | None:
    """Look up the epochs that the job's own config asks for, where the job says where they are."""
    node: object = config.jobs.config
    for part in (config.jobs.scale.get("epochs") or "").split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return float(node) if isinstance(node, int | float) else None


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
