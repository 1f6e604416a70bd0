"""Which samples a pass sees, and in what order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orchestrator.errors import UserError
from orchestrator.training.balance import RULES, epoch_order

COUNTS = (60, 25, 5)


def labelled(*counts: int) -> Tensor:
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]


def order(labels: Tensor, rule: str, seed: int = 0) -> Tensor:
    return epoch_order(labels, rule, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("rule", "each"),
    [
        ("none", COUNTS),
        ("over", (60, 60, 60)),
        ("under", (5, 5, 5)),
        ("both", (20, 20, 20)),  # the cube root of 60 * 25 * 5 is 19.6
        ("batch", (30, 30, 30)),
    ],
)
def test_how_often_each_class_comes(rule: str, each: tuple[int, ...]) -> None:
    labels = labelled(*COUNTS)
    chosen = order(labels, rule)
    assert chosen.dtype == torch.int64
    assert tuple(torch.bincount(labels[chosen]).tolist()) == each


@pytest.mark.parametrize("rule", RULES)
def test_samples_come_again_only_when_all_have_come(rule: str) -> None:
    labels = labelled(*COUNTS)
    chosen = order(labels, rule)
    for number in range(len(COUNTS)):
        mine = chosen[labels[chosen] == number]
        times = torch.bincount(mine, minlength=len(labels))[labels == number]
        assert times.max() - times.min() <= 1


@pytest.mark.parametrize("rule", RULES)
def test_chance_comes_from_the_generator_alone(rule: str) -> None:
    labels = labelled(*COUNTS)
    before = torch.get_rng_state()
    first, again, other = order(labels, rule), order(labels, rule), order(labels, rule, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    if rule == "under":
        assert set(first.tolist()) != set(other.tolist()), "another choice in another pass"


def test_without_balance_the_order_is_a_plain_shuffle() -> None:
    labels = labelled(*COUNTS)
    expected = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    assert torch.equal(order(labels, "none"), expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=6).filter(any), st.integers(1, 12))
def test_every_batch_is_balanced(counts: list[int], size: int) -> None:
    labels = labelled(*counts)
    chosen = order(labels, "batch")
    assert len(chosen) == len(labels)
    present = [number for number, count in enumerate(counts) if count]
    for batch in torch.split(chosen, size):
        each = torch.bincount(labels[batch], minlength=len(counts))[present]
        assert each.max() - each.min() <= 1


@pytest.mark.parametrize("rule", RULES)
def test_classes_without_samples_and_single_samples(rule: str) -> None:
    labels = torch.tensor([3, 3, 3, 1])
    assert set(labels[order(labels, rule)].tolist()) == {1, 3}
    assert order(torch.tensor([0]), rule).tolist() == [0]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UserError, match="no rule 'oversample'"):
        order(labelled(3, 3), "oversample")
    with pytest.raises(UserError, match=r"no rule 'batches'. Did you mean 'batch'"):
        order(labelled(3, 3), "batches")
    with pytest.raises(UserError, match="values have no classes to balance"):
        order(torch.tensor([0.5, 1.5]), "over")
