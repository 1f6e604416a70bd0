"""Checks that types can't make; the messages themselves are tested in test_bad_input."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.config import load_sweep
from orchestrator.data.size import DatasetSize, dataset_size
from orchestrator.errors import UserError
from orchestrator.planning.validate import validate
from orchestrator.schema import FinalConfig, StageConfig, SweepConfig
from orchestrator.space import parse_space

EXAMPLE = load_sweep(Path(__file__).parent.parent / "examples" / "digits.yaml")


def check(change: Callable[[SweepConfig], object], size: DatasetSize | None = None) -> None:
    config = copy.deepcopy(EXAMPLE)
    change(config)
    space = parse_space(config.space, config.jobs.limits, "sweep.yaml")
    validate(config, space, size or dataset_size(config.datasets), "sweep.yaml")


def stage(**settings: object) -> Callable[[SweepConfig], object]:
    def change(config: SweepConfig) -> None:
        for key, value in settings.items():
            setattr(config.stages["coarse"], key, value)

    return change


def test_the_example_is_good() -> None:
    check(lambda config: None)


@pytest.mark.parametrize(
    "change",
    [
        stage(data=1),
        stage(data=1.0, classes=None),
        stage(data=216),
        stage(data=1079, classes=None),
        stage(classes=10),
        stage(classes=["0", "9"]),
        stage(classes=[0, 9]),
        stage(keep=1.0, margin=0.0),
        stage(trials=1, survivors=1, controls=0),
        stage(waves=64, close=0.01, prune=1.01, repeats=3, tune=["auto"]),
        lambda config: setattr(config, "final", FinalConfig(top=0, checkpoints=0)),
        lambda config: setattr(config.final, "top", 12),
        lambda config: setattr(config, "name", "größer als 3.5"),
        lambda config: setattr(config.slurm, "cpus_per_task", 0),
    ],
)
def test_what_is_allowed(change: Callable[[SweepConfig], object]) -> None:
    check(change)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (stage(data=1.2), "stages.coarse.data"),
        (stage(data=2.5), "stages.coarse.data"),
        (stage(data=217), "stages.coarse.data"),
        (stage(data=1080, classes=None), "stages.coarse.data"),
        (stage(classes=[0, 0]), "stages.coarse.classes"),
        (stage(classes=0), "stages.coarse.classes"),
        (stage(classes=True), "stages.coarse.classes"),
        (stage(class_rule="last"), "stages.coarse.class_rule"),
        (stage(validation_size=0), "stages.coarse.validation_size"),
        (stage(keep=0.0), "stages.coarse.keep"),
        (stage(keep=float("nan")), "stages.coarse.keep"),
        (stage(margin=-0.1), "stages.coarse.margin"),
        (stage(margin=float("nan")), "stages.coarse.margin"),
        (stage(survivors=60, controls=5), "stages.coarse.survivors"),
        (stage(survivors=-1), "stages.coarse.survivors"),
        (stage(controls=-1), "stages.coarse.controls"),
        (lambda config: config.stages.clear(), "stages"),
        (lambda config: config.stages.update({"final": StageConfig(trials=3)}), "stages.final"),
        (lambda config: config.stages.update({"a b": StageConfig(trials=3)}), "stages.a b"),
        (lambda config: config.stages.update({"../up": StageConfig(trials=3)}), "stages.../up"),
        (lambda config: config.space.clear(), "space"),
        (lambda config: setattr(config, "name", ""), "name"),
        (lambda config: setattr(config, "name", ".."), "name"),
        (lambda config: setattr(config, "name", "a/b"), "name"),
        (lambda config: setattr(config.metric, "mode", "maximum"), "metric.mode"),
        (lambda config: setattr(config.final, "top", 13), "final.top"),
        (lambda config: setattr(config.final, "seeds", 0), "final.seeds"),
        (lambda config: setattr(config.final, "checkpoints", 0), "final.checkpoints"),
        (lambda config: setattr(config.ensemble, "combine", "vote"), "ensemble.combine"),
        (lambda config: setattr(config.ensemble, "max_members", 0), "ensemble.max_members"),
        (lambda config: setattr(config.ensemble, "score", "f1"), "ensemble.score"),
        (lambda config: config.jobs.scale.pop("epochs"), "stages.coarse.epochs"),
        (lambda config: config.jobs.scale.pop("classes"), "stages.coarse.classes"),
        (lambda config: setattr(config.jobs, "predict", "no path"), "jobs.predict"),
        (lambda config: setattr(config.slurm, "executor", "SLURM"), "slurm.executor"),
        (lambda config: setattr(config.slurm, "timeout_min", 0), "slurm.timeout_min"),
        (lambda config: setattr(config.slurm, "tasks_at_once", 0), "slurm.tasks_at_once"),
        (lambda config: setattr(config.slurm, "trials_at_once", -1), "slurm.trials_at_once"),
        (lambda config: setattr(config.slurm, "attempts", 0), "slurm.attempts"),
        (lambda config: setattr(config.slurm, "task_minutes", -1.0), "slurm.task_minutes"),
        (lambda config: setattr(config.slurm, "mem_gb", 0.0), "slurm.mem_gb"),
    ],
)
def test_what_is_refused(change: Callable[[SweepConfig], object], key: str) -> None:
    with pytest.raises(UserError) as caught:
        check(change)
    assert (caught.value.file, caught.value.key) == ("sweep.yaml", key)
    assert caught.value.problem


def test_nothing_is_refused_for_a_size_that_is_not_known() -> None:
    check(stage(data=10_000_000, classes=999), DatasetSize())
