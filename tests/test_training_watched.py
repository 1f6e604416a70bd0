"""What is seen of a training run: its set-up, the watch, a compiled model, and what it leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from orchestrator.checks.setup import as_setup
from orchestrator.diagnosis import detail
from orchestrator.errors import StopTrial, UserError
from orchestrator.training import supervised
from trained import FakeTrial, job, one_thread, same_weights

single = pytest.fixture(autouse=True)(one_thread)


@pytest.mark.parametrize(("dataset", "name"), [("digits", "classify"), ("diabetes", "regress")])
def test_the_setup_is_what_training_begins_with(dataset: str, name: str) -> None:
    config = job(dataset, name, batch_size="largest", **{"model.dropout": 0.5})
    one, other = (as_setup(supervised.setup(config)) for _ in range(2))
    assert len(one.inputs) <= 2000 and len(one.inputs) == len(one.targets)
    assert torch.equal(one.inputs, other.inputs)
    assert all(
        torch.equal(a, b) for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True)
    )
    assert one.loss(one.model(one.inputs), one.targets).dim() == 0
    assert one.optimizer is not None and one.validation is not None
    one.optimizer(one.model.parameters()).step()
    assert len(one.class_names) == (10 if name == "classify" else 0)


def test_the_watch_sees_every_update_and_is_closed(tmp_path: Path) -> None:
    class Watch:
        def __init__(self) -> None:
            self.losses, self.epochs, self.followed, self.closed = 0, 0, 0, 0

        def loss(self, loss: torch.Tensor, *inputs: torch.Tensor) -> None:
            assert loss.requires_grad
            self.losses += 1

        def epoch(self, metrics: dict[str, float]) -> None:
            self.epochs += 1

        def follow(self, optimizer: torch.optim.Optimizer) -> None:
            assert isinstance(optimizer, torch.optim.SGD)
            self.followed += 1

        def close(self) -> None:
            self.closed += 1

    class Watched(FakeTrial):
        watched = Watch()

        def watch(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Watch:
            return self.watched

    trial = Watched(tmp_path, stop_after=4)
    with pytest.raises(StopTrial):
        supervised.train(job(epochs=6, **{"optimizer.switch.to": "sgd", "optimizer.switch.at": 2}), trial)
    watch = trial.watched
    assert (watch.losses, watch.epochs, watch.followed, watch.closed) == (4 * 17, 4, 1, 1)


class Compiled(nn.Module):
    """What stands for a compiled model: it counts its calls, or fails as a compiler does."""

    calls, fails = 0, False

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._orig_mod = model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        from torch._dynamo.exc import TorchDynamoException

        if self.fails:
            raise TorchDynamoException("no C++ compiler\nmore")
        Compiled.calls += 1
        outputs: torch.Tensor = self._orig_mod(inputs)
        return outputs


def test_a_compiled_model_is_what_runs_and_the_plain_one_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", Compiled)
    changes: dict[str, Any] = {"epochs": 2, "checkpoints": 1, "model.dropout": 0.5}
    plain, compiled = FakeTrial(tmp_path / "plain"), FakeTrial(tmp_path / "compiled")
    assert supervised.train(job(**changes), plain) == supervised.train(job(**changes, compile=True), compiled)
    assert Compiled.calls == 2 * (17 + 2)  # batches for training and for validation
    name = "epoch-0002.pt"
    assert same_weights(plain.checkpoint_dir / name, compiled.checkpoint_dir / name)
    monkeypatch.setattr(Compiled, "fails", True)
    with pytest.raises(UserError, match=r"cannot be compiled here: no C\+\+ compiler\. Say compile=false"):
        supervised.train(job(**changes, compile=True), FakeTrial(tmp_path / "fails"))


def test_a_trial_shows_that_it_is_at_work_within_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Alive(FakeTrial):
        shown = 0

        def alive(self) -> None:
            self.shown += 1

    monkeypatch.setattr("orchestrator.training.loop.ALIVE_SECONDS", 0)
    trial = Alive(tmp_path)
    supervised.train(job(epochs=1, batch_size=16), trial)
    assert trial.shown == 5  # 68 batches, 16 at a time


def test_a_final_run_leaves_a_description_of_its_mistakes(tmp_path: Path) -> None:
    class Final(FakeTrial):
        kind = "final"

    supervised.train(job(epochs=3, checkpoints=1), Final(tmp_path))
    described = detail.read(tmp_path / detail.NAME)["predictions"]
    assert described["samples"] == 360
    assert described["confusion"] and described["worst"]
