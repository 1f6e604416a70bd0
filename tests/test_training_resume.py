"""A run that was stopped anywhere and continued has the bits of one that was not."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from orchestrator.training import passes, scaling, supervised
from orchestrator.training.randomness import capture, restore
from trained import FakeTrial, job, same_weights

# Four passes of 27 batches each, of which 16 are fetched together: a state is saved after 16 and after 27.
RUN: dict[str, Any] = {
    "dataset.fraction": 0.1,
    "batch_size": 4,
    "epochs": 4,
    "save_seconds": 0,
    "model.width": 8,
    "checkpoints": 2,
}
EVERYTHING: dict[str, Any] = {
    "model.dropout": 0.3,
    "model.batch_norm": True,
    "balance": "over",
    "augmentation.noise": 0.1,
    "augmentation.shift": 1,
    "augmentation.mixup": 0.2,
    "optimizer.lr": 0.01,
    "optimizer.clip": 1.0,
}
CASES: dict[str, dict[str, Any]] = {
    "adam, warm-up": EVERYTHING | {"schedule.name": "cosine", "schedule.warmup_epochs": 1.5},
    "momentum grows": {"optimizer.name": "sgd", "optimizer.momentum_start": 0.5, "schedule.name": "step"},
    "one cycle": {"schedule.name": "one_cycle", "balance": "batch"},
    "switched": EVERYTHING
    | {"optimizer.switch.to": "sgd", "optimizer.switch.at": 2, "schedule.name": "cyclical"},
    "plateau": {"schedule.name": "plateau", "schedule.plateau_epochs": 1, "optimizer.lr": 0.3},
    "retrain": EVERYTHING | {"stopping.patience": 1, "stopping.then": "retrain", "optimizer.lr": 0.1},
    "go on": {"stopping.patience": 1, "stopping.then": "go_on", "optimizer.lr": 0.1},
    "folds": EVERYTHING | {"dataset.split.folds": 3, "checkpoints": 0},
}


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr("os.fsync", lambda _: None)  # nothing is lost here that a disk could keep


def train_until(config: DictConfig, trial: FakeTrial, update: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and be killed in an update."""
    count = 0
    step = passes._step

    def counted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > update:
            raise Killed
        step(*arguments)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(passes, "_step", counted)
        supervised.train(config, trial)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[FakeTrial, dict[str, float]]]:
    """The runs that nothing stops."""
    torch.set_num_threads(1)
    runs = {}
    for name, changes in CASES.items():
        trial = FakeTrial(tmp_path_factory.mktemp("whole"))
        runs[name] = trial, supervised.train(job(**RUN | changes), trial)
    return runs


@pytest.mark.parametrize(
    ("case", "updates"),
    [
        # In which updates it dies, each time counted from where it was taken up.
        ("adam, warm-up", (19, 30)),
        ("momentum grows", (5, 61)),
        ("one cycle", (44, 1)),
        ("switched", (20, 57)),
        ("plateau", (90, 17)),
        ("retrain", (60, 50, 20)),
        ("go on", (20, 60, 33)),
        ("folds", (30, 90)),
    ],
)
def test_a_continued_run_has_the_bits_of_one_that_was_not_stopped(
    case: str,
    updates: tuple[int, ...],
    wholes: dict[str, tuple[FakeTrial, dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = job(**RUN | CASES[case])
    whole, expected = wholes[case]
    reports: dict[int, dict[str, float]] = {}
    kept: set[tuple[str, int]] = set()
    for place, update in enumerate((*updates, None)):
        # A new process would not have the old one's random states either.
        torch.manual_seed(place)
        trial = FakeTrial(tmp_path / "parts")
        if update is None:
            assert supervised.train(config, trial) == expected
        else:
            train_until(config, trial, update, monkeypatch)
        # A step that is reported again has the same numbers as before.
        for step, metrics in trial.reports:
            assert reports.setdefault(step, metrics) == metrics
        kept.update(trial.kept)
    assert list(reports.items()) == whole.reports
    assert kept == set(whole.kept)
    for path in whole.checkpoint_dir.glob("*.pt"):
        if path.name not in ("last.pt", "best-state.pt"):
            assert same_weights(path, tmp_path / "parts" / path.name), path.name


def test_no_more_than_sixteen_batches_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(**RUN)
    train_until(config, FakeTrial(tmp_path), 27 + 20, monkeypatch)
    again = 0
    step = passes._step

    def counted(*arguments: Any) -> None:
        nonlocal again
        again += 1
        step(*arguments)

    monkeypatch.setattr(passes, "_step", counted)
    trial = FakeTrial(tmp_path)
    supervised.train(config, trial)
    assert again == 4 * 27 - (27 + 16)
    assert trial.reports[0][0] == 2


def test_a_run_that_dies_in_a_report_reports_again(tmp_path: Path) -> None:
    config = job(**RUN)
    whole = FakeTrial(tmp_path / "whole")
    expected = supervised.train(config, whole)
    stopped = FakeTrial(tmp_path / "parts", 3, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        supervised.train(config, stopped)
    continued = FakeTrial(tmp_path / "parts")
    assert supervised.train(config, continued) == expected
    assert stopped.reports[:-1] + continued.reports == whole.reports


@pytest.mark.parametrize("case", ["adam, warm-up", "retrain"])
def test_a_finished_run_returns_its_result_again(case: str, tmp_path: Path) -> None:
    config = job(**RUN | CASES[case] | {"save_seconds": 1000})
    expected = supervised.train(config, FakeTrial(tmp_path))
    again = FakeTrial(tmp_path)
    assert supervised.train(config, again) == expected
    assert again.reports == []


@pytest.mark.parametrize("damage", ["cut", "other settings"])
def test_a_state_that_does_not_fit_is_passed_over(damage: str, tmp_path: Path) -> None:
    config = job(**RUN)
    expected = supervised.train(config, FakeTrial(tmp_path))
    last = tmp_path / "last.pt"
    if damage == "cut":
        last.write_bytes(last.read_bytes()[:1000])
    else:
        supervised.train(job(**RUN | {"epochs": 2}), FakeTrial(tmp_path))
    trial = FakeTrial(tmp_path)
    assert supervised.train(config, trial) == expected
    assert len(trial.reports) == 4


def test_the_largest_batch_stays_what_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = job(epochs=3, batch_size="largest", save_seconds=0)
    expected = supervised.train(config, FakeTrial(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        supervised.train(config, FakeTrial(tmp_path / "parts", 2, KeyboardInterrupt))
    # The next node has a smaller memory.
    monkeypatch.setattr(scaling, "largest_batch", lambda _: 1)
    assert supervised.train(config, FakeTrial(tmp_path / "parts")) == expected


def test_random_states_come_back() -> None:
    device = torch.device("cpu")
    np.random.standard_normal()  # NumPy keeps the second of a pair for the next call

    def drawn() -> list[float]:
        return [torch.rand(()).item(), np.random.standard_normal(), np.random.rand(), random.gauss()]

    states = capture(device)
    first = drawn()
    drawn()
    restore(states, device)
    assert drawn() == first
