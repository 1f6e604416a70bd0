"""Several processes train what one trains: the same weights, whichever of them stops, fails or is slow."""

from __future__ import annotations

import math
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.diagnosis.watch import Watch
from orchestrator.errors import UserError
from orchestrator.training import meeting, passes, supervised
from orchestrator.training.batching import shares
from orchestrator.training.distributed import Peers, bounds
from orchestrator.training.meeting import met
from trained import FakeTrial, job, same_weights, weights

# One server imports all that is heavy; each process is then a fork of it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["orchestrator.training.supervised", "orchestrator.diagnosis.watch"])

STEP = passes._step

# Four batches of 26 samples and one of 4.
RUN: dict[str, Any] = {
    "dataset.fraction": 0.1,
    "batch_size": 26,
    "scaling": "none",
    "epochs": 3,
    "model.width": 8,
    "checkpoints": ["last"],
    "device": "cpu",
}
SGD = {"optimizer.name": "sgd", "optimizer.lr": 0.1}
CNN = {"model.name": "cnn", "model.width": 4, "model.batch_norm": True}


@dataclass(frozen=True, kw_only=True)
class Member:
    """What one process of a run is told.

    Attributes:
        config: the job's.
        folder: for checkpoints.
        count: of the processes; 0: end.
        port: where they meet.
        stop_after: process 0 is told to stop in this epoch's report.
        killed_at: all of them end in this update.
        fails: the process that fails in its third update.
        watched: process 0 watches.
    """

    config: dict[str, Any] = field(default_factory=dict)
    folder: Path = Path()
    count: int = 0
    port: int = 0
    stop_after: int = 0
    killed_at: int = 0
    fails: int = -1
    watched: bool = False


@dataclass(frozen=True)
class Ended:
    """What a process came to."""

    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    reports: int = 0
    findings: int = 0


class Killed(BaseException):
    """The process ends here."""


class Watched(FakeTrial):
    """A trial that lets the training be watched."""

    findings: ClassVar[list[object]] = []

    def watch(self, model: Any, optimizer: Any) -> Watch:
        self.findings.clear()
        return Watch(model, optimizer, send=self.findings.append)


def _train(member: Member, rank: int) -> Ended:
    """Train as one process."""
    kind = Watched if member.watched and rank == 0 else FakeTrial
    trial = kind(member.folder, member.stop_after if rank == 0 else 0)
    count = 0

    def counted(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count == member.killed_at:
            raise Killed
        if rank == member.fails and count == 3:
            raise ValueError("the disk of this node is on fire")
        STEP(*arguments)

    passes._step = counted  # type: ignore[assignment]
    try:
        metrics = supervised.train(member.config, trial)
    except BaseException as error:
        return Ended(error=f"{type(error).__name__}: {error}", reports=len(trial.reports))
    return Ended(metrics, reports=len(trial.reports), findings=len(Watched.findings))


def _work(rank: int, orders: Connection) -> None:
    """Train what is ordered, one run after another; the clock of each process is its own."""
    torch.set_num_threads(1)
    os.fsync = lambda fd: None  # nothing is lost here that a disk could keep
    monotonic = time.monotonic
    time.monotonic = lambda: monotonic() * (1 + rank)
    while (member := orders.recv()).count:
        os.environ |= {
            "RANK": str(rank),
            "WORLD_SIZE": str(member.count),
            "LOCAL_RANK": str(rank),
            "LOCAL_WORLD_SIZE": str(member.count),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(member.port),
        }
        orders.send(_train(member, rank))


Together = Callable[..., list[Ended]]


@pytest.fixture(scope="module")
def together() -> Iterator[Together]:
    """Train in several processes; give what each came to."""
    ends = [_CONTEXT.Pipe() for _ in range(4)]
    crew = [_CONTEXT.Process(target=_work, args=(rank, end)) for rank, (_, end) in enumerate(ends)]
    for each in crew:
        each.start()

    def train(count: int, folder: Path, changes: dict[str, Any], **more: Any) -> list[Ended]:
        folder.mkdir(exist_ok=True)
        member = Member(config=whole(changes), folder=folder, count=count, port=_free_port(), **more)
        for mine, _ in ends[:count]:
            mine.send(member)
        for mine, _ in ends[:count]:
            assert mine.poll(60), "a process still waits for the others"
        return [mine.recv() for mine, _ in ends[:count]]

    yield train
    for (mine, _), each in zip(ends, crew, strict=True):
        mine.send(Member())
        each.join(5)
        each.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def whole(changes: dict[str, Any]) -> dict[str, Any]:
    """Return a job's config as plain values; `job` and `data` name the catalogue's."""
    rest = {key: value for key, value in changes.items() if key not in ("job", "data")}
    config = job(changes.get("data", "digits"), changes.get("job", "classify"), **RUN | rest)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def alone(folder: Path, changes: dict[str, Any]) -> FakeTrial:
    torch.set_num_threads(1)
    trial = FakeTrial(folder)
    supervised.train(whole(changes), trial)
    return trial


def assert_same(one: Path, other: Path) -> None:
    """Compare two models: float32 sums in another order differ in the last bits, and more after each one."""
    expected, found = weights(one), weights(other)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=5e-5, rtol=1e-4)


CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "momentum, weights, clip": (
        2,
        SGD | {"batch_size": 25, "optimizer.clip": 1.0, "loss.class_weights": "inverse", "balance": "over"},
    ),
    # The last batch has two samples for four processes.
    "cnn, batch norm": (4, CNN | SGD | {"batch_size": 53, "schedule.name": "one_cycle"}),
    "adam, switched, unfrozen": (
        2,
        {
            "optimizer.switch.to": "sgd",
            "optimizer.switch.at": 2,
            "finetune.freeze": 2,
            "finetune.unfreeze_epochs": 1,
        },
    ),
    "values": (4, {"job": "regress", "data": "diabetes", "batch_size": 27, "schedule.name": "plateau"}),
}


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_what_one_does(case: str, tmp_path: Path, together: Together) -> None:
    count, changes = CASES[case]
    one = alone(tmp_path / "one", changes)
    ended = together(count, tmp_path / "several", changes)
    assert not any(each.error for each in ended)
    assert all(each.metrics == ended[0].metrics for each in ended)
    assert [each.reports for each in ended] == [3] + [0] * (count - 1)
    assert_same(tmp_path / "one" / "epoch-0003.pt", tmp_path / "several" / "epoch-0003.pt")
    metrics = ended[0].metrics
    _, expected = one.reports[int(metrics.pop("best_epoch")) - 1]
    assert metrics == pytest.approx({name: expected[name] for name in metrics}, rel=1e-3)


def test_the_linear_rule_is_a_larger_batch_with_a_larger_rate(tmp_path: Path, together: Together) -> None:
    alone(tmp_path / "one", SGD | {"optimizer.lr": 0.2})
    together(2, tmp_path / "two", SGD | {"batch_size": 13, "scaling": "linear"})
    assert_same(tmp_path / "one" / "epoch-0003.pt", tmp_path / "two" / "epoch-0003.pt")


# Nineteen batches, of which sixteen are fetched together: a run killed in the eighteenth goes on after those.
LONG = SGD | {"dataset.fraction": 0.07, "batch_size": 4, "epochs": 2, "save_seconds": 0}


def test_a_run_that_was_killed_goes_on_with_the_same_bits(tmp_path: Path, together: Together) -> None:
    changes = LONG | {"model.dropout": 0.3, "augmentation.noise": 0.1, "checkpoints": ["every 1"]}
    together(4, tmp_path / "whole", changes)
    killed = together(4, tmp_path / "parts", changes, killed_at=18)
    assert {each.error.partition(":")[0] for each in killed} <= {"Killed", "PeerLost"}
    assert sorted(each.name for each in (tmp_path / "parts").iterdir()) == ["last.pt"]
    ended = together(4, tmp_path / "parts", changes)
    assert not any(each.error for each in ended)
    assert same_weights(tmp_path / "whole" / "epoch-0001.pt", tmp_path / "parts" / "epoch-0001.pt")
    assert same_weights(tmp_path / "whole" / "epoch-0002.pt", tmp_path / "parts" / "epoch-0002.pt")


@pytest.mark.parametrize(("before", "after"), [(4, 1), (1, 2)])
def test_a_run_goes_on_with_another_number_of_processes(
    before: int, after: int, tmp_path: Path, together: Together
) -> None:
    alone(tmp_path / "whole", LONG | {"batch_size": 4 * before, "optimizer.lr": 0.1 * before})
    # Of four processes a pass has five batches, and what was fetched together goes into the next one.
    killed = together(before, tmp_path / "parts", LONG | {"scaling": "linear"}, killed_at=22 - 4 * before)
    assert killed[0].error.startswith(("Killed", "PeerLost"))
    ended = together(after, tmp_path / "parts", LONG | {"scaling": "linear"})
    assert not any(each.error for each in ended)
    assert ended[0].reports == (1 if before == 4 else 2)
    assert_same(tmp_path / "whole" / "epoch-0002.pt", tmp_path / "parts" / "epoch-0002.pt")


def test_all_stop_where_process_0_is_told_to(tmp_path: Path, together: Together) -> None:
    ended = together(2, tmp_path, {}, stop_after=2)
    assert [each.error.partition(":")[0] for each in ended] == ["StopTrial"] * 2
    assert ended[0].reports == 2


@pytest.mark.parametrize("fails", [0, 1])
def test_where_one_fails_the_others_end_and_say_why(fails: int, tmp_path: Path, together: Together) -> None:
    ended = together(2, tmp_path, {}, fails=fails)
    assert ended[fails].error == "ValueError: the disk of this node is on fire"
    assert ended[1 - fails].error.startswith("PeerLost: process ")
    if fails == 1:
        assert "process 1 of 2 failed: ValueError: the disk of this node is on fire" in ended[0].error


def test_a_look_at_what_diverged_waits_for_no_other(tmp_path: Path, together: Together) -> None:
    changes = CNN | SGD | {"optimizer.lr": 1e30, "batch_size": 53}
    ended = together(2, tmp_path, changes, watched=True)
    assert not any(each.error for each in ended)
    assert all(math.isnan(each.metrics["val/loss"]) for each in ended)
    assert ended[0].findings


@pytest.mark.parametrize("then", ["retrain", "go_on"])
def test_what_follows_early_stopping_is_done_together(then: str, tmp_path: Path, together: Together) -> None:
    changes = SGD | {"stopping.patience": 1, "stopping.then": then, "optimizer.lr": 0.5, "epochs": 4}
    alone(tmp_path / "one", changes)
    ended = together(2, tmp_path / "two", changes)
    assert not any(each.error for each in ended)
    assert_same(tmp_path / "one" / "all-data.pt", tmp_path / "two" / "all-data.pt")


def test_the_largest_batch_is_what_process_0_measured(tmp_path: Path, together: Together) -> None:
    # 108 samples make eight updates of 13: eight fit each process.
    ended = together(2, tmp_path, {"batch_size": "largest", "scaling": "linear", "epochs": 1})
    assert [each.metrics["batch_size"] for each in ended] == [13.0] * 2


def test_one_who_waits_in_vain_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "MEETING_SECONDS", 0.3)
    port = str(_free_port())
    there = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for rank in ("0", "1"):
        said = rf"process {rank} of 2 waited in vain .* 127.0.0.1:{port}"
        with pytest.raises(UserError, match=said), met("cpu", there | {"RANK": rank}):
            pass


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE: is 'two', not a number"),
        ({"WORLD_SIZE": "2"}, "RANK: is None"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK: is 2, and there are 2 processes"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "1"}, "MASTER_ADDR: is not set"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "x"}, "MASTER_PORT: is None"),
    ],
)
def test_an_environment_that_says_half_is_refused(environment: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said), met("cpu", environment):
        pass


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"scaling": "lineer"}, "linear"), ({"batch_size": 1, "scaling": "none"}, "fewer than the 2 processes")],
)
def test_wrong_settings_are_refused_by_all(
    changes: dict[str, Any], said: str, tmp_path: Path, together: Together
) -> None:
    ended = together(2, tmp_path, changes)
    assert said in ended[0].error


@given(st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(1, 6))
def test_the_parts_of_a_batch_are_the_batch(sizes: list[int], count: int) -> None:
    batches = list(torch.split(torch.randperm(sum(sizes)), sizes))
    parts = [shares(batches, Peers(rank, count)) for rank in range(count)]
    for number, batch in enumerate(batches):
        rows = torch.cat([part.rows[number][: part.seen[number]] for part in parts])
        assert torch.equal(rows, batch)
        assert sum(part.factors[number] for part in parts) == pytest.approx(count)
        assert all(len(part.rows[number]) >= 1 for part in parts)
        assert parts[0].seen[number] >= 1
    assert bounds(sum(sizes), count)[-1] == sum(sizes)
