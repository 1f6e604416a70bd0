"""Splits, subsets and choices of classes, as properties over random label arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from orchestrator.data.splits import at_least_one, choose_classes, class_counts, split, subset
from orchestrator.errors import UserError

Labels = NDArray[np.int64]

label_arrays = st.integers(2, 400).flatmap(lambda size: arrays(np.int64, size, elements=st.integers(0, 6)))
fractions = st.floats(0.001, 1.0)
seeds = st.integers(-5, 2**40)
quick = settings(deadline=None, max_examples=60)


@quick
@given(label_arrays, st.floats(0, 0.45), st.floats(0, 0.45), seeds)
def test_split_divides_every_class(labels: Labels, validation: float, test: float, seed: int) -> None:
    parts = split(labels, validation=validation, test=test, seed=seed)
    together = np.concatenate([parts.train, parts.validation, parts.test])
    assert np.array_equal(np.sort(together), np.arange(len(labels)))  # disjoint, and all of them
    counts = class_counts(labels)
    for ids, share in ((parts.validation, validation), (parts.test, test)):
        taken = class_counts(labels[ids], len(counts))
        plenty = counts >= 10
        assert (np.abs(taken - share * counts)[plenty] <= 1).all()
    assert (class_counts(labels[parts.train], len(counts))[counts > 0] >= 1).all()


@quick
@given(label_arrays, fractions, fractions, seeds)
def test_a_smaller_subset_is_contained_in_a_larger_one(
    labels: Labels, one: float, other: float, seed: int
) -> None:
    ids = np.arange(len(labels)) * 3 + 1
    small, large = (subset(labels, ids, amount, seed) for amount in sorted((one, other)))
    assert set(small) <= set(large)
    assert np.array_equal(subset(labels, ids, 1.0, seed), ids)


@quick
@given(label_arrays, st.data())
def test_counts_and_fractions_are_nested_together(labels: Labels, data: st.DataObject) -> None:
    ids = np.arange(len(labels))
    count = data.draw(st.integers(2, len(labels)))
    by_count = set(subset(labels, ids, count, 0))
    assert by_count == set(subset(labels, ids, count / len(labels), 0))
    assert set(subset(labels, ids, 0.5 * count / len(labels), 0)) <= by_count


@quick
@given(label_arrays, fractions, seeds)
def test_each_class_of_a_subset_is_within_one_of_its_share(
    labels: Labels, fraction: float, seed: int
) -> None:
    counts = class_counts(labels)
    taken = class_counts(labels[subset(labels, np.arange(len(labels)), fraction, seed)], len(counts))
    assert (np.abs(taken - fraction * counts) <= 1).all()
    assert (taken[counts > 0] >= 1).all()


@quick
@given(label_arrays, fractions, seeds, st.integers(0, 6))
def test_a_subset_takes_the_same_of_a_class_whatever_other_classes_there_are(
    labels: Labels, fraction: float, seed: int, left_out: int
) -> None:
    ids = np.arange(len(labels))
    rest = ids[labels != left_out]
    everything = subset(labels, ids, fraction, seed)
    without = subset(labels[rest], rest, fraction, seed)
    assert np.array_equal(everything[labels[everything] != left_out], without)


def test_equal_classes_do_not_all_round_up() -> None:
    assert at_least_one(np.full(62, 3), 0.5).sum() == pytest.approx(93, abs=1)


def test_a_seed_takes_other_samples_and_both_are_the_same_in_another_process() -> None:
    code = (
        "import numpy as np; from orchestrator.data.splits import *; l = np.arange(500) % 5; "
        "s = split(l, validation=.2, test=.2, seed=7); "
        "print(s.test[:8].tolist(), subset(l[s.train], s.train, .1, 7)[:8].tolist())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    labels = np.arange(500) % 5
    here = split(labels, validation=0.2, test=0.2, seed=7)
    taken = subset(labels[here.train], here.train, 0.1, 7)
    assert elsewhere.strip() == f"{here.test[:8].tolist()} {taken[:8].tolist()}"
    assert not np.array_equal(here.test, split(labels, validation=0.2, test=0.2, seed=8).test)
    assert not np.array_equal(taken, subset(labels[here.train], here.train, 0.1, 8))


@quick
@given(st.integers(2, 62), st.data(), st.sampled_from(["first", "random"]), seeds)
def test_fewer_classes_are_contained_in_more(total: int, data: st.DataObject, rule: str, seed: int) -> None:
    few = data.draw(st.integers(2, total))
    more = data.draw(st.integers(few, total))
    small, large = (choose_classes(total, count, rule=rule, seed=seed) for count in (few, more))
    assert set(small) <= set(large)
    assert len(small) == few
    assert small == sorted(small)


def test_the_random_rule_depends_on_its_seed() -> None:
    assert len({tuple(choose_classes(10, 3, rule="random", seed=seed)) for seed in range(20)}) > 5


def test_listed_classes_are_names_first() -> None:
    assert choose_classes(3, ["b", "c"], names=["a", "b", "c"]) == [1, 2]
    assert choose_classes(3, [2, 0], names=["a", "b", "c"]) == [0, 2]
    assert choose_classes(3, [3, 1], names=["1", "2", "3"]) == [0, 2]
    with pytest.raises(UserError, match="no class '0'"):
        choose_classes(3, [0, 1], names=["1", "2", "3"])


@pytest.mark.parametrize(
    ("classes", "rule", "message"),
    [
        (11, "first", "11 classes are asked for, and there are 10"),
        (1, "first", "cannot be told apart"),
        ([3], "first", "cannot be told apart"),
        (["cat", "3"], "first", "no class 'cat'"),
        (3, "frist", "Did you mean 'first'"),
    ],
)
def test_bad_classes_are_refused(classes: int | list[int | str], rule: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        choose_classes(10, classes, rule=rule)


@pytest.mark.parametrize(
    ("amount", "message"),
    [
        (0, "not an amount"),
        (-0.5, "not an amount"),
        (101, "101 samples .* there are 100"),
        (2.5, "whole number"),
    ],
)
def test_bad_amounts_are_refused(amount: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        subset(np.arange(100) % 2, np.arange(100), amount, 0)


@pytest.mark.parametrize(("validation", "test"), [(0.6, 0.4), (-0.1, 0.2), (0.2, 1.0)])
def test_bad_splits_are_refused(validation: float, test: float) -> None:
    with pytest.raises(UserError, match="split"):
        split(np.arange(100) % 2, validation=validation, test=test, seed=0)
