"""SMAC3's multi-fidelity facade: a random forest proposes, Hyperband decides who goes on."""

from __future__ import annotations

import logging
import tempfile
import warnings
from pathlib import Path

from ConfigSpace import Categorical, Configuration, ConfigurationSpace, Float, Integer
from meter import Meter
from smac import MultiFidelityFacade, Scenario
from smac.runhistory import TrialValue

from opponents.encode import by_place, decode, last_place
from opponents.scale import fidelity, most
from orchestrator.space import CHOICE, INT, Parameter

# SMAC is told how many trials it will have, and draws a quarter of them at first. Hyperband was seen to have
# 80 to 90 of its trials for the price of 20 full-scale trainings.
TRIALS_PER_TRAINING = 5


def run(meter: Meter, seed: int) -> None:
    """Run SMAC by ask and tell with its defaults, with resources 1 to the most as its budgets."""
    logging.getLogger("smac").setLevel(logging.ERROR)
    task = meter.task
    trials = round(TRIALS_PER_TRAINING * meter.budget)
    space = ConfigurationSpace(seed=seed)
    space.add([_domain(parameter) for parameter in task.space])
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scenario = Scenario(
            space, deterministic=True, n_trials=trials, min_budget=1, max_budget=most(task), seed=seed,
            output_directory=Path(folder),
        )  # fmt: skip
        smac = MultiFidelityFacade(scenario, _unused, overwrite=True, logging_level=False)
        while True:
            info = smac.ask()
            value = meter.evaluate(decode(task.space, info.config), fidelity(task, info.budget))
            smac.tell(info, TrialValue(cost=value), save=False)


def _unused(config: Configuration, seed: int, budget: float) -> float:
    """Stand for the function that SMAC would call if it weren't asked and told."""
    raise AssertionError("SMAC is asked and told here, and calls nothing itself")


def _domain(parameter: Parameter) -> Float | Integer | Categorical:
    name = parameter.name
    if by_place(parameter):
        return Integer(name, (0, last_place(parameter)))
    if parameter.kind == CHOICE:
        return Categorical(name, [str(place) for place in range(len(parameter.values))])
    if parameter.kind == INT:
        return Integer(name, (int(parameter.low), int(parameter.high)), log=parameter.log)
    return Float(name, (parameter.low, parameter.high), log=parameter.log)
