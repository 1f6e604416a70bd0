"""Batches, precision, memory and metrics of the built-in job."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from orchestrator.data.dataset import Part
from orchestrator.errors import UserError
from orchestrator.training import supervised
from orchestrator.training.batching import batch_sizes, joined, samples
from orchestrator.training.largest import _power_below
from orchestrator.training.metrics import gain, measure
from orchestrator.training.precision import choose_dtype
from trained import CPU, FakeTrial, job, one_thread

single = pytest.fixture(autouse=True)(one_thread)


def test_the_largest_batch_leaves_eight_updates_and_scales_the_rate(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = supervised.train(job(batch_size="largest", epochs=2, **{"optimizer.lr": 0.002}), trial)
    # 1077 training samples: 128 is the largest power of two of which there are eight.
    assert result["batch_size"] == 128
    assert trial.reports[0][1]["lr"] == pytest.approx(0.002 * 128 / 256)
    assert [_power_below(limit) for limit in (0, 1, 31, 32, 33)] == [1, 1, 16, 32, 32]


def test_memory_bounds_the_largest_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.training.largest.memory_limit", lambda _: 64 * 1024)
    result = supervised.train(job(batch_size="largest", epochs=1), FakeTrial(tmp_path))
    # 64 inputs, two layers of 64, and 10 outputs are kept for each sample: about 1 KiB.
    assert result["batch_size"] in (16, 32, 64)


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
def test_other_precisions_learn(precision: str, tmp_path: Path) -> None:
    result = supervised.train(job(epochs=6, precision=precision), FakeTrial(tmp_path))
    assert result["val/accuracy"] > 0.85


def test_a_narrow_precision_is_used(tmp_path: Path) -> None:
    # Bits that bfloat16 does not have are lost, so the loss is another one.
    losses = {
        supervised.train(job(epochs=1, precision=each), FakeTrial(tmp_path))["val/loss"]
        for each in ("float32", "bfloat16")
    }
    assert len(losses) == 2
    with pytest.raises(UserError, match="float16 is for GPUs"):
        choose_dtype("float16", CPU)
    with pytest.raises(UserError, match="Did you mean 'bfloat16'"):
        choose_dtype("bfloat", CPU)


def test_gradients_are_clipped(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"optimizer.name": "sgd", "optimizer.lr": 0.1, "optimizer.momentum": 0.0}
    free = supervised.train(job(epochs=1, **changes), FakeTrial(tmp_path))
    clipped = supervised.train(job(epochs=1, **changes | {"optimizer.clip": 1e-9}), FakeTrial(tmp_path))
    assert free["train/loss"] < 0.9 * clipped["train/loss"]  # without a gradient nothing is learned


def test_samples_larger_than_memory_stay_on_disk(tmp_path: Path) -> None:
    inputs = np.arange(24, dtype=np.float32).reshape(8, 3)
    (tmp_path / "file").write_bytes(inputs.tobytes())
    ids = np.arange(8)
    on_disk = np.memmap(tmp_path / "file", dtype=np.float32, mode="r", shape=(8, 3))
    part, mapped = Part(inputs, ids % 2, ids), Part(on_disk, ids % 2, ids)
    there, here = samples(mapped, CPU), samples(part, CPU)
    assert not isinstance(there.inputs, torch.Tensor)
    rows = torch.tensor([5, 0, 2])
    for one, other in ((there, here), (joined(there, there), joined(here, here))):
        rows = rows + len(one) - 8
        assert all(torch.equal(a, b) for a, b in zip(one.take(rows), other.take(rows), strict=True))
        assert torch.equal(torch.cat(list(one.pieces(3))), torch.cat(list(other.pieces(3))))
    config: dict[str, Any] = {"dataset.memory_gb": 1e-6, "dataset.transform": "none", "epochs": 2}
    large = supervised.train(job(**config), FakeTrial(tmp_path / "large"))
    assert large == supervised.train(
        job(**config | {"dataset.memory_gb": None}), FakeTrial(tmp_path / "small")
    )


def test_the_last_batch_never_holds_one_sample() -> None:
    assert batch_sizes(10, 4) == [4, 4, 2]
    assert batch_sizes(9, 4) == [4, 5]
    assert batch_sizes(1, 4) == [1]
    assert batch_sizes(8, 4) == [4, 4]
    assert batch_sizes(5, 1) == [1] * 5


def test_what_is_measured() -> None:
    targets = torch.tensor([0, 0, 0, 0, 1, 1])
    outputs = torch.nn.functional.one_hot(torch.tensor([0, 0, 0, 1, 1, 0]), 3).float() * 50
    measured = measure(outputs, targets)
    assert measured["val/accuracy"] == pytest.approx(4 / 6)
    # The third class does not occur, so it has no recall.
    assert measured["val/balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert measured["val/worst_recall"] == pytest.approx(1 / 2)
    values = measure(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([1.0, 2.0, 4.0]), deviation=10.0)
    assert values["val/loss"] == pytest.approx(1 / 3)
    assert values["val/mae"] == pytest.approx(10 / 3)
    assert values["val/r2"] == pytest.approx(1 - 1 / (14 / 3))
    assert math.isnan(measure(torch.zeros(2, 1), torch.ones(2))["val/r2"])


def test_better_is_lower_for_losses() -> None:
    one, other = {"val/loss": 1.0, "val/accuracy": 0.5}, {"val/loss": 2.0, "val/accuracy": 0.5}
    assert gain(one, other, "val/loss") > 0 > gain(other, one, "val/loss")
    assert gain(one, other, "val/accuracy") > 0 and gain(other, one, "val/accuracy") == 0
