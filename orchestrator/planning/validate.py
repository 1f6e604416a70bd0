"""Checks of a composed sweep that types can't make: names, ranges of numbers, what must fit together."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.checks.names import NAMES
from orchestrator.config import has_path, job_config, leaf_paths
from orchestrator.data.settings import DatasetSettings
from orchestrator.data.size import DatasetSize, trained_samples
from orchestrator.data.splits import choose_classes
from orchestrator.errors import UserError, nearest
from orchestrator.planning.narrowing.holding import AUTO
from orchestrator.planning.sampling.start_from import starting_settings
from orchestrator.planning.validate_command import validate_command
from orchestrator.planning.validate_ensemble import validate_ensemble
from orchestrator.planning.validate_final import validate_final
from orchestrator.planning.validate_processes import validate_processes
from orchestrator.planning.validate_results import validate_results
from orchestrator.planning.validate_slurm import validate_slurm
from orchestrator.planning.validate_space import is_name, validate_space
from orchestrator.planning.validate_student import validate_student
from orchestrator.schema import (
    CLASS_RULES,
    SAMPLERS,
    SCALE_KEYS,
    StageConfig,
    SweepConfig,
    final_runs,
    job_functions,
    with_checks,
)
from orchestrator.space import FLOAT, Parameter
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL

MOST_NAME_BYTES = 80


def validate(config: SweepConfig, space: tuple[Parameter, ...], size: DatasetSize, file: Path | str) -> None:
    """Check a sweep before anything is written or submitted.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    check = _Check(file)
    if not re.fullmatch(r"[\w][\w .+-]*", config.name):
        check.fail("name", f"'{config.name}' can't be a directory's name", "Use letters, digits, '-' and '_'")
    check.short("name", config.name)
    if not is_name(config.metric.name):
        hint = "Name a key of what the training function returns, such as val/accuracy"
        check.fail("metric.name", f"{config.metric.name!r} is no metric's name", hint)
    check.one_of("metric.mode", config.metric.mode, ("max", "min"))
    _job(config, check)
    validate_space(config, space, file)
    validate_command(config, space, file)
    validate_stages(config, space, size, file)
    _start(config, space, check)
    _checks(config, space, check)
    _end(config, check)
    validate_final(config, space, file)
    validate_processes(config, file)
    validate_student(config, space, file)
    _cluster(config, check)


def validate_stages(
    config: SweepConfig, space: tuple[Parameter, ...], size: DatasetSize, file: Path | str
) -> None:
    """Check the ladder alone.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    check = _Check(file)
    if not config.stages:
        hint = "Add one: stages: {coarse: {trials: 32}}; or a budget for them: budget: 20 trainings"
        check.fail("stages", "there are no stages", hint)
    for name, stage in config.stages.items():
        _stage(name, stage, size, check)
        _tune(f"stages.{name}.tune", stage.tune, [parameter.name for parameter in space], check)
        _classes_have_enough(config, name, stage, size, check)
        _scale_has_a_place(config, name, stage, check)


def _tune(key: str, tune: Sequence[str], names: Sequence[str], check: _Check) -> None:
    if list(tune) == [AUTO]:
        return
    if AUTO in tune and AUTO not in names:
        check.fail(key, f"'{AUTO}' stands alone", f"Write tune: [{AUTO}], or the names alone")
    for tuned in tune:
        check.one_of(key, tuned, names)


class _Check:
    """Raises readable errors about one file."""

    def __init__(self, file: Path | str) -> None:
        self.file = file

    def fail(self, key: str, problem: str, hint: str = "") -> None:
        raise UserError(problem, file=self.file, key=key, hint=hint)

    def one_of(self, key: str, value: str, valid: Iterable[str]) -> None:
        if value not in valid:
            self.fail(key, f"'{value}' is not known", nearest(value, valid))

    def short(self, key: str, name: str) -> None:
        # Both names, and more, stand in the names of jobs and of the folders of their logs.
        if (length := len(name.encode())) > MOST_NAME_BYTES:
            self.fail(key, f"is too long for a name of jobs and folders: {length} of {MOST_NAME_BYTES} bytes")

    def at_least(self, key: str, value: float | None, least: float) -> None:
        if value is not None and value < least:
            self.fail(key, f"{value:g} is too few; the least is {least:g}")


def _job(config: SweepConfig, check: _Check) -> None:
    for key, function in job_functions(config.jobs).items():
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", function):
            check.fail(key, f"'{function}' is no dotted path of a function", "Write module.function")
    node = job_config(config)
    for name, path in config.jobs.scale.items():
        check.one_of(f"jobs.scale.{name}", name, SCALE_KEYS)
        # What every dataset takes need not be written out in each of their files.
        common = path in {f"dataset.{each.name}" for each in fields(DatasetSettings)}
        if path is not None and not has_path(node, path) and not common:
            check.fail(
                f"jobs.scale.{name}",
                f"'{path}' is not in the job's config",
                nearest(path, leaf_paths(_plain(node))),
            )


def _plain(node: Any) -> dict[str, Any]:
    container = OmegaConf.to_container(node, resolve=False)
    assert isinstance(container, dict), "a job's config is a mapping"
    return {str(key): value for key, value in container.items()}


def _stage(name: str, stage: StageConfig, size: DatasetSize, check: _Check) -> None:
    key = f"stages.{name}"
    if not re.fullmatch(r"\w[\w-]*", name) or name in (CHECKS, FINAL, ENSEMBLE):
        check.fail(key, f"'{name}' can't be a stage's name", "Use letters, digits, '-' and '_'")
    check.short(key, name)
    check.at_least(f"{key}.trials", stage.trials, 1)
    check.at_least(f"{key}.epochs", stage.epochs, 1)
    check.at_least(f"{key}.validation_size", stage.validation_size, 1)
    check.at_least(f"{key}.resolution", stage.resolution, 1)
    check.one_of(f"{key}.sampler", stage.sampler, SAMPLERS)
    check.one_of(f"{key}.class_rule", stage.class_rule, CLASS_RULES)
    if not 0 < stage.keep <= 1:
        check.fail(f"{key}.keep", f"{stage.keep:g} is not a share of the trials", "Write 0.25 for a quarter")
    if not stage.margin >= 0:
        check.fail(f"{key}.margin", f"{stage.margin:g} would cut good trials off", "Write 0 or more")
    check.at_least(f"{key}.survivors", stage.survivors, 0)
    check.at_least(f"{key}.controls", stage.controls, 0)
    promoted = (stage.survivors or 0) + (stage.controls or 0)
    if promoted > stage.trials:
        check.fail(
            f"{key}.survivors", f"{promoted} survivors and controls don't fit into {stage.trials} trials"
        )
    _course(key, stage, check)
    _amount(f"{key}.data", stage.data, size, check)
    _classes(f"{key}.classes", stage.classes, size, check)


def _course(key: str, stage: StageConfig, check: _Check) -> None:
    """Check how a stage goes: its waves, when it closes, what it stops on the way, and what it repeats."""
    check.at_least(f"{key}.waves", stage.waves, 1)
    if stage.waves > stage.trials:
        check.fail(
            f"{key}.waves",
            f"{stage.trials} trials can't be drawn in {stage.waves} waves",
            "A wave has at least one trial",
        )
    if stage.waves > 1 and stage.sampler == "grid":
        check.fail(f"{key}.waves", "a grid is drawn at once", "Leave waves out, or take sampler: sobol")
    if not 0 < stage.close <= 1:
        check.fail(f"{key}.close", f"{stage.close:g} is not a share of the trials", "1.0 waits for all")
    if stage.prune != 0 and not 1 < stage.prune < math.inf:
        check.fail(
            f"{key}.prune",
            f"{stage.prune:g} can't be: the best 1/prune go on at each rung",
            "Write 3 to keep a third, or 0 to stop none",
        )
    if stage.repeats < 0:
        check.fail(f"{key}.repeats", f"{stage.repeats} runs can't be", "0 repeats none")


def _amount(key: str, data: Any, size: DatasetSize, check: _Check) -> None:
    if isinstance(data, bool) or not isinstance(data, int | float) or not data > 0:
        given = "null" if data is None else repr(data)
        check.fail(
            key, f"{given} is no amount of data", "Write a fraction such as 0.1, or a count of samples"
        )
    if 1 < data < 2 or (isinstance(data, float) and data > 1 and data != int(data)):
        check.fail(key, f"{data:g} is more data than there is", "The whole of it is 1.0")
    if data >= 2 and size.train_samples is not None and data > size.train_samples:
        check.fail(
            key,
            f"{data:g} samples are more data than there is: {size.train_samples:,} of {size.samples:,} are "
            "for training",
            "The whole of it is 1.0",
        )


def _classes(key: str, classes: Any, size: DatasetSize, check: _Check) -> None:
    if classes is None:
        return
    count = len(classes) if isinstance(classes, list) else classes
    if isinstance(count, bool) or not isinstance(count, int):
        check.fail(key, f"{classes!r} is neither a count nor a list of classes")
    if count < 2:
        check.fail(key, f"{count} is too few; the least is 2")
    if size.classes is not None and count > size.classes:
        check.fail(key, f"{count} classes are more than there are", f"The dataset has {size.classes}")
    if isinstance(classes, list) and size.classes is not None:
        try:
            choose_classes(size.classes, classes, names=size.class_names)
        except UserError as error:
            check.fail(key, error.problem, error.hint)


def _classes_have_enough(
    config: SweepConfig, name: str, stage: StageConfig, size: DatasetSize, check: _Check
) -> None:
    """A count of samples may be more than the stage's few classes have."""
    dataset = config.datasets
    try:
        trained_samples(
            size, stage.data, stage.classes, dataset.get("split"),
            class_rule=stage.class_rule, seed=dataset.get("subset_seed", 0),
        )  # fmt: skip
    except UserError as error:
        check.fail(f"stages.{name}.data", error.problem, error.hint)


def _scale_has_a_place(config: SweepConfig, name: str, stage: StageConfig, check: _Check) -> None:
    """A scale that the job would never see makes every trial run at full scale unnoticed."""
    asked = {
        "data": stage.data not in (1, 1.0),
        "classes": stage.classes is not None,
        "epochs": stage.epochs is not None,
        "validation_size": stage.validation_size is not None,
        "resolution": stage.resolution is not None,
        "augment": stage.augment is not None,
    }
    for key, wanted in asked.items():
        if wanted and key not in config.jobs.scale:
            check.fail(
                f"stages.{name}.{key}",
                f"the job has no place for it, so every trial would run at its own {key}",
                f"Name the key of its config under jobs.scale: {{{key}: ...}}",
            )


def _checks(config: SweepConfig, space: tuple[Parameter, ...], check: _Check) -> None:
    for skipped in config.checks.skip:
        check.one_of("checks.skip", skipped, NAMES)
    tested, human = config.checks.range_test, config.checks.human_accuracy
    if human is not None and not 0 < human <= 1:
        check.fail("checks.human_accuracy", f"{human:g} is no share of right answers", "Write 0.98")
    if tested is None:
        return
    numbers = {each.name: each for each in space if each.kind == FLOAT}
    check.one_of("checks.range_test", tested, numbers)
    if config.jobs.setup is None:
        check.fail(
            "checks.range_test",
            "the job has no `setup`, which gives the test its model and data",
            "Name one: jobs.setup=my_train.setup",
        )
    if not with_checks(config):
        check.fail("checks.range_test", "the checks are switched off", "Say checks.enabled=true")
    section = tested.rpartition(".")[0]
    if {section, f"{section}.name"} & set(config.space):
        # The range of one optimizer's rate says nothing of another's.
        check.fail(
            "checks.range_test",
            f"the test is made with one optimizer, and '{tested}' is searched for several",
            "Leave the range test out, or fix the optimizer",
        )


def _start(config: SweepConfig, space: tuple[Parameter, ...], check: _Check) -> None:
    start = starting_settings(config, space, check.file)
    first, stage = next(iter(config.stages.items()))
    if len(start) > stage.trials:
        problem = f"{len(start)} settings don't fit into the {stage.trials} trials of '{first}'"
        check.fail("start_from", problem)


def _end(config: SweepConfig, check: _Check) -> None:
    top, _ = final_runs(config.final)
    check.at_least("final.top", config.final.top, 0)
    check.at_least("final.seeds", config.final.seeds, 1)
    check.at_least("final.epochs", config.final.epochs, 1)
    check.at_least("final.waves", config.final.waves, 1)
    last, stage = list(config.stages.items())[-1]
    if top > stage.trials:
        check.fail("final.top", f"{top} settings can't come from the {stage.trials} trials of '{last}'")
    if 0 < top < (config.final.waves or 1):
        problem = f"{top} setting{'s' * (top > 1)} can't be chosen in {config.final.waves} waves"
        check.fail("final.waves", problem, f"The most is one for each setting: final.waves={top}")
    if top and config.final.epochs is not None and "epochs" not in config.jobs.scale:
        check.fail("final.epochs", "the job has no place for it", "Name the key under jobs.scale.epochs")
    validate_ensemble(config.ensemble, check.file)


def _cluster(config: SweepConfig, check: _Check) -> None:
    slurm = config.slurm
    check.one_of("slurm.executor", slurm.executor, ("slurm", "local"))
    check.at_least("slurm.gpus_per_task", slurm.gpus_per_task, 0)
    check.at_least("slurm.cpus_per_task", slurm.cpus_per_task, 1 if slurm.executor == "slurm" else 0)
    check.at_least("slurm.timeout_min", slurm.timeout_min, 1)
    check.at_least("slurm.tasks_at_once", slurm.tasks_at_once, 1)
    check.at_least("slurm.trials_at_once", slurm.trials_at_once, 0)
    check.at_least("slurm.attempts", slurm.attempts, 1)
    check.at_least("slurm.task_minutes", slurm.task_minutes, 0)
    if slurm.mem_gb is not None and not slurm.mem_gb > 0:
        check.fail("slurm.mem_gb", f"{slurm.mem_gb:g} is no amount of memory", "Write null for the default")
    validate_slurm(slurm, check.file)
    validate_results(config.results, check.file)
