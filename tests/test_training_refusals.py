"""The built-in job's config: what the catalogue lists, and what is refused."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from orchestrator.config import load_sweep
from orchestrator.errors import UserError
from orchestrator.training import supervised
from orchestrator.training.settings import JobSettings, read_job
from trained import ROOT, FakeTrial, catalogue, job, one_thread

single = pytest.fixture(autouse=True)(one_thread)


class Seen(nn.Module):
    """A model of a user's own; `kind` says what is wrong with it."""

    def __init__(self, shape: tuple[int, ...], outputs: int, kind: str = "sound") -> None:
        super().__init__()
        self.kind = kind
        self.layer = nn.Linear(math.prod(shape), outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.layer(inputs.flatten(1))
        if self.kind == "later" and self.training:
            return outputs[:, :1]
        return outputs


@pytest.mark.parametrize("name", ["classify", "regress", "sequences"])
def test_the_catalogue_lists_every_setting(name: str, tmp_path: Path) -> None:
    whole = catalogue(name)
    listed = OmegaConf.to_container(whole.config)
    assert isinstance(listed, dict)
    settings = asdict(read_job(listed))  # type: ignore[arg-type]
    assert listed | {"dataset": {}} == settings
    if name == "classify":
        assert settings == asdict(JobSettings())
    # Hydra composes it to the same.
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text(
        f"defaults: [sweep, {{jobs: {name}}}, {{datasets: digits}}, _self_]\nname: a\n"
        'metric: {name: val/loss, mode: min}\nspace: {optimizer.lr: "interval(0.1, 1)"}\n'
        "stages: {one: {trials: 2}}\n"
    )
    composed = load_sweep(sweep).jobs
    assert composed.config == listed
    assert composed.predict == whole.predict is not None
    config = OmegaConf.create({**listed, "dataset": OmegaConf.load(ROOT / "datasets" / "digits.yaml")})
    for key in [*whole.limits, *whole.scale.values()]:
        assert OmegaConf.select(config, key, default="missing") != "missing", key
    for group, options in whole.groups.items():
        known = asdict(JobSettings())[group]
        for option, values in options.items():
            assert option == values.name and set(values) <= set(known), (group, option)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.widht": 3}, "model.widht: no such key. Did you mean 'width'"),
        ({"model.name": "mpl"}, "model.name: .* Did you mean 'mlp'"),
        ({"model.activation": "rleu"}, "Did you mean 'relu'"),
        ({"model.width": 6.5}, "model.width: 6.5 is no whole number"),
        ({"model.width": 0}, "model.width: 0 is below 1"),
        ({"model.dropout": 1.0}, "model.dropout"),
        ({"optimizer.name": "adan"}, "Did you mean 'adam'"),
        ({"optimizer.lr": -1.0}, "optimizer.lr: -1.0 is negative"),
        ({"optimizer.lr": "fast"}, "optimizer.lr: 'fast' is no number"),
        ({"schedule.name": "cosin"}, "Did you mean 'cosine'"),
        ({"schedule.step_factor": 0.0}, "schedule.step_factor"),
        ({"epochs": 0}, "epochs: 0 is below 1"),
        ({"batch_size": 1, "model.batch_norm": True}, "batch_size"),
        ({"batch_size": "large"}, "batch_size: 'large' is no size"),
        ({"dataset.fraction": 5000}, "5000 samples are asked for"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
        ({"select": "val/acuracy"}, "Did you mean 'val/accuracy'"),
        ({"stopping.then": "retran"}, "Did you mean 'retrain'"),
        ({"stopping.patience": 0}, "stopping.patience: 0 is below 1"),
        ({"loss.name": "mse"}, "loss.name"),
        (
            {"model.target": "test_training_refusals.Seen", "model.arguments": {"kind": "later"}},
            r"gives \(64, 1\), not",
        ),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        supervised.train(job(**changes), FakeTrial(tmp_path))


def test_a_loss_that_is_no_scalar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def each(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    monkeypatch.setattr("orchestrator.training.build.build_loss", lambda *_, **__: each)
    with pytest.raises(UserError, match=r"shape \(64,\), not one number"):
        supervised.train(job(), FakeTrial(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this machine has none"):
        supervised.train(job(device="cuda"), FakeTrial(tmp_path))


def test_a_cnn_wants_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Use mlp for tables"):
        supervised.train(job("wine", **{"model.name": "cnn"}), FakeTrial(tmp_path))


def test_values_have_no_classes_to_balance(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classes to balance"):
        supervised.train(job("diabetes", "regress", balance="over"), FakeTrial(tmp_path))


def test_whole_floats_are_integers() -> None:
    # A sampler that works in floats gives 64.0 for a width.
    assert read_job({"model": {"width": 64.0}}).model.width == 64
