"""NePS, with the algorithm that it chooses by itself where a fidelity is declared and no prior is."""

from __future__ import annotations

import random
from typing import Any

import neps
import numpy as np
import torch
from meter import Meter
from neps.optimizers import load_optimizer
from neps.space.neps_spaces.neps_space import convert_neps_to_classic_search_space

from opponents.encode import by_place, decode, last_place
from opponents.scale import fidelity, most
from orchestrator.space import CHOICE, INT, Parameter

RESOURCE = "resource"


def run(meter: Meter, seed: int) -> None:
    """Run NePS by ask and tell with its defaults ("auto"), with resources 1 to the most."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    task = meter.task
    attributes: dict[str, Any] = {parameter.name: _domain(parameter) for parameter in task.space}
    attributes[RESOURCE] = neps.IntegerFidelity(lower=1, upper=most(task))
    # As neps.run does: a space without nested parts goes to the algorithms in their first form.
    space = convert_neps_to_classic_search_space(type("Space", (neps.PipelineSpace,), attributes)())
    optimizer, _ = load_optimizer("auto", space)
    neps_run = neps.AskAndTell(optimizer)
    while True:
        trial = neps_run.ask()
        proposed = dict(trial.config)
        resource = proposed.pop(RESOURCE)
        neps_run.tell(trial, meter.evaluate(decode(task.space, proposed), fidelity(task, resource)))


def _domain(parameter: Parameter) -> Any:
    if by_place(parameter):
        return neps.Integer(lower=0, upper=last_place(parameter))
    if parameter.kind == CHOICE:
        return neps.Categorical(choices=tuple(str(place) for place in range(len(parameter.values))))
    if parameter.kind == INT:
        return neps.Integer(lower=int(parameter.low), upper=int(parameter.high), log=parameter.log)
    return neps.Float(lower=parameter.low, upper=parameter.high, log=parameter.log)
