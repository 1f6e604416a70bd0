"""Syne Tune's ASHA and its BOHB (ASHA's rungs, kernel densities to propose), one trial at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
from meter import Meter
from syne_tune import config_space
from syne_tune.backend.trial_status import Trial
from syne_tune.optimizer.baselines import ASHA, BOHB
from syne_tune.optimizer.scheduler import SchedulerDecision

from opponents.encode import by_place, decode, last_place
from opponents.scale import fidelity, most, rungs
from orchestrator.space import CHOICE, INT, Parameter

METRIC, RESOURCE = "validation", "resource"


def asha(meter: Meter, seed: int) -> None:
    """Run ASHA with its defaults: from resource 1 on, one bracket, a third goes on."""
    _drive(meter, ASHA, seed)


def bohb(meter: Meter, seed: int) -> None:
    """Run BOHB with its defaults."""
    _drive(meter, BOHB, seed)


def _drive(meter: Meter, kind: type, seed: int) -> None:
    task = meter.task
    np.random.seed(seed)  # the scheduler draws brackets, and some searchers candidates, from the global state
    space = {parameter.name: _domain(parameter) for parameter in task.space}
    scheduler = kind(space, metric=METRIC, time_attr=RESOURCE, max_t=most(task), random_seed=seed)
    number = 0
    while True:
        proposed = scheduler.suggest().config
        trial = Trial(trial_id=number, config=proposed, creation_time=datetime.now())
        scheduler.on_trial_add(trial)
        number += 1
        setting = decode(task.space, proposed)
        # Between rungs nothing is decided, so a trial reports at rungs alone.
        for resource in rungs(task):
            result = {METRIC: meter.evaluate(setting, fidelity(task, resource)), RESOURCE: resource}
            if resource == most(task):
                scheduler.on_trial_complete(trial, result)
            elif scheduler.on_trial_result(trial, result) != SchedulerDecision.CONTINUE:
                scheduler.on_trial_remove(trial)
                break


def _domain(parameter: Parameter) -> Any:
    if by_place(parameter):
        return config_space.randint(0, last_place(parameter))
    if parameter.kind == CHOICE:
        return config_space.choice([str(place) for place in range(len(parameter.values))])
    if parameter.kind == INT:
        whole = config_space.lograndint if parameter.log else config_space.randint
        return whole(int(parameter.low), int(parameter.high))
    return (config_space.loguniform if parameter.log else config_space.uniform)(parameter.low, parameter.high)
