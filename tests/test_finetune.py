"""Fine-tuning: what a checkpoint fills, which layers move, and how fast."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.training import finetune
from orchestrator.training.checkpoints import save_member
from orchestrator.training.models import MODELS, build_model
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.settings import FinetuneSettings, ModelSettings, OptimizerSettings

SHAPES: dict[str, tuple[int, ...]] = {"mlp": (6,), "highway": (6,), "cnn": (1, 8, 8), "residual": (1, 8, 8)}
SHAPES |= {"lstm": (5, 3), "gru": (5, 3)}


def network(seed: int = 0, outputs: int = 3, **changes: Any) -> nn.Module:
    torch.manual_seed(seed)
    settings = ModelSettings(**{"width": 4, "depth": 3, "batch_norm": True} | changes)
    return build_model(settings, SHAPES[settings.name], outputs)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


@pytest.mark.parametrize("name", list(MODELS))
def test_a_member_of_the_same_model_fills_everything(name: str, tmp_path: Path) -> None:
    before, model = network(1, name=name), network(2, name=name)
    save_member(tmp_path / "best.pt", before, 7)
    assert finetune.load(model, tmp_path / "best.pt") == ()
    assert all(values.equal(state(before)[key]) for key, values in state(model).items())


@pytest.mark.parametrize("name", list(MODELS))
def test_a_last_layer_of_other_classes_keeps_its_own_values(name: str, tmp_path: Path) -> None:
    before, model = network(1, name=name), network(2, outputs=5, name=name)
    save_member(tmp_path / "best.pt", before, 7)
    own = state(model)
    (kept,) = finetune.load(model, tmp_path / "best.pt")
    for key, values in state(model).items():
        assert values.equal(own[key] if key.startswith(kept) else state(before)[key]), key


def test_a_bias_of_equal_size_goes_with_its_weights(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.Linear(9, 4), nn.ReLU(), nn.Linear(4, 2)).state_dict(), tmp_path / "old.pt")
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    own = state(model)
    assert finetune.load(model, tmp_path / "old.pt") == ("0",)
    assert state(model)["0.bias"].equal(own["0.bias"])
    assert not state(model)["2.bias"].equal(own["2.bias"])


@pytest.mark.parametrize("wrap", ["plain", "state_dict", "module.", "_orig_mod."])
def test_files_of_others(wrap: str, tmp_path: Path) -> None:
    before, model = network(1), network(2)
    content: dict[str, Any] = before.state_dict()
    if wrap.endswith("."):
        content = {wrap + key: values for key, values in content.items()}
    torch.save({"state_dict": content, "epoch": 3} if wrap == "state_dict" else content, tmp_path / "x.pt")
    assert finetune.load(model, tmp_path / "x.pt") == ()
    assert state(model)["1.weight"].equal(state(before)["1.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "finetune.checkpoint: .*x.pt"),
        (b"half a file", "finetune.checkpoint: .*x.pt"),
        ({"elsewhere": torch.ones(3)}, r"nothing in it fits the model: it holds elsewhere \(3,\), and the"),
        ({"epoch": 3}, "holds epoch, and no one state dict"),
        ([1, 2], "holds list"),
        ({"1.weight": torch.full((4, 6), torch.nan)}, "'1.weight' holds values that are not finite"),
    ],
)
def test_files_that_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    if isinstance(content, bytes):
        (tmp_path / "x.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, tmp_path / "x.pt")
    model = network()
    own = state(model)
    with pytest.raises(UserError, match=message):
        finetune.load(model, tmp_path / "x.pt")
    assert all(values.equal(own[key]) for key, values in state(model).items())


@pytest.mark.parametrize(
    ("name", "count"),
    [("mlp", 4), ("highway", 4), ("cnn", 4), ("residual", 5), ("lstm", 2), ("gru", 2)],
)
@pytest.mark.parametrize("activation", ["relu", "prelu"])
def test_layers_are_what_one_would_call_so(name: str, count: int, activation: str) -> None:
    model = network(name=name, activation=activation)
    found = finetune.layers(model)
    assert len(found) == count
    parameters = [each for layer in found for module in layer for each in module.parameters()]
    assert [id(each) for each in parameters] == [id(each) for each in model.parameters()]
    assert isinstance(found[-1][0], nn.Linear)


def test_layers_of_wrapped_models_and_of_a_norm_in_front() -> None:
    inner = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 2)))
    wrapped = nn.ModuleDict({"model": inner})
    assert [len(layer) for layer in finetune.layers(wrapped)] == [2, 1]
    assert len(finetune.layers(nn.Linear(2, 2))) == 1


def test_rates_fall_from_the_last_layer_to_the_first() -> None:
    model = network()
    groups = finetune.parameter_groups(model, FinetuneSettings(layer_decay=0.5), 0.8)
    assert [group["lr"] for group in groups] == pytest.approx([0.1, 0.2, 0.4, 0.8])
    ids = [id(each) for group in groups for each in group["params"]]
    assert sorted(ids) == sorted(id(each) for each in model.parameters())
    (one,) = finetune.parameter_groups(model, FinetuneSettings(), 0.8)
    assert [id(each) for each in one["params"]] == [id(each) for each in model.parameters()]


def test_shared_and_loose_parameters_are_in_one_group() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    groups = finetune.parameter_groups(model, FinetuneSettings(layer_decay=0.5), 1.0)
    build_optimizer(groups, OptimizerSettings())  # it would refuse a weight in two groups
    # The first layer has the shared weight, its own bias and the model's scale; the others have what is left.
    assert [len(group["params"]) for group in groups] == [3, 2, 1]


def by_layer(model: nn.Module) -> list[list[Tensor]]:
    """Return the values of each layer, running statistics among them."""
    found = finetune.layers(model)
    return [[value for module in layer for value in module.state_dict().values()] for layer in found]


def moved(settings: FinetuneSettings, epochs: int, name: str = "mlp") -> list[set[int]]:
    """Train a few epochs; return which layers changed in each, running statistics among them."""
    model = network(name=name)
    data = torch.randn((epochs, 12, *SHAPES[name]), generator=torch.Generator().manual_seed(1))
    groups = finetune.parameter_groups(model, settings, 0.1)
    optimizer = build_optimizer(groups, OptimizerSettings(name="sgd", weight_decay=0.1))
    changes = []
    for epoch in range(epochs):
        before = [[value.clone() for value in values] for values in by_layer(model)]
        finetune.unfreeze(model, settings, epoch)
        model.train()
        finetune.hold_frozen(model, settings, epoch)
        optimizer.zero_grad()
        model(data[epoch]).square().mean().backward()
        optimizer.step()
        places = enumerate(zip(before, by_layer(model), strict=True))
        changes.append({place for place, (old, new) in places if not all(map(torch.equal, old, new))})
    return changes


def test_frozen_layers_stay_and_thaw_from_the_back() -> None:
    everything = {0, 1, 2, 3}
    assert moved(FinetuneSettings(), 2) == [everything] * 2
    assert moved(FinetuneSettings(freeze=2), 3) == [{2, 3}] * 3
    thawing = moved(FinetuneSettings(freeze=3, unfreeze_epochs=2), 7)
    assert thawing == [{3}, {3}, {2, 3}, {2, 3}, {1, 2, 3}, {1, 2, 3}, everything]
    assert moved(FinetuneSettings(freeze=2, unfreeze_epochs=0.5), 2) == [{2, 3}, everything]
    assert moved(FinetuneSettings(freeze=3), 2, "cnn") == [{3}] * 2
    assert moved(FinetuneSettings(freeze=2), 2, "residual") == [{2, 3, 4}] * 2


def test_what_is_frozen_follows_from_the_epoch_alone() -> None:
    settings, model = FinetuneSettings(freeze=2, unfreeze_epochs=1.0), network()
    for epoch, expected in ((0, 2), (1, 1), (5, 0), (0, 2)):  # a run may be taken up anywhere
        assert finetune.unfreeze(model, settings, epoch) == expected
        frozen = [not module.weight.requires_grad for module in model if isinstance(module, nn.Linear)]  # type: ignore[attr-defined]
        assert sum(frozen) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (FinetuneSettings(freeze=4), "freezes 4 of the model's 4 layers.* Say 3 or less"),
        (FinetuneSettings(freeze=-1), "finetune.freeze: -1 is negative"),
        (FinetuneSettings(freeze=1, unfreeze_epochs=0.0), "finetune.unfreeze_epochs: 0.0 is not above 0"),
        (FinetuneSettings(layer_decay=0.0), "finetune.layer_decay: 0.0 is not above 0"),
    ],
)
def test_what_cannot_be(settings: FinetuneSettings, message: str) -> None:
    with pytest.raises(UserError, match=message):
        finetune.parameter_groups(network(), settings, 0.1)


def test_fine_tuning_learns_from_few_samples(tmp_path: Path) -> None:
    """What was learned on many samples of one task helps with few of another that shares its features."""
    torch.manual_seed(0)
    inputs = torch.randn(600, 20)
    hidden = torch.tanh(inputs @ torch.randn(20, 3))
    settings = ModelSettings(width=32, depth=2)

    def trained(model: nn.Module, samples: Tensor, targets: Tensor, tuning: FinetuneSettings) -> nn.Module:
        groups = finetune.parameter_groups(model, tuning, 0.01)
        optimizer = build_optimizer(groups, OptimizerSettings())
        finetune.unfreeze(model, tuning, 0)
        for _ in range(100):
            optimizer.zero_grad()
            nn.functional.mse_loss(model(samples), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return model

    many = trained(build_model(settings, (20,), 3), inputs, hidden, FinetuneSettings())
    save_member(tmp_path / "many.pt", many, 1)
    target = hidden.sum(1, keepdim=True)
    few, errors = slice(0, 40), {}
    for start in ("scratch", "checkpoint"):
        torch.manual_seed(1)
        model = build_model(settings, (20,), 1)
        if start == "checkpoint":
            finetune.load(model, tmp_path / "many.pt")
        tuning = FinetuneSettings(freeze=2 if start == "checkpoint" else 0)
        model = trained(model, inputs[few], target[few], tuning)
        errors[start] = nn.functional.mse_loss(model(inputs[300:]), target[300:]).item()
    assert errors["checkpoint"] < 0.75 * errors["scratch"]
