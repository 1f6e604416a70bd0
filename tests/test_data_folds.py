"""Folds, the confusable classes, and the very samples that a seed takes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_data_sources import refused

from orchestrator.data.confusable import confusable_order
from orchestrator.data.dataset import Splits, open_dataset
from orchestrator.data.folds import fold_counts, fold_numbers, number_of_folds
from orchestrator.data.settings import DatasetSettings, SplitSettings
from orchestrator.data.size import DatasetSize, dataset_size, trained_samples
from orchestrator.data.source import Source
from orchestrator.data.splits import class_counts

label_arrays = st.integers(2, 200).flatmap(lambda size: arrays(np.int64, size, elements=st.integers(0, 6)))
quick = settings(deadline=None, max_examples=60)
WINE: dict[str, Any] = {"_target_": "orchestrator.data.sources.tabular", "name": "wine"}


class Scale(NamedTuple):
    fraction: float = 1.0
    classes: int | None = None
    rule: str = "first"


def made(labels: Any, **changes: Any) -> Splits:
    """Return a dataset of these labels, whose inputs are the samples' numbers."""
    names = tuple("abcdefghij"[: int(max(labels)) + 1])
    source = Source(
        labels=np.asarray(labels, dtype=np.int64),
        class_names=names,
        shape=(1,),
        load=lambda indices: indices[:, None].astype(np.float32),
    )
    return Splits(source, DatasetSettings(**changes))


@quick
@given(label_arrays, st.integers(2, 8), st.integers(0, 2**40))
def test_folds_divide_every_class_evenly(labels: Any, folds: int, seed: int) -> None:
    ids = np.arange(len(labels)) * 2 + 1
    numbers = fold_numbers(labels, ids, folds, seed)
    counts = class_counts(labels, 7)
    assert set(numbers[numbers < 0]) <= {-1}
    assert np.array_equal(numbers < 0, counts[labels] == 1)  # the only one of its class is for training
    found = np.array([class_counts(labels[numbers == fold], 7) for fold in range(folds)])
    assert np.array_equal(found, fold_counts(counts, folds))  # what planning counts without the labels
    assert np.ptp(found, axis=0).max() <= 1
    assert np.ptp(found.sum(axis=1)) <= 1
    # Every class can be learned in every fold.
    assert ((counts - found)[:, counts > 0] > 0).all()


def test_a_dataset_in_folds() -> None:
    data = open_dataset(WINE | {"split": {"folds": 5}})
    folds = [data.fold(number) for number in range(data.folds)]
    tested = set(data.part("test").ids)
    held_out = [set(fold.validation.ids) for fold in folds]
    everything = set(data.train.ids) | set(data.validation.ids)
    assert set.union(*held_out) == everything
    assert sum(map(len, held_out)) == len(everything)
    for fold, ids in zip(folds, held_out, strict=True):
        assert set(fold.train.ids) == everything - ids
        assert set(fold.part("test").ids) == tested
    few = open_dataset(WINE | {"split": {"folds": 5}, "fraction": 0.3, "classes": 2})
    assert all(set(few.fold(k).train.ids) <= set(folds[k].train.ids) for k in range(5))
    assert all(set(few.fold(k).validation.ids) <= held_out[k] for k in range(5))
    standardized = open_dataset(WINE | {"split": {"folds": 5}, "transform": "standardize"}).fold(3)
    assert standardized.train.inputs.mean(axis=0) == pytest.approx(0, abs=1e-5)
    refused("no fold 5. They are 0 to 4", lambda: data.fold(5))
    plain = open_dataset(WINE)
    assert np.array_equal(plain.fold(0).train.ids, plain.train.ids)


@pytest.mark.parametrize(("samples", "folds"), [(178, 5), (495, 5), (500, 1), (9, 1)])
def test_small_data_are_trained_in_folds(samples: int, folds: int) -> None:
    labels = np.arange(samples) % 2
    data = made(labels, split=SplitSettings(folds="auto"))
    assert data.folds == folds  # 500 samples have 100 for validation


def test_planning_pays_for_every_fold() -> None:
    for scale in (Scale(), Scale(classes=2, rule="random"), Scale(fraction=0.2), Scale(fraction=20)):
        config = {"_target_": "orchestrator.data.glyphs.glyphs", "samples": 400, "num_classes": 5}
        config |= {"imbalance": 6.0, "split": {"folds": "auto"}}
        size = dataset_size(config)
        stage = {"fraction": scale.fraction, "classes": scale.classes, "class_rule": scale.rule}
        data = open_dataset(config | stage)
        folds = [data.fold(number) for number in range(data.folds)]
        cut = {"folds": "auto"}
        planned = trained_samples(size, scale.fraction, scale.classes, cut, class_rule=scale.rule)
        assert planned == sum(len(fold.train.ids) for fold in folds)
        first = trained_samples(
            size, scale.fraction, scale.classes, cut, class_rule=scale.rule, all_folds=False
        )
        assert first == len(folds[0].train.ids)
        assert (size.train_samples, size.folds) == (256, 5)


def test_bad_folds_are_refused() -> None:
    counts = np.array([4, 1, 3])
    assert number_of_folds("auto", 3, counts) == 1  # too few to divide
    assert number_of_folds(7, 3, counts) == 7
    for wanted, message in [
        (8, "8 folds need 8 samples .* there are 7"),
        (0, "0 is no number"),
        ("all", "'all'"),
    ]:
        refused(message, number_of_folds, wanted, 3, counts)
    refused("split.folds: 1.5 is no", lambda: open_dataset(WINE | {"split": {"folds": 1.5}}))


def test_a_class_with_one_sample_is_for_training() -> None:
    labels = [0, 1] * 20 + [2]
    for folds in (1, 4):
        data = made(labels, split=SplitSettings(folds=folds))
        assert "1 classes with one sample ('c'): validation and test have none of them" in data.notes
        for number in range(folds):
            assert 40 in data.fold(number).train.ids
    assert made([0, 1] * 20).notes == ()


# ---- the confusable classes


def test_the_classes_most_alike_are_chosen_first() -> None:
    # Classes on a line at 0, 10, 11, 30 and 12.5: 1 and 2 are nearest, then 4.
    rng = np.random.default_rng(0)
    labels = np.arange(500) % 5
    inputs = (np.array([0, 10, 11, 30, 12.5])[labels, None] + rng.normal(0, 0.8, (500, 1))) * [1.0, 0.0]
    indicators = np.concatenate([inputs, np.exp(-((inputs[:, :1] - np.arange(0, 31, 2.0)) ** 2) / 4)], axis=1)
    order = confusable_order(labels, np.arange(500), lambda ids: indicators[ids].astype(np.float32))
    assert sorted(order[:2]) == [1, 2]
    assert order[2] == 4
    assert sorted(order) == [0, 1, 2, 3, 4]


def test_digits_that_look_alike_make_a_stage() -> None:
    config = {"_target_": "orchestrator.data.sources.digits", "class_rule": "confusable"}
    names = [open_dataset(config | {"classes": count}).class_names for count in (2, 3, 10)]
    assert names[0] == ("1", "8")  # as people say too
    assert set(names[0]) < set(names[1]) < set(names[2])
    folds = open_dataset(config | {"classes": 3, "split": {"folds": 3}})
    assert {folds.fold(number).class_names for number in range(3)} == {names[1]}
    size = dataset_size(config | {"samples": 1797, "num_classes": 10})
    planned = trained_samples(size, 1.0, 3, class_rule="confusable")
    assert planned == pytest.approx(len(open_dataset(config | {"classes": 3}).train.ids), rel=0.05)
    tokens = {"_target_": "orchestrator.data.chains.chains", "samples": 300, "classes": 2}
    assert open_dataset(tokens | {"class_rule": "confusable"}).num_classes == 2


# ---- the same samples everywhere


def test_a_seed_takes_the_same_samples_on_every_machine_and_in_every_version() -> None:
    data = made(np.arange(60) % 3, fraction=0.2, split=SplitSettings(folds=3))
    assert data.part("test").ids.tolist() == GOLDEN["test"]
    assert data.validation.ids.tolist() == GOLDEN["validation"]
    assert data.train.ids.tolist() == GOLDEN["train"]
    assert data.fold(1).validation.ids.tolist() == GOLDEN["fold"]
    assert data.fold(1).train.ids.tolist() == GOLDEN["fold train"]


GOLDEN: dict[str, list[int]] = {
    "test": [2, 4, 6, 18, 32, 33, 41, 42, 43, 49, 52, 53],
    "validation": [5, 8, 10, 23, 27, 31, 36, 37, 39, 46, 48, 56],
    "train": [0, 7, 20, 22, 38, 50, 57],
    "fold": [0, 1, 8, 13, 14, 21, 23, 25, 27, 31, 34, 36, 47, 54, 58, 59],
    "fold train": [7, 20, 22, 38, 45, 57],
}


def test_an_unknown_size_stays_unknown() -> None:
    assert trained_samples(DatasetSize(samples=100), 1.0, None, {"folds": 5}) is None
