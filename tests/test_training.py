"""The built-in job: what it learns, what it reports, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from orchestrator.checks.setup import as_setup
from orchestrator.config import load_sweep
from orchestrator.data.dataset import Part, open_dataset
from orchestrator.diagnosis import detail
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.store import predict_run
from orchestrator.errors import StopTrial, UserError
from orchestrator.schema import MetricConfig, SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.training import supervised
from orchestrator.training.batching import batch_sizes, joined, samples
from orchestrator.training.build import build_run, load_fold
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.largest import _power_below
from orchestrator.training.loop import fit
from orchestrator.training.metrics import CLASSIFIED, REGRESSED, gain, measure
from orchestrator.training.moments import kept_epochs
from orchestrator.training.precision import choose_dtype
from orchestrator.training.settings import JobSettings, read_job
from orchestrator.training.training import Training
from trained import ROOT, FakeTrial, catalogue, job, same_weights, weights

SMALL: dict[str, Any] = {"dataset.fraction": 0.2, "dataset.classes": 3, "epochs": 4, "model.dropout": 0.2}
CPU = torch.device("cpu")


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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


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
            {"model.target": "test_training.Seen", "model.arguments": {"kind": "later"}},
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
