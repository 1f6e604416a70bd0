"""Samplers: new settings for a stage, through Optuna (scipy's own engine for Sobol)."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.space import CHOICE, FLOAT, Parameter, Value

if TYPE_CHECKING:
    import optuna

Setting = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Observation:
    """A finished trial as a sampler sees it: its setting, and its objective with larger always better."""

    params: Mapping[str, Any]
    objective: float


def sample(
    space: Sequence[Parameter], count: int, sampler: str, seed: int, history: Sequence[Observation] = ()
) -> list[Setting]:
    """Propose settings inside the ranges.

    Args:
        space: the ranges of this stage.
        count: how many settings.
        sampler: sobol, random, tpe or grid. A grid may hold fewer settings than asked for.
        seed: the same seed gives the same settings in any process on any machine.
        history: earlier results, for samplers that learn; those outside the ranges are left out.

    Returns:
        Settings that map each parameter's name to its value.
    """
    if count <= 0:
        return []
    if sampler == "sobol":
        return _sobol(space, count, seed)
    if sampler == "grid":
        return _grid(space, count)
    return _optuna(space, count, sampler, seed, history)


def _sobol(space: Sequence[Parameter], count: int, seed: int) -> list[Setting]:
    """Scrambled Sobol points (Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points")."""
    from scipy.stats import qmc

    engine = qmc.Sobol(d=len(space), scramble=True, rng=seed)
    with warnings.catch_warnings():
        # Balance needs a power of two; a stage has as many trials as the user can pay for.
        warnings.simplefilter("ignore", UserWarning)
        points = engine.random(count)
    return [{p.name: p.from_unit(float(u)) for p, u in zip(space, point, strict=True)} for point in points]


def _grid(space: Sequence[Parameter], count: int) -> list[Setting]:
    """As many levels for each parameter as `count` allows, choices at all their values first."""
    choices = math.prod(len(p.values) for p in space if p.kind == CHOICE)
    numbers = [p for p in space if p.kind != CHOICE]
    levels = max(1, math.floor((count / choices) ** (1 / len(numbers)) + 1e-9)) if numbers else 1
    axes = [
        list(p.values) if p.kind == CHOICE else list(dict.fromkeys(
            p.from_unit((i + 0.5) / levels if levels < 2 else i / (levels - 1)) for i in range(levels)
        ))
        for p in space
    ]  # fmt: skip
    points = [dict(zip((p.name for p in space), point, strict=True)) for point in itertools.product(*axes)]
    step = max(1.0, len(points) / count)
    return [points[int(i * step)] for i in range(min(count, len(points)))]


def _optuna(
    space: Sequence[Parameter], count: int, sampler: str, seed: int, history: Sequence[Observation]
) -> list[Setting]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {p.name: _distribution(p) for p in space}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Trials of one stage run side by side: a running one counts as poor, so the next keeps its distance.
        engine: optuna.samplers.BaseSampler = (
            optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
            if sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=seed)
        )
    study = optuna.create_study(sampler=engine, direction="maximize")
    for seen in history:
        if all(p.name in seen.params and p.contains(seen.params[p.name]) for p in space) and math.isfinite(
            seen.objective
        ):
            params = {p.name: _encode(p, seen.params[p.name]) for p in space}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=distributions, value=seen.objective)
            )
    asked = [study.ask(distributions).params for _ in range(count)]
    return [{p.name: _decode(p, params[p.name]) for p in space} for params in asked]


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna.distributions as d

    if parameter.kind == CHOICE:
        # By place in the list: Optuna's categories are compared by value, and 1 equals True there.
        return d.CategoricalDistribution(tuple(range(len(parameter.values))))
    if parameter.kind == FLOAT:
        return d.FloatDistribution(parameter.low, parameter.high, log=parameter.log)
    return d.IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log)


def _encode(parameter: Parameter, value: Any) -> Any:
    if parameter.kind != CHOICE:
        return value
    return [(type(other), other) for other in parameter.values].index((type(value), value))


def _decode(parameter: Parameter, value: Any) -> Value:
    decoded: Value = parameter.values[value] if parameter.kind == CHOICE else value
    return decoded
