"""fANOVA and PED-ANOVA: the same shares as Optuna's evaluators, where those come to an end."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.planning.narrowing.fanova import fanova
from orchestrator.planning.narrowing.ped_anova import Places, along_number, ped_anova

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator

GOOD_SHARE = 0.25


def made(seed: int, count: int, *, choices: int = 3, ties: bool = False) -> tuple[NDArray[Any], ...]:
    """Return a skewed number, a whole one, a choice, and results that hang on the first and the last."""
    rng = np.random.default_rng(seed)
    skewed, whole = rng.beta(0.3, 3, count) * 0.7 - 1, rng.integers(1, 9, count).astype(float)
    choice = rng.integers(0, choices, count)
    values = -((skewed + 0.9) ** 2) * 30 + (choice == 1) + rng.normal(0, 0.3, count)
    return skewed, whole, choice, np.round(values) if ties else values


def optunas(
    seed: int, count: int, evaluator: BaseImportanceEvaluator, *, ties: bool = False
) -> Mapping[str, float]:
    """Return what an evaluator of Optuna's says of `made`."""
    import optuna

    skewed, whole, choice, values = made(seed, count, ties=ties)
    ranges = {
        "skewed": optuna.distributions.FloatDistribution(skewed.min(), skewed.max()),
        "whole": optuna.distributions.FloatDistribution(whole.min(), whole.max()),
        "choice": optuna.distributions.CategoricalDistribution((0, 1, 2)),
    }
    study = optuna.create_study(direction="maximize")
    for row, value in enumerate(values.tolist()):
        params = {"skewed": skewed[row], "whole": whole[row], "choice": int(choice[row])}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=value))
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(ranges))


@pytest.mark.parametrize(("count", "ties"), [(12, False), (60, True), (90, False)])
def test_fanova_is_optunas(count: int, ties: bool) -> None:
    from optuna.importance import FanovaImportanceEvaluator

    from orchestrator.planning.narrowing.fanova import DEPTH, SEED, TREES

    expected = optunas(
        count, count, FanovaImportanceEvaluator(n_trees=TREES, max_depth=DEPTH, seed=SEED), ties=ties
    )
    skewed, whole, choice, values = made(count, count, ties=ties)
    along = {"whole": whole[:, None], "skewed": skewed[:, None], "choice": np.eye(3)[choice]}
    # The forest keeps its places in single precision.
    assert fanova(along, values) == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("count", "ties"), [(101, False), (300, True), (500, False)])
def test_ped_anova_is_optunas(count: int, ties: bool) -> None:
    from optuna.importance import PedAnovaImportanceEvaluator

    expected = optunas(count, count, PedAnovaImportanceEvaluator(target_quantile=GOOD_SHARE), ties=ties)
    skewed, whole, choice, values = made(count, count, ties=ties)
    along = {
        "skewed": along_number(skewed),
        "whole": along_number(whole),
        "choice": Places(choice, 3, ordered=False),
    }
    assert ped_anova(along, values, GOOD_SHARE) == pytest.approx(expected, rel=1e-9)


def test_many_results_are_measured_without_what_takes_long_to_import() -> None:
    measured = """
import random, sys
from orchestrator.planning.narrowing.importance import FEW_RESULTS, importance
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import parse_space
space = parse_space({"a": "interval(0.0, 1.0)", "b": "choice(1, 2)"}, {}, "sweep.yaml")
draw = random.Random(0)
params = [{"a": draw.random(), "b": draw.choice((1, 2))} for _ in range(FEW_RESULTS + 1)]
shares = importance(space, [Observation(one, draw.random()) for one in params])
print(round(sum(shares.values()), 9), *{"sklearn", "scipy", "optuna", "pandas"} & set(sys.modules))
"""
    said = subprocess.run([sys.executable, "-c", measured], check=True, capture_output=True, text=True)
    assert said.stdout.split() == ["1.0"]


def test_a_choice_of_very_many_values_is_measured() -> None:
    """Optuna's evaluator takes two to the power of forty steps for it."""
    skewed, whole, choice, values = made(0, 80, choices=40)
    along = {"whole": whole[:, None], "skewed": skewed[:, None], "choice": np.eye(40)[choice]}
    shares = fanova(along, values)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert shares["skewed"] > 5 * shares["whole"]


def test_what_varies_by_one_parameter_alone_is_its_own() -> None:
    rng = np.random.default_rng(0)
    step, other = rng.uniform(-5, 5, 90), rng.uniform(0, 1e-3, 90)
    values = np.where(step > 1, 1.0, 0.0)
    shares = fanova({"step": step[:, None], "other": other[:, None]}, values)
    assert shares == pytest.approx({"step": 1.0, "other": 0.0}, abs=1e-9)


def test_where_no_trials_are_told_apart_all_shares_are_equal() -> None:
    same, values = np.full(20, 3.0), np.arange(20.0)
    assert fanova({"a": same[:, None], "b": same[:, None]}, values) == {"a": 0.5, "b": 0.5}
    # All of them are as good as the last of the best.
    places = along_number(np.arange(20.0))
    assert ped_anova({"a": places, "b": places}, np.zeros(20), GOOD_SHARE) == {"a": 0.5, "b": 0.5}


# Numbers that have next to no width, and those of which the width is no number.
WIDE = st.floats(-1e300, 1e300) | st.sampled_from([0.0, 5e-324, 1e-300])


@settings(max_examples=60, deadline=None)
@given(numbers=st.lists(WIDE, min_size=8, max_size=40), ranks=st.randoms(use_true_random=False))
def test_shares_of_any_numbers_are_shares(numbers: list[float], ranks: random.Random) -> None:
    values = np.asarray([ranks.random() for _ in numbers])
    places = along_number(np.asarray(numbers))
    assert places.cell.min() >= 0
    assert places.cell.max() < places.cells
    other = Places(np.arange(len(numbers)) % 3, 3, ordered=False)
    shares = ped_anova({"number": places, "choice": other}, values, GOOD_SHARE)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert all(0 <= share <= 1 for share in shares.values())
