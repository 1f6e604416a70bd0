"""The built-in job: what it learns, that it repeats and resumes bit by bit, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from orchestrator.errors import StopTrial, UserError
from orchestrator.training import classify
from orchestrator.training.checkpoints import UnreadableCheckpoint, load
from orchestrator.training.loop import batches, kept_epochs
from orchestrator.training.models import ACTIVATIONS, build_model, count_parameters
from orchestrator.training.optimizers import OPTIMIZERS
from orchestrator.training.schedules import build_schedule
from orchestrator.training.settings import JobSettings, ModelSettings, ScheduleSettings, read_job

ROOT = Path(__file__).parent.parent
SMALL: dict[str, Any] = {"dataset.fraction": 0.2, "dataset.classes": 3, "epochs": 4, "model.dropout": 0.2}


class FakeTrial:
    """A trial that remembers, and can be made to stop the run after an epoch."""

    def __init__(self, folder: Path, stop_after: int = 0, error: type[BaseException] = StopTrial) -> None:
        self.checkpoint_dir = folder
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.kept: list[tuple[str, int]] = []
        self._stop_after, self._error = stop_after, error

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.reports.append((step, metrics))
        if step == self._stop_after:
            raise self._error

    def keep(self, path: Path, step: int) -> None:
        assert path.is_file()
        self.kept.append((path.name, step))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def job(dataset: str = "digits", **changes: Any) -> DictConfig:
    """Return the catalogue's job on a catalogue's dataset, with dotted keys changed."""
    config = OmegaConf.load(ROOT / "jobs" / "classify.yaml").config
    config.dataset = OmegaConf.load(ROOT / "datasets" / f"{dataset}.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    assert isinstance(config, DictConfig)
    return config


def weights(path: Path) -> dict[str, torch.Tensor]:
    model = load(path, torch.device("cpu"))["model"]
    assert isinstance(model, dict)
    return model


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_digits_are_learned(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = classify.train(job(epochs=20), trial)
    assert result["val/accuracy"] > 0.93
    assert [step for step, _ in trial.reports] == list(range(1, 21))
    assert set(trial.reports[0][1]) == {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "lr"}
    best = max(trial.reports, key=lambda each: (each[1]["val/accuracy"], -each[1]["val/loss"]))
    assert result == {key: best[1][key] for key in best[1] if key != "lr"} | {"best_epoch": float(best[0])}
    assert trial.kept == []
    assert list(tmp_path.iterdir()) == []  # a quick run writes nothing


def test_generated_characters_are_learned_by_a_cnn(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "dataset.samples": 3000,
        "dataset.num_classes": 10,
        "dataset.classes": 3,
        "dataset.validation_size": 100,
        "model.name": "cnn",
        "model.width": 8,
        "model.batch_norm": True,
        "optimizer.lr": 0.01,
        "epochs": 5,
        "batch_size": 32,
    }
    assert classify.train(job("glyphs", **changes), FakeTrial(tmp_path))["val/accuracy"] > 0.85


@pytest.mark.parametrize("dataset", ["wine", "breast_cancer"])
def test_tables_are_learned(dataset: str, tmp_path: Path) -> None:
    assert classify.train(job(dataset, epochs=25), FakeTrial(tmp_path))["val/accuracy"] > 0.93


def test_a_seed_repeats_bit_by_bit_and_another_does_not(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        trial = FakeTrial(tmp_path / str(number))
        trial.checkpoint_dir.mkdir()
        runs.append((classify.train(job(**SMALL, seed=seed, checkpoints=1), trial), trial.reports))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert same_weights(tmp_path / "0" / "epoch-0004.pt", tmp_path / "1" / "epoch-0004.pt")


@pytest.mark.parametrize("stop_after", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer.name": "adam", "schedule.name": "cosine", "schedule.warmup_epochs": 1.5},
        {"optimizer.name": "sgd", "schedule.name": "exponential", "model.batch_norm": True},
    ],
    ids=["adam", "sgd"],
)
def test_a_continued_run_has_the_bits_of_one_that_was_not_stopped(
    changes: dict[str, Any], stop_after: int, tmp_path: Path
) -> None:
    config = job(**SMALL | {"epochs": 6, "checkpoints": 2, "save_seconds": 0} | changes)
    whole, stopped, continued = (
        FakeTrial(tmp_path / "whole"),
        FakeTrial(tmp_path / "parts", stop_after, KeyboardInterrupt),
        FakeTrial(tmp_path / "parts"),
    )
    expected = classify.train(config, whole)
    with pytest.raises(KeyboardInterrupt):
        classify.train(config, stopped)
    torch.manual_seed(999)  # a new process would not have the old one's random state either
    assert classify.train(config, continued) == expected
    # The epoch in whose report the run died was not saved yet: it is run and reported again.
    assert continued.reports[0][0] == stop_after
    assert stopped.reports[:-1] + continued.reports == whole.reports
    for name in ("epoch-0006.pt", "best.pt", "last.pt"):
        assert same_weights(tmp_path / "whole" / name, tmp_path / "parts" / name)
    assert {*stopped.kept, *continued.kept} == {*whole.kept}


def test_a_finished_run_returns_its_result_again(tmp_path: Path) -> None:
    config = job(**SMALL, checkpoints=1)
    expected = classify.train(config, FakeTrial(tmp_path))
    again = FakeTrial(tmp_path)
    assert classify.train(config, again) == expected
    assert again.reports == []


@pytest.mark.parametrize("damage", ["cut", "other settings"])
def test_a_state_that_does_not_fit_is_passed_over(damage: str, tmp_path: Path) -> None:
    config = job(**SMALL, save_seconds=0)
    expected = classify.train(config, FakeTrial(tmp_path))
    last = tmp_path / "last.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:1000])
    else:
        classify.train(job(**SMALL | {"epochs": 2}, save_seconds=0), FakeTrial(tmp_path))
    trial = FakeTrial(tmp_path)
    assert classify.train(config, trial) == expected
    assert len(trial.reports) == 4


def test_checkpoints_are_spread_over_the_second_half(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = classify.train(job(epochs=12, checkpoints=3), trial)
    assert trial.kept[:3] == [("epoch-0008.pt", 8), ("epoch-0010.pt", 10), ("epoch-0012.pt", 12)]
    best = int(result["best_epoch"])
    assert trial.kept[3:] == ([] if best in (8, 10, 12) else [("best.pt", best)])
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("epochs", "count", "expected"),
    [
        (60, 5, {36, 42, 48, 54, 60}),
        (1, 3, {1}),
        (2, 5, {1, 2}),
        (10, 0, set()),
        (10, 1, {10}),
    ],
)
def test_kept_epochs(epochs: int, count: int, expected: set[int]) -> None:
    assert kept_epochs(epochs, count) == expected


def test_divergence_is_a_result(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optimizer.name": "sgd",
        "optimizer.lr": 1e6,
        "dataset.fraction": 0.2,
        "epochs": 50,
    }
    trial = FakeTrial(tmp_path)
    result = classify.train(job(**changes), trial)
    assert set(result) >= {"val/accuracy", "val/loss", "train/loss"}
    assert all(math.isnan(value) for value in result.values())
    assert len(trial.reports) < 50
    assert not math.isfinite(trial.reports[-1][1]["train/loss"])


def test_a_stopped_trial_passes_through(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path, stop_after=2)
    with pytest.raises(StopTrial):
        classify.train(job(**SMALL), trial)
    assert len(trial.reports) == 2


def test_predictions_are_those_of_the_run(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model.dropout": 0.5, "model.batch_norm": True}
    config = job(epochs=6, checkpoints=1, **changes)
    trial = FakeTrial(tmp_path)
    classify.train(config, trial)
    predictions = classify.predict(config, tmp_path / "epoch-0006.pt", "validation")
    right = predictions.probabilities.argmax(axis=1) == predictions.labels
    assert right.mean() == pytest.approx(trial.reports[-1][1]["val/accuracy"])
    assert predictions.probabilities.dtype == np.float32
    assert predictions.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    again = classify.predict(config, tmp_path / "epoch-0006.pt", "validation")
    assert np.array_equal(predictions.probabilities, again.probabilities)  # no dropout in evaluation
    tested = classify.predict(config, tmp_path / "epoch-0006.pt", "test")
    assert not set(tested.ids) & set(predictions.ids)
    assert (tested.probabilities.argmax(axis=1) == tested.labels).mean() > 0.85


def test_a_damaged_or_foreign_checkpoint_says_so(tmp_path: Path) -> None:
    classify.train(job(**SMALL, checkpoints=1), FakeTrial(tmp_path))
    path = tmp_path / "epoch-0004.pt"
    with pytest.raises(UnreadableCheckpoint, match=r"epoch-0004\.pt"):
        classify.predict(job(**SMALL | {"model.width": 8}), path, "validation")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnreadableCheckpoint, match=r"epoch-0004\.pt"):
        classify.predict(job(**SMALL), path, "validation")


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_every_optimizer_trains_every_activation(optimizer: str, activation: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "optimizer.name": optimizer,
        "model.activation": activation,
        "dataset.classes": 4,
    }
    trial = FakeTrial(tmp_path)
    assert classify.train(job(epochs=5, batch_size=16, **changes), trial)["val/accuracy"] > 0.8
    # Initial values suit the activation: the first pass is already below twice the loss of guessing.
    assert trial.reports[0][1]["train/loss"] < 2 * math.log(4)


@pytest.mark.parametrize(
    ("name", "warmup", "first", "middle", "last"),
    [
        ("none", 0, 1, 1, 1),
        ("cosine", 0, 1, 0.5, 0.0245),
        ("step", 0, 1, 0.5, 0.5),
        ("exponential", 0, 1, 0.0316, 0.002),
        ("none", 2, 0.01, 1, 1),
        ("cosine", 2, 0.01, 0.691, 0.0381),
    ],
)
def test_schedules(name: str, warmup: float, first: float, middle: float, last: float) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = build_schedule(
        optimizer, ScheduleSettings(name=name, warmup_epochs=warmup), epochs=10, epoch_updates=4
    )
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    assert rates[0] == pytest.approx(first)
    assert rates[20] == pytest.approx(middle, abs=1e-3)
    assert rates[36] == pytest.approx(last, abs=1e-3)


def test_the_last_batch_never_holds_one_sample() -> None:
    assert batches(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batches(9, 4) == [(0, 4), (4, 9)]
    assert batches(1, 4) == [(0, 1)]
    assert batches(8, 4) == [(0, 4), (4, 8)]


def test_models_have_the_size_they_should() -> None:
    mlp = build_model(ModelSettings(width=32, depth=2), (1, 8, 8), 10)
    assert count_parameters(mlp) == 64 * 32 + 32 + 32 * 32 + 32 + 32 * 10 + 10
    linear = build_model(ModelSettings(depth=0), (30,), 2)
    assert count_parameters(linear) == 62
    cnn = build_model(ModelSettings(name="cnn", width=4, depth=3), (1, 28, 28), 10)
    assert count_parameters(cnn) == (9 * 4 + 4) + (9 * 4 * 8 + 8) + (9 * 8 * 16 + 16) + (16 * 9 * 10 + 10)
    assert cnn(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    tiny = build_model(ModelSettings(name="cnn", width=4, depth=6), (3, 4, 4), 5)
    assert tiny(torch.zeros(2, 3, 4, 4)).shape == (2, 5)


def test_the_catalogue_lists_every_setting_with_its_default() -> None:
    config = job()
    defaults = asdict(JobSettings())
    listed = OmegaConf.to_container(config)
    assert isinstance(listed, dict)
    assert listed | {"dataset": {}} == defaults
    declared = OmegaConf.load(ROOT / "jobs" / "classify.yaml")
    for key in [*declared.limits, *declared.scale.values()]:
        assert OmegaConf.select(config, key, default="missing") != "missing", key


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
        ({"dataset.fraction": 5000}, "5000 samples are asked for"),
        ({"device": "gpu"}, "there is no device 'gpu'"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        classify.train(job(**changes), FakeTrial(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this machine has none"):
        classify.train(job(device="cuda"), FakeTrial(tmp_path))


def test_a_cnn_wants_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Use mlp for tables"):
        classify.train(job("wine", **{"model.name": "cnn"}), FakeTrial(tmp_path))


def test_whole_floats_are_integers() -> None:
    # A sampler that works in floats gives 64.0 for a width.
    assert read_job({"model": {"width": 64.0}}).model.width == 64
