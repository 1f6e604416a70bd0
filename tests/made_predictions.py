"""Final runs whose predictions are made up: for tests of what is chosen by them and measured on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from orchestrator.ensemble.members import Candidate, Predictions
from orchestrator.ensemble.store import predict_run
from orchestrator.schema import EnsembleConfig, MetricConfig, SweepConfig
from orchestrator.sweep.directory import SweepDirectory

CLASSES = 4
SIZES = {"train": 90, "validation": 120, "test": 150}
OFFSETS = {"train": 0, "validation": 1000, "test": 2000}


def sweep_config(metric: str = "val/accuracy", seed: int = 0, **ensemble: Any) -> SweepConfig:
    """Return a sweep's config with some keys of `ensemble`."""
    settings = EnsembleConfig(**{"bags": 2, "folds": 3, "max_members": 6, **ensemble})
    return SweepConfig(name="made", seed=seed, metric=MetricConfig(name=metric), ensemble=settings)


def candidate(setting: str, seed: int, step: int, model: str = "mlp", folder: Path = Path()) -> Candidate:
    """Return a checkpoint that there is no file of."""
    trial = f"final-{setting}-{seed}"
    return Candidate(
        trial_id=trial,
        setting_id=setting,
        seed=seed,
        step=step,
        checkpoint=folder / "final" / "checkpoints" / trial / f"{step}.pt",
        config=OmegaConf.create({"setting": setting, "lr": 1e-5, "model": {"name": model}}),
        model=model,
    )


def family(
    settings: Iterable[str] = "AB", seeds: Iterable[int] = (1, 2), steps: Iterable[int] = (5, 10)
) -> list[Candidate]:
    """Return the candidates of all combinations; setting C is of another model."""
    steps, seeds = list(steps), list(seeds)
    return [
        candidate(setting, seed, step, "cnn" if setting == "C" else "mlp")
        for setting in settings
        for seed in seeds
        for step in steps
    ]


def labels_of(split: str) -> NDArray[np.int64]:
    """Return the right classes of a split."""
    return np.random.default_rng(OFFSETS[split]).integers(0, CLASSES, SIZES[split])


class MadeUp:
    """A job's predict by the name of the run and step, and a memory of what was asked for.

    Args:
        skills: by "final-A-1/5" and split: how much the right class is preferred; 1.0 where it is not named.
    """

    def __init__(self, skills: Mapping[tuple[str, str], float] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._skills = skills or {}

    def __call__(self, config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        name = f"{checkpoint.parent.name}/{checkpoint.stem}"
        self.asked.append((name, split))
        labels = labels_of(split)
        rng = np.random.default_rng([OFFSETS[split], *name.encode()])
        logits = rng.normal(size=(len(labels), CLASSES))
        logits[np.arange(len(labels)), labels] += self._skills.get((name, split), 1.0)
        odds = np.exp(logits)
        ids = np.arange(len(labels)) + OFFSETS[split]
        return Predictions((odds / odds.sum(axis=1, keepdims=True)).astype(np.float32), labels, ids)


class Values:
    """A job's predict of values: the right ones, and noise."""

    def __call__(self, config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        name = f"{checkpoint.parent.name}/{checkpoint.stem}"
        values = np.random.default_rng(OFFSETS[split]).normal(size=SIZES[split]).astype(np.float32)
        noise = np.random.default_rng([OFFSETS[split], *name.encode()]).normal(size=SIZES[split])
        predicted = (values + 0.5 * noise).astype(np.float32)[:, None]
        return Predictions(predicted, values, np.arange(SIZES[split]) + OFFSETS[split])  # type: ignore[arg-type]


def changed(
    predict: Callable[..., Predictions], where: str, **changes: Callable[[Predictions], Any]
) -> Callable[..., Predictions]:
    """Return a predict that changes fields of what another one gives for a run or checkpoint."""

    def spoiled(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
        given = predict(config, checkpoint, split)
        if where not in str(checkpoint):
            return given
        return replace(given, **{name: change(given) for name, change in changes.items()})

    return spoiled


def stored(
    path: Path,
    config: SweepConfig,
    candidates: Iterable[Candidate] | None = None,
    predict: Callable[..., Predictions] | None = None,
    average: Callable[..., Candidate | None] | None = None,
) -> SweepDirectory:
    """Store what all candidates predict, run by run, in a sweep's directory."""
    directory, runs = SweepDirectory(path), dict[str, list[Candidate]]()
    for each in family() if candidates is None else candidates:
        inside = replace(each, checkpoint=path / each.checkpoint)
        runs.setdefault(each.trial_id, []).append(inside)
    for run in runs.values():
        predict_run(directory, config, run, predict or MadeUp(), average=average)
    return directory
