"""Checks of the final runs: what is kept of them, what that may take of the disk, and of which settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from orchestrator.config import job_config
from orchestrator.errors import UserError, nearest
from orchestrator.planning.cost import job_epochs
from orchestrator.schema import SweepConfig, final_runs
from orchestrator.space import CHOICE, Parameter
from orchestrator.training.moments import CYCLES, check_cycles, check_moments

# What is known of schedules is of the built-in job's.
_BUILT_IN = "orchestrator.training.supervised.train"


def validate_final(config: SweepConfig, space: tuple[Parameter, ...], file: Path | str) -> None:
    """Check `final.checkpoints`, `final.disk_gb` and `final.of_each`.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    top, _ = final_runs(config.final)
    if not top:
        return
    try:
        _checkpoints(config, space)
        _disk(config.final.disk_gb)
        _of_each(config.final.of_each, top, space)
    except UserError as error:
        raise UserError(error.problem, file=file, key=error.key, hint=error.hint) from None


def _checkpoints(config: SweepConfig, space: Sequence[Parameter]) -> None:
    key, kept = "final.checkpoints", config.final.checkpoints
    if isinstance(kept, list):
        searched = config.jobs.scale.get("epochs") in {each.name for each in space}
        epochs = config.final.epochs or (None if searched else job_epochs(config))
        check_moments(kept, key, epochs)
        if CYCLES in kept and config.jobs._target_ == _BUILT_IN:
            for schedule in _schedules(config, space):
                check_cycles(schedule, key)
    elif isinstance(kept, bool) or not isinstance(kept, int):
        hint = f"Write final.checkpoints: [{kept}]" if isinstance(kept, str) else "Write 5, or [best, last]"
        raise UserError(f"{kept!r} is neither a count nor a list of moments", key=key, hint=hint)
    elif kept < 1:
        raise UserError(f"{kept} is too few; the least is 1", key=key)


def _schedules(config: SweepConfig, space: Sequence[Parameter]) -> list[str]:
    """Return the names of the schedules that a final run may have."""
    searched = {each.name: each for each in space}
    if (one := searched.get("schedule.name")) is not None:
        return [str(value) for value in one.values]
    if (group := searched.get("schedule")) is not None:
        options = config.jobs.groups.get("schedule") or {}
        return [str((options.get(value) or {}).get("name", value)) for value in group.values]
    return [str(OmegaConf.select(job_config(config), "schedule.name", default="none"))]


def _disk(disk_gb: float | None) -> None:
    if disk_gb is not None and not 0 < disk_gb < math.inf:
        raise UserError(
            f"{disk_gb:g} is no size of a disk", key="final.disk_gb", hint="Write 10, or null for no limit"
        )


def _of_each(name: str | None, top: int, space: Sequence[Parameter]) -> None:
    if name is None:
        return
    key, choices = "final.of_each", {each.name: each for each in space if each.kind == CHOICE}
    if name not in choices:
        known = name in {each.name for each in space}
        problem = "is searched as a range, not as a choice" if known else "is no parameter of the space"
        hint = nearest(name, choices) if choices else "No parameter is a choice: leave it out"
        raise UserError(f"'{name}' {problem}", key=key, hint=hint)
    if (count := len(choices[name].values)) > top:
        raise UserError(
            f"the best of each value of '{name}' are {count} settings, and final.top is {top}",
            key=key,
            hint=f"Say final.top={count}",
        )
