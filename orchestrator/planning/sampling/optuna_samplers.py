"""Samplers that learn, through Optuna: TPE, Gaussian process, CMA-ES, from one pooled history.

All of them search the unit cube: numbers and ordered choices by their place in the transformed range, other
choices by their number. A batch is asked for before any of it has run, so Optuna's trials stay in the state
"running": TPE counts them as poor and the Gaussian process expects their results, and both keep away.

What a batch costs (10 parameters; benchmarks/planning/results.md has all of it): for each setting TPE takes
about 6 ms, CMA-ES as long, a Gaussian process 100 ms, growing with the history and with what was asked. 1,000
settings would take 10 s and minutes, and the last hundreds of them would say nothing new: a model that is
never told a result only spreads out around the places it found first. So the history is capped (the best half
and an even choice of the rest; TPE forms its good group from 25 at most, whatever the number), Optuna is
asked for the first `ASKED` settings, and further ones are drawn around those.
"""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from orchestrator.planning.sampling.points import Draw, Setting, place_of, sobol
from orchestrator.planning.sampling.pooling import Scored, digest
from orchestrator.space import CHOICE, Parameter, setting_id

if TYPE_CHECKING:
    import optuna

# With fewer results than these a model knows less than evenly spread points (Optuna's own default).
STARTUP = 10
# The most results that a sampler is given, and the most settings that it is asked for.
HISTORY = 200
ASKED = {"tpe": 128, "gp": 24, "cmaes": 128}
# Around an asked setting: the deviation of a number, as a share of its range, and the chance that a choice
# stays.
SPREAD, STAYS = 0.1, 0.8
# Digits of a place in the unit cube. The last bits of exp and log differ between processors.
DIGITS = 9

Place = dict[str, Any]


def learner(space: Sequence[Parameter], sampler: str, seed: int, evidence: Sequence[Scored]) -> Draw:
    """Return what draws settings from what was learned.

    Without enough evidence, or with results that are all equal, there is nothing to learn: Sobol points.

    Args:
        space: the parameters that vary.
        sampler: tpe, gp or cmaes.
        seed: of everything random.
        evidence: what is known inside the ranges, the lowest scale first.
    """
    if len(evidence) < STARTUP or len({item.score for item in evidence}) < 2:
        return sobol(space, seed)
    known = digest(evidence, HISTORY)
    places = [_imputed(space, item.params) for item in known]
    ask = _asker(space, sampler, seed, places, [item.score for item in known])
    generator = np.random.default_rng(seed)
    asked: list[Place] = []

    def draw(count: int) -> list[Setting]:
        further = min(count, ASKED[sampler] - len(asked))
        drawn = ask(further) if further > 0 else []
        asked.extend(drawn)
        near = (asked[i % len(asked)] for i in range(count - len(drawn)))
        drawn += [_moved(space, place, generator) for place in near]
        return [{p.name: _value(p, place[p.name]) for p in space} for place in drawn]

    return draw


def _asker(
    space: Sequence[Parameter], sampler: str, seed: int, places: Sequence[Place], scores: Sequence[float]
) -> Callable[[int], list[Place]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {p.name: _distribution(p) for p in space}
    with _quiet():
        trials = [
            optuna.trial.create_trial(params=place, distributions=distributions, value=score)
            for place, score in zip(places, scores, strict=True)
        ]
        study = optuna.create_study(sampler=ENGINES[sampler](seed, trials), direction="maximize")
        study.add_trials(trials)

    def ask(count: int) -> list[Place]:
        with _quiet(), _one_thread(sampler):
            return [_rounded(study.ask(distributions).params) for _ in range(count)]

    return ask


def _tpe(seed: int, trials: Sequence[optuna.trial.FrozenTrial]) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate (Falkner et al. 2018, BOHB).

    Optuna weighs its trials by their age. Here the lowest scale comes first, so that counts as the oldest.
    """
    import optuna

    return optuna.samplers.TPESampler(
        n_startup_trials=STARTUP, seed=seed, multivariate=True, constant_liar=True
    )


def _gp(seed: int, trials: Sequence[optuna.trial.FrozenTrial]) -> optuna.samplers.BaseSampler:
    """Gaussian process with a Matérn kernel and expected improvement over the batch (Ament et al. 2023).

    It needs torch; no other sampler here does.
    """
    import optuna

    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=STARTUP)


def _cmaes(seed: int, trials: Sequence[optuna.trial.FrozenTrial]) -> optuna.samplers.BaseSampler:
    """CMA-ES with a warm start (Nomura et al. 2021, WS-CMA-ES): the normal distribution of the best tenth.

    CMA-ES moves its distribution once for each generation that it is told of. Here a stage, or a wave of one,
    is a generation: its batch is drawn from the distribution fitted to all results before it, and its own
    results enter the fit for the next. Mean, width and correlations all come from that fit. Choices without
    order have no place in a normal distribution: they are drawn by TPE, each by itself.
    """
    import optuna

    categorical = optuna.distributions.CategoricalDistribution
    independent = optuna.samplers.TPESampler(n_startup_trials=STARTUP, seed=seed, constant_liar=True)
    numbers = [k for k, d in trials[0].distributions.items() if not isinstance(d, categorical)]
    if not numbers:
        return independent
    source = [
        optuna.trial.create_trial(
            params={name: trial.params[name] for name in numbers},
            distributions={name: trial.distributions[name] for name in numbers},
            value=trial.value,
        )
        for trial in trials
    ]
    return optuna.samplers.CmaEsSampler(
        seed=seed, source_trials=source, independent_sampler=independent, warn_independent_sampling=False
    )


ENGINES = {"tpe": _tpe, "gp": _gp, "cmaes": _cmaes}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what Optuna says about its own options being experimental, and about fits that were hard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _one_thread(sampler: str) -> Iterator[None]:
    """Let torch use one thread.

    Sums over several depend on their number, and with matrices this small they mostly wait for each other.
    """
    if sampler != "gp":
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_a_line(parameter: Parameter) -> bool:
    return parameter.kind != CHOICE or parameter.ordered


def _distribution(parameter: Parameter) -> optuna.distributions.BaseDistribution:
    import optuna.distributions as d

    if _on_a_line(parameter):
        return d.FloatDistribution(0, 1)
    # By place in the list: Optuna's categories are compared by value, and 1 equals True there.
    return d.CategoricalDistribution(tuple(range(len(parameter.values))))


def _imputed(space: Sequence[Parameter], params: Mapping[str, Any]) -> Place:
    """Return a setting's place in the unit cube.

    A parameter that does not exist in the setting has no influence, so any value is as true as another. One
    drawn at random, as in BOHB, leaves no heap at one place that a density would take for a pattern. It is
    drawn from a hash of the setting, so that it is always the same.
    """
    place: Place = {}
    for p in space:
        if p.name in params:
            place[p.name] = place_of(p, params[p.name])
        else:
            unit = zlib.crc32(f"{p.name} {setting_id(params)}".encode()) / 2**32
            place[p.name] = unit if _on_a_line(p) else int(unit * len(p.values))
    return place


def _value(parameter: Parameter, place: float | int) -> Any:
    return parameter.from_unit(place) if _on_a_line(parameter) else parameter.values[int(place)]


def _rounded(params: Mapping[str, Any]) -> Place:
    return {
        name: round(place, DIGITS) if isinstance(place, float) else place for name, place in params.items()
    }


def _moved(space: Sequence[Parameter], place: Place, generator: np.random.Generator) -> Place:
    """Return a place near another; past an end of the unit interval it turns back."""
    moved: Place = {}
    for p in space:
        step, chance, other = generator.normal(0, SPREAD), generator.random(), generator.random()
        if _on_a_line(p):
            beyond = math.fmod(abs(place[p.name] + step), 2)
            moved[p.name] = min(beyond, 2 - beyond)
        else:
            moved[p.name] = place[p.name] if chance < STAYS else int(other * len(p.values))
    return _rounded(moved)
