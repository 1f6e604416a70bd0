"""The losses: their arithmetic, weights and margins, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.data.source import CLASSIFICATION, REGRESSION
from orchestrator.errors import UserError
from orchestrator.training.losses import (
    CLASS_LOSSES,
    CLASS_WEIGHTS,
    Loss,
    build_loss,
    class_weights,
    logit_scale,
    margins,
    wants_normalized,
)
from orchestrator.training.settings import LossSettings

COUNTS = torch.tensor([900, 90, 10])


def classes(settings: LossSettings | None = None, counts: Tensor | None = COUNTS) -> Loss:
    return build_loss(
        settings or LossSettings(), task=CLASSIFICATION, counts=counts, device=torch.device("cpu")
    )


def values(name: str = "auto") -> Loss:
    return build_loss(LossSettings(name=name), task=REGRESSION, counts=None, device=torch.device("cpu"))


def batch(samples: int = 7) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(samples, 3, generator=draw), torch.randint(3, (samples,), generator=draw)


def every_setting() -> list[LossSettings]:
    return [
        LossSettings(name=name, class_weights=rule, label_smoothing=smoothing)
        for name in CLASS_LOSSES
        for rule in CLASS_WEIGHTS
        for smoothing in (0.0, 0.1)
    ]


def test_auto_is_the_plain_loss_of_the_task() -> None:
    outputs, targets = batch()
    assert torch.equal(classes()(outputs, targets), functional.cross_entropy(outputs, targets))
    wanted = torch.linspace(-1, 1, 7)
    assert torch.equal(values()(outputs[:, :1], wanted), functional.mse_loss(outputs[:, 0], wanted))


@pytest.mark.parametrize("settings", every_setting(), ids=str)
def test_whole_shares_are_like_classes(settings: LossSettings) -> None:
    outputs, targets = batch()
    loss = classes(settings)
    hard, soft = loss(outputs, targets), loss(outputs, functional.one_hot(targets, 3).float())
    assert hard.dim() == 0 and math.isfinite(hard)
    assert torch.isclose(hard, soft, rtol=1e-5)
    # Every loss here is linear in the shares, except for ldam's margin, which a share has its share of.
    if settings.name != "ldam":
        shares = torch.lerp(
            functional.one_hot(targets, 3).float(), functional.one_hot(targets.flip(0), 3).float(), 0.3
        )
        blended = 0.7 * loss(outputs, targets) + 0.3 * loss(outputs, targets.flip(0))
        assert torch.isclose(loss(outputs, shares), blended, rtol=1e-5)


@pytest.mark.parametrize("settings", every_setting(), ids=str)
def test_gradients_are_finite_where_outputs_are_extreme(settings: LossSettings) -> None:
    outputs = torch.tensor([[200.0, -200.0, 0.0], [-200.0, 200.0, 0.0]], requires_grad=True)
    loss = classes(replace(settings, focus=0.5))(outputs, torch.tensor([0, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None and torch.isfinite(outputs.grad).all()
    assert outputs.grad[1].abs().sum() > 0


def test_weights_follow_the_counts() -> None:
    inverse, root, effective = (class_weights(COUNTS, rule) for rule in CLASS_WEIGHTS[1:])
    assert (inverse / inverse[0]).tolist() == pytest.approx([1, 10, 90])
    assert (root / root[0]).tolist() == pytest.approx([1, 10**0.5, 90**0.5])
    expected = [(1 - 0.999**900) / (1 - 0.999**count) for count in (900, 90, 10)]
    assert (effective / effective[0]).tolist() == pytest.approx(expected, rel=1e-4)
    for weights in (inverse, root, effective):
        assert float((weights * COUNTS).sum() / COUNTS.sum()) == pytest.approx(1)
    many = class_weights(torch.tensor([100_000, 200_000]), "effective")
    assert many.tolist() == pytest.approx([1, 1]), "a thousand samples more say nothing new"


@pytest.mark.parametrize("name", CLASS_LOSSES)
def test_a_weight_is_how_much_a_class_counts(name: str) -> None:
    outputs, targets = batch()
    weights = class_weights(COUNTS, "inverse_sqrt")
    plain, weighted = (
        classes(LossSettings(name=name)),
        classes(LossSettings(name=name, class_weights="inverse_sqrt")),
    )
    each = [plain(outputs[row : row + 1], targets[row : row + 1]) for row in range(len(targets))]
    expected = (torch.stack(each) * weights[targets]).mean()
    assert torch.isclose(weighted(outputs, targets), expected, rtol=1e-5)


@pytest.mark.parametrize("rule", CLASS_WEIGHTS[1:])
def test_a_class_that_is_not_there_has_no_infinite_weight(rule: str) -> None:
    weights = class_weights(torch.tensor([50, 0, 1]), rule)
    assert torch.isfinite(weights).all()
    assert weights[1] == weights[2], "like one with a single sample"
    assert float((weights * torch.tensor([50, 0, 1])).sum() / 51) == pytest.approx(1)


def test_margins_grow_with_the_fourth_root() -> None:
    found = margins(torch.tensor([10_000, 0, 625, 16]), 0.5)
    assert found.tolist() == pytest.approx([0.1, 0.5, 0.2, 0.5])


def test_ldam_by_hand() -> None:
    outputs, targets = torch.tensor([[0.9, 0.1, -0.3]]), torch.tensor([2])
    lowered = torch.tensor([[0.9, 0.1, -0.3 - 0.5]]) * 30
    assert torch.isclose(
        classes(LossSettings(name="ldam"))(outputs, targets), functional.cross_entropy(lowered, targets)
    )
    assert wants_normalized(LossSettings(name="ldam")) and not wants_normalized(LossSettings())
    assert logit_scale(LossSettings(name="ldam", scale=10)) == 10 and logit_scale(LossSettings()) == 1


def test_focal_by_hand() -> None:
    outputs, targets = batch()
    chance = outputs.softmax(1).gather(1, targets[:, None])[:, 0]
    expected = (-((1 - chance) ** 2) * chance.log()).mean()
    assert torch.isclose(classes(LossSettings(name="focal"))(outputs, targets), expected)
    no_focus = classes(LossSettings(name="focal", focus=0.0, label_smoothing=0.1))
    assert torch.isclose(
        no_focus(outputs, targets), classes(LossSettings(label_smoothing=0.1))(outputs, targets)
    )


@pytest.mark.parametrize("name", ["mse", "mae", "huber"])
def test_values(name: str) -> None:
    outputs, wanted = torch.tensor([[1.0], [2.0], [5.0]]), torch.tensor([1.0, 1.5, 2.0])
    expected = {"mse": (0.25 + 9) / 3, "mae": 3.5 / 3, "huber": (0.125 + 2.5) / 3}[name]
    for shaped in (outputs, outputs[:, 0]):
        assert float(values(name)(shaped, wanted)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        (LossSettings(name="cross_entropi"), CLASSIFICATION, r"loss.name.*Did you mean 'cross_entropy'"),
        (LossSettings(name="mse"), CLASSIFICATION, "'mse' is a loss for values, and these data have classes"),
        (LossSettings(name="focal"), REGRESSION, r"is a loss for classes, .* Valid: auto, mse, mae, huber"),
        (LossSettings(name="hubert"), REGRESSION, "Did you mean 'huber'"),
        (LossSettings(class_weights="inverse_root"), CLASSIFICATION, "Did you mean 'inverse"),
        (LossSettings(class_weights="inverse"), REGRESSION, "no classes to weigh"),
        (LossSettings(label_smoothing=1.0), CLASSIFICATION, "loss.label_smoothing: 1.0 is not from 0"),
        (LossSettings(name="ldam", margin=-1.0), CLASSIFICATION, "loss.margin: -1.0 is not 0 or above"),
        (LossSettings(name="ldam", scale=0.0), CLASSIFICATION, "loss.scale: 0.0 is not above 0"),
        (LossSettings(name="focal", focus=math.nan), CLASSIFICATION, "loss.focus: nan is not"),
    ],
)
def test_what_cannot_be_is_said(settings: LossSettings, task: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_loss(settings, task=task, counts=COUNTS, device=torch.device("cpu"))


@pytest.mark.parametrize("settings", [LossSettings(name="ldam"), LossSettings(class_weights="inverse")])
def test_counts_are_asked_for_where_they_matter(settings: LossSettings) -> None:
    for counts in (None, torch.zeros(3, dtype=torch.int64)):
        with pytest.raises(UserError, match="how many samples each class has"):
            classes(settings, counts)


@pytest.mark.parametrize(
    "remedy", [LossSettings(class_weights="inverse_sqrt"), LossSettings(name="ldam")], ids=str
)
def test_rare_classes_are_found_more_often(remedy: LossSettings) -> None:
    """Two classes that overlap, one twenty times as rare: a linear model gives the rare one more room."""
    draw = torch.Generator().manual_seed(0)
    counts = torch.tensor([400, 20])
    targets = torch.repeat_interleave(torch.arange(2), counts)
    inputs = torch.randn(420, 2, generator=draw) + 1.5 * targets[:, None]

    def recall(settings: LossSettings) -> float:
        torch.manual_seed(0)
        model = torch.nn.Linear(2, 2)
        optimizer, loss = torch.optim.Adam(model.parameters(), lr=0.1), classes(settings, counts)
        for _ in range(60):
            optimizer.zero_grad()
            loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return float((model(inputs)[targets == 1].argmax(1) == 1).double().mean())

    assert recall(remedy) > recall(LossSettings()) + 0.05
