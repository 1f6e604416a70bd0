"""Combining predictions: scores, the five methods, and the nested choice between them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_candidates import QUICK, SCORES, Floats, Labels, combined, made, noisy, seeds, values
from numpy.typing import NDArray
from scipy.optimize import minimize

from orchestrator.ensemble import combine, margins
from orchestrator.ensemble.blend import blend
from orchestrator.ensemble.combine import METHODS, Combination
from orchestrator.ensemble.library import Arrays, Part
from orchestrator.ensemble.ranking import Columns, ranked
from orchestrator.ensemble.scores import accuracy, each_sample, log_loss, merit, scored
from orchestrator.ensemble.stacking import candidates_for
from orchestrator.errors import UserError


def test_scores() -> None:
    probabilities = np.array([[0.5, 0.5, 0.0], [0.1, 0.2, 0.7]], dtype=np.float32)
    assert accuracy(probabilities, np.array([0, 1])) == 0.5
    assert log_loss(probabilities, np.array([0, 2])) == pytest.approx(-(np.log(0.5) + np.log(0.7)) / 2)
    assert log_loss(probabilities, np.array([2, 2])) == pytest.approx((27.631 - np.log(0.7)) / 2, abs=1e-3)
    predicted, right = np.array([[1.0], [3.0]], dtype=np.float32), np.array([2, 0], dtype=np.float32)
    assert scored("mse", predicted, right) == 5.0
    assert scored("mae", predicted, right) == 2.0
    assert each_sample("mae", predicted, right).tolist() == [1.0, 3.0]
    assert merit("mae", predicted, right) == (-2.0, 0.0)


@pytest.mark.parametrize(
    ("score", "classes", "words"),
    [
        ("acuracy", True, "no score 'acuracy'"),
        ("mse", True, "where classes"),
        ("accuracy", False, "where values"),
    ],
)
def test_a_score_must_fit_what_is_predicted(score: str, classes: bool, words: str) -> None:
    predicted = np.ones((2, 2 if classes else 1), dtype=np.float32)
    with pytest.raises(UserError, match=words):
        scored(score, predicted, np.zeros(2, np.int64) if classes else np.zeros(2, np.float32))


@settings(deadline=None, max_examples=30)
@given(seeds, st.integers(1, 12), st.integers(1, 9), st.sampled_from(QUICK), st.sampled_from(SCORES))
def test_weights_are_shares_and_probabilities_stay_probabilities(
    seed: int, count: int, most: int, method: str, score: str
) -> None:
    arrays, labels = made(seed, count)
    found = combined(method, arrays, labels, score=score, max_members=most, bags=3, seed=seed)
    assert len(found.weights) == count
    assert min(found.weights) >= 0
    assert sum(found.weights) == pytest.approx(1)
    assert 1 <= len(found.members) <= most
    predicted = found.apply(Arrays(arrays))
    assert predicted.dtype == np.float32
    assert predicted.min() >= 0
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    kept = Arrays([arrays[place] for place in found.members])
    assert np.array_equal(found.restricted().apply(kept), predicted)
    assert Combination.from_json(json.loads(json.dumps(found.to_json()))) == found


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(2, 20), st.sampled_from(QUICK), st.sampled_from(SCORES), st.sampled_from([1, 3]))
def test_the_order_of_candidates_and_samples_changes_nothing(
    seed: int, count: int, method: str, score: str, bags: int
) -> None:
    arrays, labels = made(seed, count)
    rng = np.random.default_rng(seed)
    order, rows = rng.permutation(count), rng.permutation(len(labels))
    plain = combined(method, arrays, labels, score=score, bags=bags)
    moved = combined(method, [arrays[each] for each in order], labels, score=score, bags=bags)
    assert np.allclose(np.array(plain.weights)[order], moved.weights, atol=1e-6)
    shuffled = combined(method, [each[rows] for each in arrays], labels[rows], score=score, bags=bags)
    assert np.allclose(plain.weights, shuffled.weights, atol=1e-4)


@settings(deadline=None, max_examples=40)
@given(seeds, st.integers(1, 7), st.integers(1, 9), st.sampled_from(SCORES))
def test_greedy_is_never_worse_than_the_best_on_what_it_chose_by(
    seed: int, count: int, most: int, score: str
) -> None:
    arrays, labels = made(seed, count, samples=60)
    found = combined("greedy", arrays, labels, score=score, max_members=most)
    best = max(merit(score, each, labels) for each in arrays)
    assert merit(score, found.apply(Arrays(arrays)), labels)[0] >= best[0] - 1e-9


def additions(arrays: Sequence[Floats], labels: Labels, score: str, most: int) -> list[int]:
    """Return plain forward selection's counts, where its merit was best first."""
    total, counts = np.zeros(arrays[0].shape), np.zeros(len(arrays), dtype=int)
    best, best_counts = (-np.inf, -np.inf), counts
    for count in range(1, most + 1):
        merits = [merit(score, (total + each) / count, labels) for each in arrays]
        place = max(range(len(arrays)), key=merits.__getitem__)
        total, counts = total + arrays[place], counts + (np.arange(len(arrays)) == place)
        if merits[place] > best:
            best, best_counts = merits[place], counts
    return list(best_counts.tolist())


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 8), st.sampled_from(SCORES))
def test_greedy_selects_as_a_plain_implementation_does(seed: int, count: int, score: str) -> None:
    arrays, labels = made(seed, count)
    # Of 3 members the sorted start is the best candidate alone, as in the plain form.
    expected = np.array(additions(arrays, labels, score, 3))
    found = combined("greedy", arrays, labels, score=score, max_members=3)
    assert np.allclose(found.weights, expected / expected.sum())


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 12), st.integers(2, 6), st.integers(0, 6))
def test_hits_after_each_addition_are_counted_exactly(
    seed: int, count: int, classes: int, members: int
) -> None:
    arrays, labels = made(seed, count, samples=90, classes=classes)
    table = margins.margins(Arrays(arrays), labels, list(range(count)), None)
    chosen = np.random.default_rng(seed).integers(0, count, members)
    total = table.nothing() + sum((table.of(int(each)) for each in chosen), np.float32(0))
    sums = sum((arrays[each].astype(np.float64) for each in chosen), np.zeros(arrays[0].shape))
    expected = [np.count_nonzero((sums + each).argmax(axis=1) == labels) for each in arrays]
    assert table.hits_with_each(total).tolist() == expected
    if members:
        assert table.hits(total) == np.count_nonzero(sums.argmax(axis=1) == labels)


def test_of_many_classes_the_likeliest_rivals_are_looked_at() -> None:
    labels = np.zeros(3, dtype=np.int64)
    likely = np.asarray(np.tile(np.arange(20) / 190, (3, 1)), dtype=np.float32)
    table = margins.margins(Arrays([likely, likely]), labels, [0, 1], None)
    assert table.values.shape == (3, 15, 2)
    assert np.allclose(sorted(-table.of(0)[:, 0] * 190), np.arange(5, 20), atol=1e-4)


def test_greedy_finds_members_that_complement_each_other() -> None:
    labels = np.array([0, 1] * 50)
    sure = np.where(labels[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32)
    doubtful = np.where(labels[:, None] == np.arange(2), 0.4, 0.6).astype(np.float32)
    first, second = sure.copy(), sure.copy()
    first[:40], second[60:] = doubtful[:40], doubtful[60:]
    useless = np.full((100, 2), 0.5, dtype=np.float32)
    found = combined("greedy", [useless, first, second], labels, max_members=5)
    assert found.weights == (0.0, 0.5, 0.5)
    assert accuracy(found.apply(Arrays([useless, first, second])), labels) == 1.0


def test_equal_accuracies_are_decided_by_log_loss() -> None:
    labels = np.array([0, 1] * 10)
    right = labels[:, None] == np.arange(2)
    timid, sure = (np.where(right, chance, 1 - chance).astype(np.float32) for chance in (0.6, 0.9))
    assert combined("greedy", [timid, sure], labels, max_members=3).weights == (0.0, 1.0)
    assert combined("average", [timid, sure], labels, max_members=1).weights == (0.0, 1.0)


def test_average_and_logits_take_the_best_with_equal_weights() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 500)
    arrays = [noisy(rng, labels, skill) for skill in (0.5, 3.0, 1.0, 2.0)]
    for method in ("average", "logits"):
        found = combined(method, arrays, labels, score="log_loss", max_members=2)
        assert found.weights == (0.0, 0.5, 0.0, 0.5)
    geometric = np.sqrt(arrays[1] * arrays[3])
    geometric /= geometric.sum(axis=1, keepdims=True)
    assert np.allclose(found.apply(Arrays(arrays)), geometric, atol=1e-6)
    assert np.allclose(found.apply(Arrays(arrays), np.array([7, 3])), geometric[[7, 3]], atol=1e-6)


def test_bags_are_seeded_halves_and_keep_to_the_most_members() -> None:
    arrays, labels = made(1, 40, samples=300)
    weights = [combined("greedy", arrays, labels, bags=10, seed=seed).weights for seed in (0, 0, 1)]
    assert weights[0] == weights[1] != weights[2]
    assert len([each for each in weights[0] if each]) == 8
    assert combined("greedy", arrays, labels, bags=1, seed=0).weights not in weights


@settings(deadline=None, max_examples=25)
@given(seeds, st.integers(1, 10))
def test_a_blend_is_at_least_as_good_as_each_and_duplicates_do_not_change_it(seed: int, count: int) -> None:
    arrays, labels = made(seed, count)
    found = combined("blend", arrays, labels, max_members=99).apply(Arrays(arrays))
    assert log_loss(found, labels) <= min(log_loss(each, labels) for each in arrays) + 1e-9
    twice = [*arrays, arrays[seed % count], arrays[0]]
    again = combined("blend", twice, labels, max_members=99).apply(Arrays(twice))
    assert np.allclose(found, again, atol=2e-3)
    assert log_loss(again, labels) == pytest.approx(log_loss(found, labels), abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_the_blend_is_the_minimum_that_a_general_solver_finds(seed: int) -> None:
    arrays, labels = made(seed, 6, samples=300)
    right = np.stack([each[np.arange(300), labels] for each in arrays])
    numbers, targets = values(seed, 6, 300)
    columns = np.stack([each[:, 0] for each in numbers])

    def surprise(weights: NDArray[np.float64]) -> float:
        return float(-np.log(weights @ right).mean())

    def error(weights: NDArray[np.float64]) -> float:
        return float(((weights @ columns - targets) ** 2).mean())

    for table, loss in ((Columns(right, None), surprise), (Columns(columns, targets), error)):
        whole = {"type": "eq", "fun": lambda weights: weights.sum() - 1}
        start = np.full(6, 1 / 6)
        expected = minimize(loss, start, bounds=[(0, 1)] * 6, constraints=whole, tol=1e-12)
        assert loss(blend(table, 6)) <= expected.fun + 2e-5


def test_a_blend_keeps_to_the_most_members_and_leaves_the_useless_out() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 400)
    arrays = [noisy(rng, labels, 2.0) for _ in range(6)] + [np.full((400, 4), 0.25, dtype=np.float32)]
    assert combined("blend", arrays, labels).weights[-1] < 0.2
    assert len(combined("blend", arrays, labels, max_members=3).members) == 3


def test_a_blend_of_perfect_and_of_impossible_predictions_is_defined() -> None:
    labels = np.array([0, 1] * 15)
    perfect = np.eye(2, dtype=np.float32)[labels]
    assert (
        accuracy(combined("blend", [perfect, 1 - perfect], labels).apply(Arrays([perfect] * 2)), labels) == 1
    )
    wrong = combined("blend", [1 - perfect, 1 - perfect], labels)
    assert sum(wrong.weights) == pytest.approx(1)
    targets = np.linspace(0, 1, 30, dtype=np.float32)
    same = combined("blend", [targets[:, None]] * 2, targets, score="mse")
    assert np.allclose(same.apply(Arrays([targets[:, None]] * 2))[:, 0], targets)


@pytest.mark.parametrize("method", METHODS)
def test_one_candidate_gives_itself(method: str) -> None:
    arrays, labels = made(0, 1, samples=10)
    found = combined(method, arrays, labels)
    assert found.weights == (1.0,)
    assert np.array_equal(found.apply(Arrays(arrays)), arrays[0])


@pytest.mark.parametrize("classes", [2, 3])
def test_stacking_undoes_what_an_average_cannot(classes: int) -> None:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, 600)
    # Every candidate takes one class for the next.
    arrays = [noisy(rng, (labels + 1) % classes, 3.0, classes) for _ in range(3)]
    found = combined("stacking", arrays[:3], labels)
    assert accuracy(combined("average", arrays, labels).apply(Arrays(arrays)), labels) < 0.1
    predicted = found.apply(Arrays(arrays))
    assert accuracy(predicted, labels) > 0.95
    assert np.allclose(predicted.sum(axis=1), 1, atol=1e-5)
    assert sum(found.weights) == pytest.approx(1)
    assert Combination.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_stacking_is_bounded_and_leaves_the_worst_out() -> None:
    assert [candidates_for(*each) for each in ((10, 5000), (2, 10**6), (1, 10**6), (50, 200))] == [
        10,
        20,
        20,
        2,
    ]
    arrays, labels = made(3, 12, samples=120)
    found = combined("stacking", arrays, labels, max_members=2)
    assert set(found.members) == set(ranked(Arrays(arrays), labels, "log_loss")[:2])
    kept = Arrays([arrays[place] for place in found.members])
    assert np.array_equal(found.restricted().apply(kept), found.apply(Arrays(arrays)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("score", ["mse", "mae"])
def test_values_are_combined_too(method: str, score: str) -> None:
    arrays, targets = values(0, 9)
    found = combined(method, arrays, targets, score=score, bags=5)
    assert sum(found.weights) == pytest.approx(1)
    reached = scored(score, found.apply(Arrays(arrays)), targets)
    assert reached < np.mean([scored(score, each, targets) for each in arrays])
    if method in ("blend", "stacking") and score == "mse":
        assert reached < min(scored(score, each, targets) for each in arrays)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("vote", {}, "no 'vote'"),
        ("average", {"max_members": 0}, "below 1"),
        ("average", {"score": "mse"}, "where classes"),
        ("stacking", {}, "6 samples of each class"),
    ],
)
def test_wrong_requests_are_refused(method: str, changes: dict[str, object], words: str) -> None:
    arrays, labels = made(0, 3, samples=20)
    with pytest.raises(UserError, match=words):
        combined(method, arrays, np.minimum(labels, 2), **changes)


def test_stacking_of_many_classes_and_nothing_at_all_are_refused() -> None:
    arrays, labels = made(0, 2, samples=60, classes=60)
    with pytest.raises(UserError, match="at most 50 classes"):
        combined("stacking", arrays, labels)
    with pytest.raises(UserError, match="nothing to combine"):
        combined("average", [], labels)
    with pytest.raises(UserError, match="no combination"):
        Combination.from_json({"method": "average"})


def test_predictions_that_are_not_finite_are_refused() -> None:
    arrays, labels = made(0, 3)
    arrays[1][5, 0] = np.nan
    with pytest.raises(AssertionError, match="not finite"):
        combined("greedy", arrays, labels)


@pytest.mark.parametrize("method", ["greedy", "blend"])
def test_what_is_worse_than_the_best_candidate_gives_way_to_it(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    arrays = [noisy(rng, labels, skill) for skill in (0.0, 3.0)]
    worst = np.array([0.0, 1.0])  # by rank, so the weaker one
    monkeypatch.setattr(combine, method, lambda *_, **__: worst)
    assert combined(method, arrays, labels).weights == (0.0, 1.0)


def test_selection_in_little_memory_goes_by_some_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    arrays, labels = made(5, 12, samples=500, classes=20)
    monkeypatch.setattr(margins, "_BYTES", 4 * 12 * 16 * 100)
    assert len(margins.rows_that_fit(Arrays(arrays), 12, "accuracy", 0)) == 100  # type: ignore[arg-type]
    found = combined("greedy", arrays, labels)
    best = max(accuracy(each, labels) for each in arrays)
    assert accuracy(found.apply(Arrays(arrays)), labels) >= best


def test_a_part_of_a_library_gives_the_same_rows_kept_or_not() -> None:
    arrays, _ = made(0, 3)
    rows = np.array([5, 2, 9])
    for budget in (0, arrays[0][rows].nbytes, 10**6):
        part = Part(Arrays(arrays), rows, budget)
        assert (part.samples, part.outputs, len(part)) == (3, 4, 3)
        for place in (0, 1, 2, 0):
            assert np.array_equal(part.probabilities(place), arrays[place][rows])
            assert np.array_equal(part.probabilities(place, np.array([2, 0])), arrays[place][[9, 5]])
