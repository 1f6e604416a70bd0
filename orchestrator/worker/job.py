"""The job of a sweep: finding its functions, and the config that one trial gets."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orchestrator.config import job_config, load_frozen
from orchestrator.errors import UserError
from orchestrator.planning.plan import Phase, Plan, Scale
from orchestrator.schema import SweepConfig, job_functions
from orchestrator.space.ties import write_options, write_ties, write_values
from orchestrator.sweep.directory import SweepDirectory, TrialSpec
from orchestrator.worker.catalogues import pass_over_catalogues


def trial_config(config: SweepConfig, phase: Phase, spec: TrialSpec) -> DictConfig:
    """Build the config of one trial: the job's own, its groups' options, the stage's scale, its values, ties.

    Raises:
        UserError: a tie has no value at this setting.
    """
    node = job_config(config)
    write_options(node, config, spec.params)
    for path, value in scale_values(phase.scale, spec.seed).items():
        if (place := config.jobs.scale.get(path)) and value is not None:
            OmegaConf.update(node, place, value, merge=False, force_add=True)
    write_values(node, config, spec.params)
    write_ties(node, config, spec.params)
    OmegaConf.resolve(node)
    return node


def scale_values(scale: Scale, seed: int) -> dict[str, Any]:
    """Return a scale by the names that `jobs.scale` uses."""
    # A count of samples stays a whole number; 1.0 is all of them.
    data = int(scale.data) if scale.data > 1 else scale.data
    kept = scale.checkpoints
    return {
        "data": data,
        "classes": list(scale.class_list) if scale.class_list is not None else scale.classes,
        "class_rule": scale.class_rule,
        "epochs": scale.epochs,
        "validation_size": scale.validation_size,
        "resolution": scale.resolution,
        "augment": scale.augment,
        "checkpoints": (list(kept) if isinstance(kept, tuple) else kept) or None,
        "disk_gb": scale.disk_gb,
        "teacher": scale.teacher,
        "teacher_temperature": scale.teacher_temperature,
        "teacher_weight": scale.teacher_weight,
        "seed": seed,
    }


def enter(directory: SweepDirectory, plan: Plan) -> None:
    """Make this process, and those it starts, see the user's code and folder as the sweep was planned."""
    pass_over_catalogues()
    snapshot = str(directory.snapshot.resolve())
    if snapshot not in sys.path:
        sys.path.insert(0, snapshot)
    paths = [snapshot, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if Path(plan.folder).is_dir():
        os.chdir(plan.folder)


def train_function(config: SweepConfig, snapshot: Path) -> Callable[..., Any]:
    """Return what a trial runs, as a function of its config and the trial.

    Args:
        config: the sweep's.
        snapshot: the user's code as it was planned.

    Raises:
        UserError: the training function can't be imported.
    """
    if config.jobs.command is None:
        return load_function(str(config.jobs._target_), "jobs._target_")
    from orchestrator.programs.run import run_program

    return partial(run_program, config.jobs, config.metric, snapshot.resolve())


def load_function(path: str, key: str) -> Callable[..., Any]:
    """Import a function by its dotted path.

    Raises:
        UserError: it can't be imported, or is not there.
    """
    from importlib import import_module

    module, _, name = path.rpartition(".")
    try:
        function = getattr(import_module(module), name, None)
    except Exception as error:
        raise UserError(f"'{path}' can't be imported: {type(error).__name__}: {error}", key=key) from error
    if not callable(function):
        raise UserError(f"module '{module}' has no function '{name}'", key=key)
    return function  # type: ignore[no-any-return]


def modules(config: SweepConfig) -> list[str]:
    """Return the modules that a fork server imports once for all trials."""
    paths = [*job_functions(config.jobs).values(), config.datasets.get("_target_")]
    return list(dict.fromkeys(path.rpartition(".")[0] for path in paths if path))


def check(sweep: Path) -> None:
    """Import everything that a sweep's trials will need.

    Raises:
        UserError: something can't be imported.
    """
    directory = SweepDirectory(sweep.resolve())
    from orchestrator.sweep.facts import read_plan

    config = load_frozen(directory.config)
    enter(directory, read_plan(directory))
    for key, path in job_functions(config.jobs).items():
        load_function(path, key)


if __name__ == "__main__":
    import traceback

    try:
        check(Path(sys.argv[1]))
    except UserError as problem:
        if problem.__cause__ is not None:
            traceback.print_exception(problem.__cause__)
        sys.exit(f"{problem}")
