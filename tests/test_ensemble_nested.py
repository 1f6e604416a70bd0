"""Nested validation: which method of combining is chosen, and what it is worth; on real data, too."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_candidates import QUICK, Floats, Labels, combined, made, noisy, seeds
from sklearn.datasets import load_diabetes, load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from orchestrator.ensemble import nested
from orchestrator.ensemble.combine import METHODS
from orchestrator.ensemble.library import Arrays
from orchestrator.ensemble.nested import nested as measured
from orchestrator.ensemble.scores import accuracy, log_loss
from orchestrator.ensemble.stacking import dealt
from orchestrator.errors import UserError


@settings(deadline=None, max_examples=20)
@given(seeds, st.integers(2, 5), st.lists(st.integers(1, 12), min_size=1, max_size=4))
def test_classes_are_dealt_evenly(seed: int, folds: int, counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    fold = dealt(labels, folds, seed)
    for label in [None, *range(len(counts))]:
        sizes = np.bincount(fold if label is None else fold[labels == label], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def choose(arrays: Sequence[Floats], targets: Labels | Floats, **changes: object) -> nested.Nested:
    options: dict[str, object] = {"score": "accuracy", "max_members": 8, "bags": 3, "folds": 5, "seed": 0}
    return measured(Arrays(arrays), targets, **({"methods": QUICK} | options | changes))  # type: ignore[arg-type]


def test_nested_validation_takes_the_simplest_of_equals() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    methods = ("blend", "average", "greedy")
    found = choose([noisy(rng, labels, 1.5) for _ in range(8)], labels, methods=methods)
    assert (found.chosen, found.folds, found.samples) == ("average", 5, 400)
    assert found.methods["average"].gain > 3 * found.methods["average"].gain_error > 0
    assert "over the best single model" in found.why
    assert json.loads(json.dumps(found.to_json()))["methods"]["average"]["gain"] > 0


@pytest.mark.parametrize(("ahead", "chosen"), [(1, "average"), (40, "blend")])
def test_the_simplest_method_within_one_standard_error_is_taken(ahead: int, chosen: str) -> None:
    right = np.repeat([1.0, 0.0], 100)
    better = right.copy()
    better[100 : 100 + ahead] = 1.0
    values = {"average": right, "greedy": right - 1.0, "blend": better}
    name, why = nested._choose("accuracy", ["average", "greedy", "blend"], values)
    assert name == chosen
    assert ("within one standard error of the best, blend (accuracy 0.5 against 0.505" in why) == (ahead == 1)


def test_nested_validation_takes_what_is_clearly_better() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 400)
    arrays = [noisy(rng, labels, 2.0, 3), *(noisy(rng, (labels + 1) % 3, 1.0, 3) for _ in range(5))]
    found = choose(arrays, labels, methods=METHODS, score="log_loss")
    assert found.chosen == "stacking"
    assert found.methods["average"].gain < 0


def test_nested_validation_sees_through_the_luck_of_selection() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    arrays = [rng.dirichlet((1, 1), 200).astype(np.float32) for _ in range(60)]
    lucky = combined("greedy", arrays, labels).apply(Arrays(arrays))
    assert accuracy(lucky, labels) > 0.65
    found = choose(arrays, labels)
    assert all(abs(each.value - 0.5) < 0.1 for each in found.methods.values())
    assert "no gain over the best single model is certain" in found.why


def test_nested_validation_of_few_samples_or_candidates() -> None:
    arrays, labels = made(0, 5, samples=15)
    few = choose(arrays, labels)
    assert (few.chosen, few.folds, few.methods) == ("average", 0, {})
    assert "15 validation samples are too few" in few.why
    one = choose(made(0, 1)[0], made(0, 1)[1])
    assert (one.chosen, one.folds) == ("average", 0)
    assert "one candidate" in one.why
    arrays, labels = made(0, 5, samples=30)
    labels[0] = 3  # a rare class is in some folds only
    some = choose(arrays, np.where(labels == 3, 2, labels), methods=METHODS)
    assert some.folds == 3
    assert "stacking was left out" in some.why
    assert choose(arrays, labels, folds=1).folds == 0
    assert choose(arrays, labels, methods=("greedy",)).chosen == "greedy"
    with pytest.raises(UserError, match="no 'gredy'"):
        choose(arrays, labels, methods=("gredy",))


def test_nested_validation_of_many_samples_uses_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nested, "SAMPLES", 60)
    arrays, labels = made(0, 4, samples=200)
    found = choose(arrays, labels)
    assert found.samples == 60
    assert "60 of 200 validation samples were used" in found.why
    assert found == choose(arrays, labels)


def test_digits() -> None:
    data, labels = load_digits(return_X_y=True)
    train, val, test = np.arange(0, 700), np.arange(700, 1200), np.arange(1200, 1797)
    models = [
        *(DecisionTreeClassifier(max_depth=depth, random_state=depth) for depth in (4, 8, 16)),
        *(KNeighborsClassifier(neighbours) for neighbours in (3, 9)),
        GaussianNB(var_smoothing=1e-2),
        LogisticRegression(C=1e-3, max_iter=300),
    ]
    parts: tuple[list[Floats], list[Floats]] = [], []
    for model in models:
        model.fit(data[train], labels[train])
        for part, rows in zip(parts, (val, test), strict=True):
            part.append(model.predict_proba(data[rows]).astype(np.float32))
    found = measured(Arrays(parts[0]), labels[val], score="log_loss", max_members=20, bags=5, folds=3, seed=0)
    assert found.folds == 3
    assert found.methods["blend"].gain > 0
    best = min(log_loss(each, labels[test]) for each in parts[1])
    chosen = combined(found.chosen, parts[0], labels[val], score="log_loss", max_members=20)
    assert log_loss(chosen.apply(Arrays(parts[1])), labels[test]) < best


def test_diabetes() -> None:
    data, targets = load_diabetes(return_X_y=True)
    targets = targets.astype(np.float32)
    train, val = np.arange(0, 200), np.arange(200, 442)
    models = [
        *(DecisionTreeRegressor(max_depth=depth, random_state=0) for depth in (2, 4)),
        *(KNeighborsRegressor(neighbours) for neighbours in (5, 20)),
        Ridge(0.1),
    ]
    arrays = [
        model.fit(data[train], targets[train]).predict(data[val]).astype(np.float32)[:, None]
        for model in models
    ]
    found = choose(arrays, targets[val], methods=METHODS, score="mse")
    assert set(found.methods) == set(METHODS)
    assert found.methods[found.chosen].value < np.var(targets[val])
