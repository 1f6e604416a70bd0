"""The built-in job: what it learns, what it keeps, when it stops, and what it predicts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from orchestrator.data.dataset import open_dataset
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.store import predict_run
from orchestrator.errors import StopTrial
from orchestrator.schema import MetricConfig, SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.training import supervised
from orchestrator.training.build import build_run, load_fold
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.loop import fit
from orchestrator.training.metrics import CLASSIFIED, REGRESSED
from orchestrator.training.moments import kept_epochs
from orchestrator.training.settings import read_job
from orchestrator.training.training import Training
from trained import CPU, FakeTrial, job, one_thread, same_weights, weights

single = pytest.fixture(autouse=True)(one_thread)

SMALL: dict[str, Any] = {"dataset.fraction": 0.2, "dataset.classes": 3, "epochs": 4, "model.dropout": 0.2}


def test_digits_are_learned(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = supervised.train(job(epochs=20), trial)
    assert result["val/accuracy"] > 0.93
    assert [step for step, _ in trial.reports] == list(range(1, 21))
    assert set(trial.reports[0][1]) == {*CLASSIFIED, "lr"}
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
    assert supervised.train(job("glyphs", **changes), FakeTrial(tmp_path))["val/accuracy"] > 0.85


@pytest.mark.parametrize("dataset", ["wine", "breast_cancer"])
def test_tables_are_learned(dataset: str, tmp_path: Path) -> None:
    assert supervised.train(job(dataset, epochs=25), FakeTrial(tmp_path))["val/accuracy"] > 0.93


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_values_are_learned(loss: str, tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    changes: dict[str, Any] = {"model.depth": 1, "optimizer.lr": 0.01, "dataset.split.folds": 1}
    config = job("diabetes", "regress", **changes, **{"loss.name": loss, "epochs": 12, "batch_size": 32})
    result = supervised.train(config, trial)
    assert set(trial.reports[0][1]) == {*REGRESSED, "lr"}
    best = min(trial.reports, key=lambda each: each[1]["val/loss"])
    assert result["best_epoch"] == best[0]
    # Least squares explains 0.38 here; 77 is the standard deviation of what is predicted.
    assert result["val/r2"] > 0.25
    assert result["val/mae"] < 55


def test_predicted_values_are_in_the_units_of_the_data(tmp_path: Path) -> None:
    config = job("diabetes", "regress", epochs=10, checkpoints=1)
    result = supervised.train(config, FakeTrial(tmp_path))
    trial = FakeTrial(tmp_path / "again")
    supervised.train(config, trial)
    predicted = supervised.predict(config, trial.checkpoint_dir / trial.kept[-1][0], "validation")
    assert predicted.probabilities.shape == (len(predicted.labels), 1)
    errors = np.abs(predicted.probabilities[:, 0] - predicted.labels)
    assert errors.mean() == pytest.approx(result["val/mae"], rel=1e-4)
    candidate = Candidate(
        trial_id="a", setting_id="a", seed=0, step=10, config=config,
        checkpoint=trial.checkpoint_dir / trial.kept[-1][0],
    )  # fmt: skip
    sweep = SweepConfig(name="values", metric=MetricConfig(name="val/mae"))
    score = predict_run(SweepDirectory(tmp_path / "sweep"), sweep, [candidate], supervised.predict)
    assert score == pytest.approx(result["val/mae"], rel=1e-4)


def test_order_is_learned_by_a_recurrent_network(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "dataset.samples": 1200,
        "model.width": 16,
        "model.embedding": 8,
        "optimizer.lr": 0.02,
        "epochs": 5,
    }
    config = job("chains", "sequences", **changes)
    result = supervised.train(config, FakeTrial(tmp_path))
    # Each class has all tokens equally often, so a network that sees no order is at chance.
    assert result["val/accuracy"] > 2 / config.dataset.num_classes


def test_a_seed_repeats_bit_by_bit_and_another_does_not(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((1, 1, 2)):
        trial = FakeTrial(tmp_path / str(number))
        runs.append((supervised.train(job(**SMALL, seed=seed, checkpoints=1), trial), trial.reports))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
    assert same_weights(tmp_path / "0" / "epoch-0004.pt", tmp_path / "1" / "epoch-0004.pt")


def test_checkpoints_are_spread_over_the_second_half(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = supervised.train(job(epochs=12, checkpoints=3), trial)
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
    result = supervised.train(job(**changes), trial)
    assert set(result) >= {"val/accuracy", "val/loss", "train/loss"}
    assert all(math.isnan(value) for value in result.values())
    assert len(trial.reports) < 50
    assert not math.isfinite(trial.reports[-1][1]["train/loss"])


def test_a_stopped_trial_passes_through(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path, stop_after=2)
    with pytest.raises(StopTrial):
        supervised.train(job(**SMALL), trial)
    assert len(trial.reports) == 2


def test_predictions_are_those_of_the_run(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"model.dropout": 0.5, "model.batch_norm": True}
    config = job(epochs=6, checkpoints=1, **changes)
    trial = FakeTrial(tmp_path)
    supervised.train(config, trial)
    predictions = supervised.predict(config, tmp_path / "epoch-0006.pt", "validation")
    right = predictions.probabilities.argmax(axis=1) == predictions.labels
    assert right.mean() == pytest.approx(trial.reports[-1][1]["val/accuracy"])
    assert predictions.probabilities.dtype == np.float32
    assert predictions.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-5)
    again = supervised.predict(config, tmp_path / "epoch-0006.pt", "validation")
    assert np.array_equal(predictions.probabilities, again.probabilities)  # no dropout in evaluation
    tested = supervised.predict(config, tmp_path / "epoch-0006.pt", "test")
    assert not set(tested.ids) & set(predictions.ids)
    assert (tested.probabilities.argmax(axis=1) == tested.labels).mean() > 0.85


def test_a_damaged_or_foreign_checkpoint_says_so(tmp_path: Path) -> None:
    supervised.train(job(**SMALL, checkpoints=1), FakeTrial(tmp_path))
    path = tmp_path / "epoch-0004.pt"
    with pytest.raises(UnreadableCheckpoint, match=r"epoch-0004\.pt"):
        supervised.predict(job(**SMALL | {"model.width": 8}), path, "validation")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UnreadableCheckpoint, match=r"epoch-0004\.pt"):
        supervised.predict(job(**SMALL), path, "validation")


def test_folds_are_trained_side_by_side_and_reported_as_one(tmp_path: Path) -> None:
    config = job("wine", **{"dataset.split.folds": 3, "epochs": 3, "model.dropout": 0.3})
    trial = FakeTrial(tmp_path / "all")
    supervised.train(config, trial)
    data = open_dataset(config.dataset)
    alone = []
    for number in range(3):
        settings = read_job(OmegaConf.to_container(config))  # type: ignore[arg-type]
        fold = load_fold(data, number, CPU)
        training = Training(
            runs=[build_run(settings, fold, CPU)],
            build=lambda _: pytest.fail("nothing is trained again"),
            settings=settings,
            task=data.task,
            trial=FakeTrial(tmp_path / str(number)),
            fingerprint="",
        )
        fit(training)
        alone.append(training.trial.reports)  # type: ignore[attr-defined]
    for epoch in range(3):
        for key in CLASSIFIED:
            mean = sum(reports[epoch][1][key] for reports in alone) / 3
            assert trial.reports[epoch][1][key] == pytest.approx(mean), key
    assert len({reports[0][1]["val/loss"] for reports in alone}) == 3


def test_runs_that_keep_checkpoints_train_the_first_fold_alone(tmp_path: Path) -> None:
    config = job("wine", **{"dataset.split.folds": 3, "epochs": 3, "checkpoints": 1})
    trial = FakeTrial(tmp_path)
    supervised.train(config, trial)
    predicted = supervised.predict(config, tmp_path / trial.kept[0][0], "validation")
    held_out = open_dataset(config.dataset).fold(0).validation.ids
    assert np.array_equal(predicted.ids, held_out)


@pytest.mark.parametrize("then", ["retrain", "go_on"])
def test_stopping_early_and_then_training_on_everything(then: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "dataset.fraction": 0.3,
        "optimizer.lr": 0.01,
        "stopping.patience": 2,
        "stopping.then": then,
    }
    config = job(epochs=30, checkpoints=1, **changes)
    trial = FakeTrial(tmp_path)
    result = supervised.train(config, trial)
    measured = [step for step, metrics in trial.reports if "val/loss" in metrics]
    assert len(measured) < 30
    assert [step for step, _ in trial.reports] == list(range(1, len(trial.reports) + 1))
    # Two epochs without anything better, and the result is of the epoch before them.
    assert result["best_epoch"] == len(measured) - 2
    best = trial.reports[int(result["best_epoch"]) - 1][1]
    assert result["val/accuracy"] == best["val/accuracy"]
    assert len(trial.reports) > len(measured)
    assert trial.kept == [("best.pt", int(result["best_epoch"]))]
    stopped = supervised.predict(config, tmp_path / "best.pt", "validation")
    everything = supervised.predict(config, tmp_path / "all-data.pt", "validation")
    # It has learned what the other has not seen: 359 validation samples beside 323 for training.
    right = [(each.probabilities.argmax(1) == each.labels).mean() for each in (stopped, everything)]
    assert right[1] > right[0] + 0.02
    tests = [supervised.predict(config, tmp_path / name, "test") for name in ("best.pt", "all-data.pt")]
    right = [(each.probabilities.argmax(1) == each.labels).mean() for each in tests]
    assert right[1] > right[0]


def test_a_trial_that_keeps_nothing_ends_where_patience_does(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"stopping.patience": 1, "stopping.then": "retrain", "optimizer.lr": 0.05}
    trial = FakeTrial(tmp_path)
    result = supervised.train(job(**SMALL | {"epochs": 40}, **changes), trial)
    assert len(trial.reports) == result["best_epoch"] + 1
    assert list(tmp_path.iterdir()) == []


def test_another_metric_decides(tmp_path: Path) -> None:
    trial = FakeTrial(tmp_path)
    result = supervised.train(job(select="val/loss", **SMALL | {"epochs": 12, "optimizer.lr": 0.1}), trial)
    assert result["val/loss"] == min(metrics["val/loss"] for _, metrics in trial.reports)


def test_finetuning_begins_with_another_run(tmp_path: Path) -> None:
    before = FakeTrial(tmp_path / "before")
    supervised.train(job(epochs=6, checkpoints=1), before)
    changes: dict[str, Any] = {
        "epochs": 1,
        "checkpoints": 1,
        "finetune.checkpoint": str(before.checkpoint_dir / "epoch-0006.pt"),
        "finetune.freeze": 1,
    }
    after = FakeTrial(tmp_path / "after")
    result = supervised.train(job(**changes, seed=1), after)
    assert result["val/accuracy"] > before.reports[0][1]["val/accuracy"] + 0.05
    old, new = (
        weights(before.checkpoint_dir / "epoch-0006.pt"),
        weights(after.checkpoint_dir / "epoch-0001.pt"),
    )
    assert torch.equal(old["1.weight"], new["1.weight"]) and not torch.equal(old["3.weight"], new["3.weight"])


def test_ldam_gives_probabilities(tmp_path: Path) -> None:
    config = job(epochs=15, checkpoints=1, **{"loss.name": "ldam", "optimizer.lr": 0.01})
    trial = FakeTrial(tmp_path)
    result = supervised.train(config, trial)
    # Cosines alone, without the loss's scale, would leave the loss near log(10).
    assert result["val/accuracy"] > 0.9 and result["val/loss"] < 1
    predicted = supervised.predict(config, tmp_path / trial.kept[0][0], "validation")
    assert np.median(predicted.probabilities.max(axis=1)) > 0.9
