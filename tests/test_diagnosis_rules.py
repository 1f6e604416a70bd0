"""The rules behind the findings, on series that are made up."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from orchestrator.diagnosis.curves import judge_fit, judge_rate, plain
from orchestrator.diagnosis.losses import Losses
from orchestrator.diagnosis.samples import Layer, judge_layers, judge_predictions, judge_ratio, typical_ratio
from orchestrator.diagnosis.watch import watch


def of(values: Iterable[float]) -> Losses:
    losses = Losses()
    for value in values:
        losses.add(value)
    return losses


FALLS = [2.3 * math.exp(-update / 60) + 0.1 for update in range(300)]
STRAIGHT = [2.3 - 0.001 * update for update in range(300)]
STALLS = [2.3 if update < 3 else 1.9 + 0.1 * (update % 3) for update in range(300)]
EXPLODES = [2.3, 5.0, 40.0, 900.0, 1e5, 3e5] + [30.0] * 60


@pytest.mark.parametrize(
    ("values", "ratio", "code"),
    [
        (FALLS, 5e-3, None),
        (FALLS, None, None),
        (STRAIGHT, 1e-4, "lr_too_small"),
        (STRAIGHT, None, "lr_too_small"),
        (STRAIGHT, 1e-2, None),  # a hard problem, at a rate that is right
        (STRAIGHT[:20], 1e-4, None),  # too short to say
        (STALLS, 0.1, "lr_too_large"),
        (STALLS, 5e-3, None),  # noisy data look so too
        (EXPLODES, 0.1, "lr_too_large"),
        (EXPLODES, None, "lr_too_large"),
        ([2.3, 9.0, 300.0, math.nan], 0.5, "lr_too_large"),
        ([2.3, 2.2, math.nan], 5e-2, None),  # out of the blue: not the rate
        ([0.001] + [0.05, 0.001, 0.002] * 40, 1e-2, None),  # one batch in three is odd
        ([-5.0 - update for update in range(100)], 1e-4, None),  # a likelihood has no scale
        ([0.0] * 100, 1e-2, None),
    ],
)
def test_the_rate_is_judged_by_the_shape_of_the_loss(
    values: list[float], ratio: float | None, code: str | None
) -> None:
    found = judge_rate(of(values), ratio)
    assert (found.code if found else None) == code


def test_a_training_taken_up_again_is_judged_by_explosions_alone() -> None:
    assert judge_rate(of(STRAIGHT), 1e-4, fresh=False) is None
    assert judge_rate(of(EXPLODES), 0.1, fresh=False) is not None


def epochs(*rows: tuple[float, ...]) -> list[dict[str, float]]:
    names = ("train/loss", "val/loss", "train/accuracy", "val/accuracy")
    return [dict(zip(names, row, strict=False)) for row in rows]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([(1 / n, 1.1 / n, 1 - 0.1 / n, 1 - 0.2 / n) for n in range(1, 9)], None),
        ([(2.1, 2.1, 0.2, 0.2)] * 8, "underfitting"),
        ([(2.1 - 0.2 * n, 2.1 - 0.2 * n, 0.5, 0.5) for n in range(5)], None),  # still falling
        ([(2.1, 0.5, 0.3, 0.8)] * 8, None),  # hard training data, as from mixup
        ([(1 / n, 1.0, 0.9, 0.7) for n in range(1, 9)], "overfitting"),
        ([(1 / n, 0.5 + abs(n - 3) / 5) for n in range(1, 9)], "overfitting"),
        ([(1 / n, 0.5 + abs(n - 7) / 5) for n in range(1, 9)], None),
        ([(0.01 / n, 0.01 + n / 1000, 1.0, 0.99) for n in range(1, 9)], None),  # nothing next to 2.3
        ([(2.1, 2.1, 0.2, 0.2)] * 3, None),
        ([(math.nan, 2.1)] * 8, None),
        ([(), ()] * 4, None),
    ],
)
def test_the_fit_is_judged_by_the_epochs(rows: list[tuple[float, ...]], code: str | None) -> None:
    found = judge_fit(epochs(*rows), 2.3, 800)
    assert (found.code if found else None) == code


@pytest.mark.parametrize(
    ("ratio", "code"),
    [(1e-2, None), (1e-3, None), (5e-5, None), (0.5, "updates_too_large"), (1e-7, "updates_too_small")],
)
def test_updates_far_from_the_weights_are_found(ratio: float, code: str | None) -> None:
    # At the first update an adaptive optimizer knows no scale yet.
    ratios = [(1, {"a": 1.0, "b": 1.0}), *((4**n, {"a": ratio, "b": ratio, "c": 1.0}) for n in (1, 2, 3))]
    assert typical_ratio(ratios) == ratio
    found = judge_ratio(ratios)
    assert (found.code if found else None) == code
    assert judge_ratio(ratios[:2]) is None and typical_ratio([]) is None


def test_layers_are_found_by_their_shares() -> None:
    layers = {
        "a": Layer(dead=0.9),
        "b": Layer(dead=0.2),
        "c": Layer(saturated=[0.0, 0.9, 0.8, 0.7]),
        "d": Layer(saturated=[0.9, 0.1, 0.2, 0.1]),
    }
    dead, saturated = judge_layers(layers, 64)
    assert dead.evidence.endswith("90% in a") and saturated.evidence.endswith("80% in c")
    assert judge_layers(layers, 4) == []


def test_predictions_that_keep_changing_are_found() -> None:
    assert judge_predictions([0.9, 0.5, 0.3, 0.1, 0.05, 0.0], 600) is None
    assert judge_predictions([0.3] * 3, 600) is None
    found = judge_predictions([0.3] * 8, 600)
    assert found is not None and found.code == "unstable_predictions" and "30%" in found.evidence


def test_a_training_that_goes_to_and_fro_is_unstable() -> None:
    # The labels are drawn anew each time: there is nothing to settle on.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    seen, inputs = watch(model, optimizer), torch.randn(64, 10)
    for _ in range(8):
        labels = torch.randint(0, 5, (64,))
        for _ in range(100):
            loss = cross_entropy(model(inputs), labels)
            seen.loss(loss)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        seen.epoch({})
    assert "unstable_predictions" in {one.code for one in seen.close()}


def test_metrics_are_known_by_many_names() -> None:
    given = {"train/loss": 1.0, "val_acc": 2.0, "validation.accuracy": 3.0, "valid-loss": 4.0, "lr": 5.0}
    assert plain(given) == {"train/loss": 1.0, "val/accuracy": 3.0, "val/loss": 4.0, "lr": 5.0}
    assert plain({"val/balanced_accuracy": 1.0, "loss": 2.0}) == {"val/balanced_accuracy": 1.0, "loss": 2.0}
