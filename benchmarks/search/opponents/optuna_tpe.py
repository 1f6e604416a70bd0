"""Optuna's TPE: at full scale, and with the Hyperband pruner."""

from __future__ import annotations

import optuna
from meter import Meter
from task import Setting

from opponents.encode import by_place, decode, last_place
from opponents.scale import ETA, fidelity, most, rungs
from orchestrator.space import CHOICE, INT, Parameter


def tpe(meter: Meter, seed: int) -> None:
    """Run TPE with its defaults; every trial is trained at full scale."""
    study = _study(seed, optuna.pruners.NopPruner())
    while True:
        trial = study.ask()
        study.tell(trial, meter.evaluate(_propose(trial, meter.task.space)))


def hyperband(meter: Meter, seed: int) -> None:
    """Run TPE with the Hyperband pruner, as Optuna's documentation advises, with resources 1 to the most.

    A trial reports at the rungs that its bracket judges and at no others, where reporting would change
    nothing and cost a training on tasks that can't go on from a checkpoint.
    """
    task = meter.task
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most(task), reduction_factor=ETA)
    study = _study(seed, pruner)
    while True:
        trial = study.ask()
        setting = _propose(trial, task.space)
        frozen = study.get_trials(deepcopy=False)[trial.number]
        for resource in rungs(task, pruner._get_bracket_id(study, frozen)):
            value = meter.evaluate(setting, fidelity(task, resource))
            trial.report(value, resource)
            if resource < most(task) and trial.should_prune():
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                break
        else:
            study.tell(trial, value)


def _study(seed: int, pruner: optuna.pruners.BasePruner) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # The pruner draws brackets from the study's name.
    return optuna.create_study(
        study_name=f"seed-{seed}", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner
    )


def _propose(trial: optuna.Trial, space: tuple[Parameter, ...]) -> Setting:
    return decode(space, {parameter.name: _suggest(trial, parameter) for parameter in space})


def _suggest(trial: optuna.Trial, parameter: Parameter) -> float | int | str:
    if by_place(parameter):
        return trial.suggest_int(parameter.name, 0, last_place(parameter))
    if parameter.kind == CHOICE:
        return trial.suggest_categorical(
            parameter.name, [str(place) for place in range(len(parameter.values))]
        )
    if parameter.kind == INT:
        return trial.suggest_int(parameter.name, int(parameter.low), int(parameter.high), log=parameter.log)
    return trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)
