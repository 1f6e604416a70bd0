"""What final runs leave on disk: moments, a budget, plateaus that are reported, and full disks."""

from __future__ import annotations

import errno
import itertools
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from orchestrator.data.dataset import open_dataset
from orchestrator.diagnosis.finding import NO_PLATEAU, PLATEAU, WAITING, Finding
from orchestrator.errors import UserError
from orchestrator.sweep import kept
from orchestrator.sweep.kept import GB, Kept, thinned
from orchestrator.training import supervised
from orchestrator.training.build import build_run, load_fold
from orchestrator.training.moments import Moments, cycle_ends, moments
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.plateau import judged, watched
from orchestrator.training.room import member_bytes, state_bytes
from orchestrator.training.schedules import build_schedule
from orchestrator.training.settings import JobSettings, OptimizerSettings, ScheduleSettings, read_job
from orchestrator.training.stopping import Best, Plateau
from orchestrator.worker.shortage import out_of_disk
from orchestrator.worker.trial import Trial, always
from trained import FakeTrial, job, same_weights

CPU = torch.device("cpu")
SMALL: dict[str, Any] = {"dataset.fraction": 0.1, "model.width": 4, "model.depth": 1, "batch_size": 32}


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)  # nothing is lost here that a disk could keep


def real_trial(folder: Path, lines: list[dict[str, Any]], disk_gb: float | None = None) -> Trial:
    folder.mkdir(exist_ok=True)
    return Trial(
        id="final-00000", stage="final", params={}, seed=0, checkpoint_dir=folder, send=lines.append,
        goes_on=always, disk_gb=disk_gb,
    )  # fmt: skip


def settings(**changes: Any) -> JobSettings:
    return read_job({"epochs": 60, **changes})


# Moments


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        (["best"], Moments(best=True)),
        (["last"], Moments(last=True)),
        (["every 20", "best"], Moments(frozenset({20, 40, 60}), best=True)),
        (["every 25", "every 30"], Moments(frozenset({25, 30, 50, 60}))),
        (0, Moments()),
        (2, Moments(frozenset({45, 60}), best=True)),
    ],
)
def test_moments_follow_from_the_settings(listed: Any, expected: Moments) -> None:
    assert moments(settings(checkpoints=listed), 10) == expected
    assert expected.any == bool(listed)


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["bets"], "'bets' is no moment.*Did you mean 'best'"),
        (["cycle"], "Did you mean 'cycles'"),
        (["every"], "Write 'every 10'"),
        (["every 0"], "Write 'every 10'"),
        (["every10"], "Write 'every 10'"),
        (["every 61"], "'every 61' never comes in 60 epochs"),
        ([7], "7 is no moment"),
        ([], "an empty list keeps nothing"),
        (["cycles"], "'none' has none"),
    ],
)
def test_other_words_are_refused(listed: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        moments(settings(checkpoints=listed), 10)


@settings_of_hypothesis(max_examples=40)
@given(
    epochs=st.integers(1, 40), updates=st.integers(1, 50), cycle=st.floats(0.1, 20), warmup=st.floats(0, 5)
)
def test_cycles_end_where_the_rate_is_lowest(epochs: int, updates: int, cycle: float, warmup: float) -> None:
    """At the ends that are found the rate of the schedule itself is at its low."""
    schedule = ScheduleSettings(name="cyclical", cycle_epochs=cycle, warmup_epochs=warmup)
    rates = []
    plain = OptimizerSettings(name="sgd", lr=1.0, momentum=0.0)
    optimizer = build_optimizer([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 1.0}], plain)
    built = build_schedule(optimizer, schedule, epochs=epochs, epoch_updates=updates)
    assert built is not None
    for _ in range(epochs * updates):
        optimizer.step()
        built.step()
        rates.append(optimizer.param_groups[0]["lr"])
    first = max(0, round(warmup * updates))
    lows = [place for place, rate in enumerate(rates, 1) if place > first and rate < 0.1 + 1e-6]
    ends = cycle_ends(schedule, epochs, updates)
    assert {max(1, round(place / updates)) for place in lows} <= ends
    for end in ends:
        # The last one may lie up to half an epoch after the run.
        beyond = end == epochs and (end + 0.5) * updates > len(rates)
        assert beyond or any(abs(place - end * updates) <= updates for place in lows)


def test_a_cycle_that_is_begun_anew_counts_from_there() -> None:
    schedule = ScheduleSettings(name="cyclical", cycle_epochs=4, warmup_epochs=1)
    assert cycle_ends(schedule, 14, 10) == {5, 9, 13}
    assert cycle_ends(schedule, 14, 10, switched_at=6) == {10, 14}
    assert cycle_ends(ScheduleSettings(name="cosine"), 14, 10) == {14}


def test_a_run_keeps_its_moments(tmp_path: Path) -> None:
    changes: dict[str, Any] = SMALL | {"schedule.name": "cyclical", "schedule.cycle_epochs": 2, "epochs": 5}
    trial = FakeTrial(tmp_path / "cycles")
    supervised.train(job(**changes, checkpoints=["cycles", "last"]), trial)
    assert trial.kept == [("epoch-0002.pt", 2), ("epoch-0004.pt", 4), ("epoch-0005.pt", 5)]
    trial = FakeTrial(tmp_path / "best")
    result = supervised.train(job(**changes, checkpoints=["best"]), trial)
    assert trial.kept == [("best.pt", result["best_epoch"])]
    # Patience ends this one before any cycle: a run is never without a member.
    early = changes | {"schedule.cycle_epochs": 5, "stopping.patience": 1, "stopping.min_gain": 9.0}
    trial = FakeTrial(tmp_path / "early")
    result = supervised.train(job(**early, checkpoints=["cycles"]), trial)
    assert trial.kept == [("best.pt", result["best_epoch"])] and len(trial.reports) == 2
    trial = FakeTrial(tmp_path / "early last")
    supervised.train(job(**early, checkpoints=["last"]), trial)
    assert trial.kept == [("epoch-0002.pt", 2)]


# The disk


def checkpoint(step: int, size: int = 10, *, best: bool = False) -> Kept:
    return Kept(f"epoch-{step:04d}.pt", step, size, best)


@settings_of_hypothesis(max_examples=40)
@given(count=st.integers(2, 60), room=st.integers(2, 12))
def test_what_stays_is_spread_over_the_steps(count: int, room: int) -> None:
    staying: list[Kept] = []
    for step in range(1, count + 1):
        staying = thinned([*staying, checkpoint(step)], checkpoint(step), room * 10, 1)
        assert staying[-1].step == step and len(staying) == min(step, room)
    steps = [1, *(each.step for each in staying)]
    even = (count - 1) / len(staying)
    # What comes one by one cannot be spread better than within a factor of about two.
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 2 * math.ceil(even)


def test_the_best_and_the_newest_stay_whatever_they_cost() -> None:
    best, newest = checkpoint(3, best=True), checkpoint(9, 50)
    assert thinned([checkpoint(1), best, checkpoint(6), newest], newest, 0, 1) == [best, newest]


def offered(folder: Path, steps: list[int], limit: float) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    trial = real_trial(folder, lines, limit / GB)
    for step in steps:
        path = folder / f"epoch-{step:04d}.pt"
        path.write_bytes(bytes(100))
        trial.keep(path, step)
    return lines


def on_disk(folder: Path) -> list[int]:
    return sorted(int(path.stem[-4:]) for path in folder.glob("epoch-*.pt"))


def test_a_trial_drops_what_its_share_has_no_room_for(tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(bytes(100))
    lines = offered(tmp_path, [2, 4, 6, 8], 420)
    assert on_disk(tmp_path) == [4, 6, 8] or on_disk(tmp_path) == [2, 6, 8]
    gone = ({2, 4, 6, 8} - set(on_disk(tmp_path))).pop()
    assert lines[-1] == {
        "kind": "dropped", "trial": "final-00000", "step": gone, "path": f"epoch-{gone:04d}.pt"
    }  # fmt: skip
    assert [line["step"] for line in lines[:-1]] == [2, 4, 6, 8]
    # Another process goes on from what is written down.
    offered(tmp_path, [10, 12, 14], 420)
    ledger = kept.read(tmp_path)
    assert ledger is not None and [each.step for each in ledger.kept] == on_disk(tmp_path)
    assert len(on_disk(tmp_path)) == 3 and on_disk(tmp_path)[-1] == 14


def test_a_drop_that_was_interrupted_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        # Killed after the ledger was written, before a line was sent or a file deleted.
        patched.setattr("orchestrator.worker.trial.kept.clear", lambda *_: None)
        offered(tmp_path, [1, 2, 3], 250)
    assert on_disk(tmp_path) == [1, 2, 3]
    lines = offered(tmp_path, [3], 250)
    assert [line["kind"] for line in lines] == ["checkpoint", "dropped"]
    assert len(on_disk(tmp_path)) == 2 and lines[1]["step"] not in on_disk(tmp_path)


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"first": 1, "kept": [{"step": 1}], "dropped": []}'])
def test_a_damaged_ledger_is_made_anew_of_the_files_that_are_there(tmp_path: Path, damage: str) -> None:
    offered(tmp_path, [1, 2, 3], 1000)
    (tmp_path / "kept.json").write_text(damage)
    for other in ("state-0002.pt", "best.pt"):
        (tmp_path / other).write_bytes(bytes(10))
    offered(tmp_path, [4], 320)
    assert len(on_disk(tmp_path)) == 3 and on_disk(tmp_path)[-1] == 4
    assert (tmp_path / "state-0002.pt").exists() and (tmp_path / "best.pt").exists(), "they are no members"


def test_the_best_is_not_dropped_until_another_is(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    trial = real_trial(tmp_path, lines, 250 / GB)
    for step in range(1, 7):
        path = tmp_path / f"epoch-{step:04d}.pt"
        path.write_bytes(bytes(100))
        trial.keep(path, step, best=step in (2, 5))
    assert on_disk(tmp_path) == [5, 6]
    assert [line["step"] for line in lines if line["kind"] == "dropped"] == [1, 3, 2, 4]
    (tmp_path / "epoch-0007.pt").write_bytes(bytes(200))
    with pytest.raises(UserError, match=r"final.disk_gb.*at least 1.2 times as large"):
        trial.keep(tmp_path / "epoch-0007.pt", 7)


def test_what_killed_writes_left_is_deleted_when_nobody_writes_it_any_more(tmp_path: Path) -> None:
    old, new = tmp_path / ".last.pt.0.tmp", tmp_path / ".last.pt.1.tmp"
    for path in (old, new):
        path.write_bytes(bytes(10))
    os.utime(old, (0, 0))
    kept.clear_torn(tmp_path)
    assert not old.exists() and new.exists()


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.pt"))


def test_a_run_stays_within_its_share(tmp_path: Path) -> None:
    changes = SMALL | {"epochs": 12, "checkpoints": ["every 1", "best"], "save_seconds": 0}
    free = real_trial(tmp_path / "free", [])
    result = supervised.train(job(**changes), free)
    one, needed = (tmp_path / "free" / "epoch-0001.pt").stat().st_size, sizes(tmp_path / "free")
    share = needed - 8 * one
    lines: list[dict[str, Any]] = []
    assert supervised.train(job(**changes), real_trial(tmp_path / "tight", lines, share / GB)) == result
    assert sizes(tmp_path / "tight") <= share
    steps = on_disk(tmp_path / "tight")
    assert steps[-1] == 12 and 3 <= len(steps) <= 4
    for step in steps:
        assert same_weights(
            tmp_path / "free" / f"epoch-{step:04d}.pt", tmp_path / "tight" / f"epoch-{step:04d}.pt"
        )
    ledger = kept.read(tmp_path / "tight")
    assert ledger is not None
    best = int(result["best_epoch"])
    assert best in steps or ledger.kept[-1].best or any(each.best for each in ledger.kept)


def test_a_share_that_is_too_small_is_refused_before_any_epoch(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    config = job(**SMALL, epochs=2, checkpoints=1)
    with pytest.raises(UserError, match=r"final.disk_gb.*times as large") as refused:
        supervised.train(config, real_trial(tmp_path, lines, 5e-6))
    assert lines == []
    # With what it asks for it runs.
    asked = float(str(refused.value).split("together ")[1].split(" GB")[0])
    supervised.train(config, real_trial(tmp_path, lines, 1.02 * asked))
    assert [line["kind"] for line in lines][:3] == ["report", "report", "checkpoint"]


def test_a_disk_that_is_full_leaves_the_checkpoint_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = SMALL | {"epochs": 4, "checkpoints": ["every 1"], "save_seconds": 0}
    whole = FakeTrial(tmp_path / "whole")
    result = supervised.train(job(**changes), whole)
    trial, write = FakeTrial(tmp_path / "full"), torch.save

    def full(content: Any, path: Path) -> None:
        if "epoch-0003" in Path(path).name:
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(content, path)

    with monkeypatch.context() as patched, pytest.raises(OSError) as caught:
        patched.setattr("torch.save", full)
        supervised.train(job(**changes), trial)
    assert out_of_disk(caught.value), "the task takes it for the disk's fault, and runs it again"
    assert sorted(path.name for path in (tmp_path / "full").iterdir()) == [
        "best.pt", "epoch-0001.pt", "epoch-0002.pt", "last.pt"
    ]  # fmt: skip
    assert supervised.train(job(**changes), trial) == result
    for name, _ in whole.kept:
        assert same_weights(tmp_path / "whole" / name, tmp_path / "full" / name)


# Leave it training


class Listening(FakeTrial):
    def __init__(self, folder: Path, stop_after: int = 0) -> None:
        super().__init__(folder, stop_after, KeyboardInterrupt)
        self.findings: list[Finding] = []

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)


def seen(values: list[float], patience: int) -> tuple[list[Plateau], list[int], Best]:
    """Return the plateaus of a curve of accuracies, the epochs at which they were reported, and the best."""
    best, plateaus, told = Best(), list[Plateau](), []
    for epoch, value in enumerate(values, 1):
        best.see(epoch, {"val/accuracy": value, "val/loss": 1.0}, epoch, "val/accuracy", 0.0)
        if watched(plateaus, best, epoch, patience) is not None:
            told.append(epoch)
    return plateaus, told, best


def test_a_plateau_is_reported_once_and_judged_in_the_end() -> None:
    plateaus, told, best = seen([0.1, 0.5, 0.5, 0.4, 0.5, 0.5, 0.6, 0.6, 0.6, 0.6], 3)
    assert told == [5, 10]
    assert [(each.since, each.until) for each in plateaus] == [(2, 7), (7, None)]
    code, text = judged(plateaus[0], best, "val/accuracy", 10)
    assert code == NO_PLATEAU and text == (
        "what looked like a plateau of val/accuracy from epoch 2 to 7 was none: it got better by 0.1 after"
    )
    code, text = judged(plateaus[1], best, "val/accuracy", 10)
    assert code == PLATEAU and "from epoch 7 to the end, epoch 10" in text
    assert seen([0.1, 0.2, 0.3, 0.4], 1)[1] == []
    assert seen([0.4, 0.4, 0.4], 3)[1] == [], "two epochs are not three"


def test_training_goes_on_past_a_plateau_and_says_so_the_same_when_it_was_stopped(tmp_path: Path) -> None:
    changes = SMALL | {
        "epochs": 12, "checkpoints": 1, "save_seconds": 0, "stopping.patience": 1,
        "stopping.then": "report", "optimizer.lr": 0.03,
    }  # fmt: skip
    whole = Listening(tmp_path / "whole")
    result = supervised.train(job(**changes), whole)
    assert len(whole.reports) == 12
    codes = [one.code for one in whole.findings]
    assert codes.count(WAITING) == codes.count(PLATEAU) + codes.count(NO_PLATEAU) > 0
    assert "training goes on" in whole.findings[0].evidence
    assert whole.findings[0].line("a")["kind"] == "finding"
    # Stopped in the epoch after the first plateau was found: what was found before is not forgotten.
    first = int(whole.findings[0].evidence.split("epoch ")[1].split()[0])
    stopped = Listening(tmp_path / "stopped", stop_after=first + 3)
    with pytest.raises(KeyboardInterrupt):
        supervised.train(job(**changes), stopped)
    again = Listening(tmp_path / "stopped")
    assert supervised.train(job(**changes), again) == result
    ends = [one for one in whole.findings if one.code != WAITING]
    assert [one for one in again.findings if one.code != WAITING] == ends
    assert same_weights(tmp_path / "whole" / "epoch-0012.pt", tmp_path / "stopped" / "epoch-0012.pt")


def test_reporting_needs_patience(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"stopping.then.*stopping.patience=10"):
        supervised.train(job(**SMALL, **{"stopping.then": "report"}), FakeTrial(tmp_path))


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adadelta"])
def test_what_a_run_writes_is_reckoned_before_it(name: str, tmp_path: Path) -> None:
    config = job(**SMALL | {"model.width": 128, "epochs": 1, "optimizer.name": name}, checkpoints=1)
    read = supervised._settings(config)
    run = build_run(read, load_fold(open_dataset(read.dataset), 0, CPU), CPU)
    state, member = state_bytes(run), member_bytes(run)
    supervised.train(config, FakeTrial(tmp_path))
    size = (tmp_path / "epoch-0001.pt").stat().st_size
    assert size <= member <= size + 1024
    size = (tmp_path / "last.pt").stat().st_size
    assert size <= state <= size + 8192
