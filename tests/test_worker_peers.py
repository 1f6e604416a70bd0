"""Several processes for one trial: how they meet, whose failure is recorded, that none outlives another."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_task import MadeTask, made_task

from commands import wait_for
from orchestrator.schema import SweepConfig
from orchestrator.sweep.records import COMPLETED, FAILED, MEMORY
from orchestrator.worker import meeting, peers
from orchestrator.worker.ending import Ending, silent
from orchestrator.worker.gpu import gpu_memory_gb, memory_taken
from orchestrator.worker.meeting import PeersLost, gather, hear, join, reserved_port, tell
from orchestrator.worker.peers import Ended, Peers, first_to_fail, gathered
from orchestrator.worker.place import Place, own_place
from orchestrator.worker.sharing import fitting, runs_at_once

WELL = Ending(COMPLETED, {"score": 1.0})
PAPER = Ending(FAILED, error="ValueError: out of paper")
CLOSED = Ending(FAILED, error="RuntimeError: [transport.cc:537] Connection closed by peer [127.0.0.1]:5")


def failed(rank: int, ending: Ending | None, when: float, *, stopped: bool = False) -> Ended:
    return Ended(rank=rank, ending=ending, time=when, stopped=stopped)


def test_what_speaks_of_anothers_end_is_not_the_cause() -> None:
    ends = [failed(0, CLOSED, 1.0), failed(1, WELL, 0.0), failed(2, PAPER, 1.5), failed(3, CLOSED, 0.9)]
    assert first_to_fail(ends) == ends[2]
    assert first_to_fail([ends[0], ends[1], ends[3]]) == ends[3], "the first, when there is no better one"
    assert first_to_fail([ends[1], failed(2, PAPER, 0.0, stopped=True)]) is None
    # What a preemption does to the others is seen before it is noticed itself.
    outside = failed(3, None, 2.0)
    assert first_to_fail([failed(0, PAPER, 1.5), outside]) == outside
    starved = failed(1, Ending(FAILED, error="CUDA out of memory; broken pipe", cause=MEMORY), 3.0)
    assert first_to_fail([ends[0], starved]) == starved


ENDS = st.lists(
    st.builds(
        failed, st.integers(0, 5), st.sampled_from([WELL, PAPER, CLOSED, None]), st.floats(0, 10),
        stopped=st.booleans(),
    ),
    unique_by=lambda end: end.rank,
)  # fmt: skip


@given(ENDS.flatmap(lambda ends: st.tuples(st.just(ends), st.permutations(ends))))
def test_the_cause_does_not_depend_on_who_is_heard_first(orders: tuple[list[Ended], list[Ended]]) -> None:
    ends, shuffled = orders
    first = first_to_fail(ends)
    assert first == first_to_fail(shuffled)
    assert (first is None) == all(end.stopped or end.ending == WELL for end in ends)


# --- Meeting ---


def place(rank: int, count: int = 3) -> Place:
    return Place(rank=rank, count=count, local_rank=rank, local_count=count, leg="7-0")


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def test_all_processes_meet_by_a_file_that_is_gone_afterwards(tmp_path: Path) -> None:
    file = tmp_path / "meetings" / "1.json"
    file.parent.mkdir()
    # What a leader that was killed left behind, at whose port another program may listen by now.
    with socket.create_server(("127.0.0.1", 0)) as other:
        stale = {"machine": meeting._machine(), "addresses": ["127.0.0.1"], "port": 1, "key": "old"}
        file.write_text(json.dumps(stale))
        followers = [in_thread(partial(join, file, place(rank), lambda: False)) for rank in (1, 2)]
        stale["port"] = other.getsockname()[1]
        file.write_text("{")
        met = gather(file, place(0), 30.0)
    assert sorted(met) == [1, 2] and not file.exists()
    for rank, (thread, found) in enumerate(followers, 1):
        thread.join(10)
        (leader,) = found
        assert isinstance(leader, meeting.Leader) and leader.address == "127.0.0.1"
        tell(met[rank], {"to": rank})
        assert hear(leader.connection) == {"to": rank}
        met[rank].close()
        assert hear(leader.connection) is None, "the end of the other is heard at once"
        leader.connection.close()


def test_no_stranger_is_let_in(tmp_path: Path) -> None:
    file = tmp_path / "1.json"
    leader, found = in_thread(lambda: gather(file, place(0, 2), 30.0))
    wait_for(file.exists)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    where = json.loads(file.read_text())
    with contextlib.suppress(OSError):
        # A program that looks for open ports, and a process of another sweep.
        socket.create_connection(("127.0.0.1", where["port"])).close()
    with pytest.raises(ValueError, match="another program"):
        meeting._introduce("127.0.0.1", where["port"], "a wrong key", 1)
    assert leader.is_alive() and not found
    joined = join(file, place(1, 2), lambda: False)
    leader.join(10)
    assert joined is not None and list(found[0]) == [1]  # type: ignore[call-overload]


def test_nobody_waits_for_ever(tmp_path: Path) -> None:
    with pytest.raises(PeersLost, match="came 1 of 3 processes; missing: rank 1, 2"):
        gather(tmp_path / "1.json", place(0), 0.3)
    assert not list(tmp_path.iterdir())
    with pytest.raises(PeersLost, match="rank 2 found no leader"):
        join(tmp_path / "1.json", place(2), lambda: False, 0.3)
    assert join(tmp_path / "1.json", place(2), lambda: True) is None, "the sweep was cancelled meanwhile"


def test_a_port_is_kept_for_those_who_meet_there() -> None:
    with reserved_port() as port, socket.socket() as store, socket.socket() as stranger:
        with pytest.raises(OSError):
            stranger.bind(("", port))
        store.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        store.bind(("", port))
        store.listen()


def test_a_place_is_as_submitit_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")
    assert own_place() == Place() and Place().environment == {}, "an allocation of somebody else's"
    names = {"NTASKS": 6, "JOB_NUM_NODES": 2, "PROCID": 4, "LOCALID": 1, "RESTART_COUNT": 2, "JOB_ID": 77}
    for name, value in names.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    assert own_place() == Place(rank=4, count=6, local_rank=1, local_count=3, leg="77-2")
    assert own_place().environment == {
        "RANK": "4", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "3",
    }  # fmt: skip


# --- The leader, with followers that the test plays ---


@contextlib.contextmanager
def led(count: int = 3) -> Iterator[tuple[Peers, list[Connection]]]:
    pipes = [Pipe() for _ in range(count - 1)]
    ours, theirs = [pipe[0] for pipe in pipes], [pipe[1] for pipe in pipes]
    with contextlib.closing(Peers(place(0, count), dict(enumerate(ours, 1)))) as them:
        yield them, theirs
    for connection in theirs:
        connection.close()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CASCADE_SECONDS", "PARTING_SECONDS", "STOPPING_SECONDS"):
        monkeypatch.setattr(peers, name, 0.3)


def test_a_trial_ends_when_all_ranks_have(capsys: pytest.CaptureFixture[str]) -> None:
    with led() as (them, (one, two)):
        for number in (1, 2):
            environment = them.begin("final-00000")
            orders = [hear(one), hear(two)]
            assert orders[0] == orders[1] == {
                "do": "run", "number": number, "trial": "final-00000",
                "port": int(environment["MASTER_PORT"]),
            }  # fmt: skip
            tell(one, failed(1, Ending(COMPLETED), 1.0).message(number))
            # What is still on its way of a trial before counts for nothing.
            tell(two, failed(2, PAPER, 1.0).message(number - 1))
            tell(two, failed(2, Ending(COMPLETED), 1.0).message(number))
            assert them.settle(failed(0, WELL, 2.0)) == WELL
        them.close()
        assert hear(one) == {"do": "end"} == hear(two)
    assert capsys.readouterr().err == ""


def test_a_rank_that_stays_behind_is_ended_and_the_result_counts(capsys: pytest.CaptureFixture[str]) -> None:
    with led(2) as (them, (one,)):
        them.begin("t")
        hear(one)

        def obey() -> None:
            hear(one)
            tell(one, failed(1, None, 1.0, stopped=True).message(1))

        follower, _ = in_thread(obey)
        assert them.settle(failed(0, WELL, 2.0)) == WELL
        follower.join()
    assert "rank 1 was ended" in capsys.readouterr().err


def test_another_ranks_failure_is_the_trials_and_has_its_name() -> None:
    with led() as (them, (one, two)):
        them.begin("t")
        tell(two, failed(2, PAPER, 1.0).message(1))
        them.take(them.connections[1])
        assert them.deadline, "rank 0 does not wait for ever for one that is gone"
        tell(one, failed(1, CLOSED, 1.1).message(1))
        ending = them.settle(failed(0, None, 9.0, stopped=True))
    assert ending == replace(PAPER, error="in the process of rank 2 of 3:\nValueError: out of paper")


def test_a_rank_that_waits_for_one_that_failed_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "STOPPING_SECONDS", 30.0)
    with led() as (them, (one, two)):
        them.begin("t")
        hear(one)
        tell(two, failed(2, PAPER, 1.0).message(1))
        them.take(them.connections[1])

        def obey() -> None:
            assert (hear(one) or {})["do"] == "stop"
            tell(one, failed(1, None, 1.0, stopped=True).message(1))

        follower, _ = in_thread(obey)
        ending = them.settle(failed(0, None, 9.0, stopped=True))
        follower.join()
        assert ending is not None and ending.error.endswith("out of paper")
        them.begin("next")


def test_a_process_that_is_gone_is_the_clusters_loss() -> None:
    with led() as (them, (one, two)):
        them.begin("t")
        two.close()
        tell(one, failed(1, PAPER, 1.1).message(1))
        assert them.settle(failed(0, CLOSED, 1.2)) is None
        with pytest.raises(PeersLost, match="rank 2 is gone"):
            them.begin("next")


def test_a_rank_that_does_not_even_end_is_given_up() -> None:
    with led(2) as (them, (one,)):
        them.begin("t")
        assert them.settle(failed(0, silent(1.0, 3, ""), 1.0)) is None
        assert [hear(one), hear(one)][1] == {"do": "stop", "number": 1, "stacks": True}


# --- Whole tasks, with a process for each rank ---

TRAIN = """
import os, signal, time

AT_IMPORT = os.environ.get("LOCAL_RANK", "nobody")

def train(config, trial):
    rank = int(os.environ["RANK"])
    there = [os.environ[name] for name in ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")]
    with open(trial.checkpoint_dir / "log", "a") as log:
        log.write(f"{rank} {AT_IMPORT} {' '.join(there)} {os.environ['MASTER_PORT']} {os.getpid()}\\n")
    trial.report(1, {"score": 0.1 * rank})
    trial.keep(trial.checkpoint_dir / "log", 1)
    return globals()[config.kind](rank) or ({"score": 0.5} if rank == 0 else None)

def good(rank):
    pass

def raises(rank):
    if rank == 1:
        raise ValueError("out of paper")
    time.sleep(600)

def crashes(rank):
    if rank == 1:
        os.kill(os.getpid(), signal.SIGSEGV)
    raise RuntimeError("Connection closed by peer")

def sleeps(rank):
    time.sleep(600)
"""

PROCESS = """
import sys
from orchestrator.worker import peers
from orchestrator.worker.task import Task
peers.CASCADE_SECONDS = 0.5
print(Task(sys.argv[1], "stage", "only", 1, 0)())
"""


def begin(task: MadeTask, count: int = 2) -> list[subprocess.Popen[str]]:
    """Start the processes of a task, as submitit's controller does."""
    started = []
    for rank in range(count):
        own = {"NTASKS": count, "JOB_NUM_NODES": 1, "GLOBALID": rank, "LOCALID": rank, "JOB_ID": 5}
        environment = {**os.environ, "SUBMITIT_EXECUTOR": "local", "PYTHONPATH": str(Path.cwd())}
        environment |= {f"SUBMITIT_LOCAL_{name}": str(value) for name, value in own.items()}
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(task.directory.path)], env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            )
        )  # fmt: skip
    return started


def finish(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    return [process.communicate(timeout=60) for process in processes]


def pids(task: MadeTask, trial: str) -> list[int]:
    return [int(line.split()[-1]) for line in task.log(trial).splitlines()]


def test_a_task_of_two_processes_trains_each_trial_in_both(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["good", "raises", "crashes"], {"cpus_per_task": 0})
    shown = finish(begin(task))
    outcomes, (file,) = task.outcomes(), task.files()
    assert [out.strip() for out, _ in shown] == ["{'completed': 1, 'failed': 2}", "{}"], outcomes
    assert file.header["processes"] == 2
    lines = sorted(line.split()[:6] for line in task.log("good").splitlines())
    assert lines == [["0", "0", "2", "0", "2", "127.0.0.1"], ["1", "1", "2", "1", "2", "127.0.0.1"]]
    ports = [line.split()[6] for line in task.log("good").splitlines()]
    assert ports[0] == ports[1]
    # Rank 0 alone writes to the records.
    for kind in ("report", "checkpoint", "start", "outcome"):
        assert sum(line["kind"] == kind for line in file.lines) == 3
    assert outcomes["good"]["metrics"] == {"score": 0.5}
    assert outcomes["raises"]["error"].startswith("in the process of rank 1 of 2:\n")
    assert outcomes["raises"]["error"].endswith("ValueError: out of paper") and "my_train.py" in str(outcomes)
    assert outcomes["crashes"]["error"].startswith("in the process of rank 1 of 2:\n")
    assert "killed by SIGSEGV" in outcomes["crashes"]["error"]
    assert "out of paper" in shown[1][1], "it is in the log of its own process too"
    assert not list((task.folder.path / "meetings").iterdir())


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_process_of_a_task_is_gone_all_are(tmp_path: Path, victim: int) -> None:
    task = made_task(tmp_path, TRAIN, ["sleeps"])
    processes = begin(task)
    wait_for(lambda: len(pids(task, "sleeps")) == 2, what="both ranks")
    processes[victim].kill()
    shown = finish(processes)
    wait_for(lambda: not any(map(psutil.pid_exists, pids(task, "sleeps"))), what="the end of both children")
    assert task.outcomes() == {}, "the cluster's loss, not the trial's failure"
    if victim:
        assert "the process of rank 1 is gone" in shown[0][1] and "{'interrupted': 1}" in shown[0][0]


def test_a_preempted_task_ends_in_all_processes(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["sleeps"])
    processes = begin(task)
    wait_for(lambda: len(pids(task, "sleeps")) == 2, what="both ranks")
    for process in processes:
        process.send_signal(signal.SIGTERM)
    finish(processes)
    assert [process.returncode for process in processes] == [143, 143]
    wait_for(lambda: not any(map(psutil.pid_exists, pids(task, "sleeps"))), what="their end")
    assert task.outcomes() == {}, "its trial is begun again"
    assert "interrupted" in [line["kind"] for line in task.files()[0].lines]


def test_followers_of_a_task_without_work_end_with_it(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["good"])
    task.leg(0, [{"kind": "outcome", "trial": "good", "state": "completed", "metrics": {"score": 1}}])
    processes = begin(task)
    assert [out.strip() for out, _ in finish(processes)] == ["{}", "{}"]
    assert [process.returncode for process in processes] == [0, 0]


def test_alone_nothing_is_gathered(tmp_path: Path) -> None:
    with gathered(tmp_path / "m" / "1.json", Place()) as them:
        assert them is None
    assert not list(tmp_path.iterdir())


# --- Several runs on one GPU ---


@pytest.mark.parametrize(
    ("taken", "whole", "cores", "expected"),
    [
        ([], 80.0, 8, 1),
        ([{"gpu_memory_gb": 10.0}, {"gpu_memory_gb": 17.4}, {}], 80.0, 8, 4),
        ([{"gpu_memory_gb": 1.0}], 80.0, 3, 3),
        ([{"gpu_memory_gb": 100.0}], 80.0, 8, 1),
        ([{"gpu_memory_gb": 1.0}], 0.0, 8, 1),
        ([{"gpu_memory_gb": "NaN"}, {"gpu_memory_gb": -1}, {"gpu_memory_gb": None}], 80.0, 8, 1),
    ],
)
def test_as_many_runs_as_fit(taken: list[dict[str, float]], whole: float, cores: int, expected: int) -> None:
    assert fitting(taken, whole, cores) == expected


def test_runs_at_once_as_declared_and_as_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = made_task(tmp_path, TRAIN, ["good"])
    config = SweepConfig()
    config.slurm.trials_at_once, config.slurm.cpus_per_task = 2, 8

    def slots(wanted: object, kind: str = "final", *, larger: bool = False) -> int:
        config.final.runs_at_once = wanted
        return runs_at_once(config, kind, task.directory, larger=larger)

    assert (slots(None), slots(5), slots(5, "stage"), slots("auto")) == (2, 5, 2, 1)
    task.leg(0, [{"kind": "outcome", "trial": "good", "gpu_memory_gb": 5.4, "gpu_total_gb": 40.0}])
    assert slots("auto") == 6
    monkeypatch.setattr("orchestrator.worker.sharing.gpu_memory_gb", lambda: 20.0)
    assert slots("auto") == 3, "the GPU that it runs on counts, not that of the stages"
    config.slurm.on_out_of_memory = {"trials_at_once": 1}
    config.slurm.trials_at_once = 1
    assert slots(5, larger=True) == 1, "what ran out of memory is run alone"
    config.final.processes_per_node = 2
    assert slots(None) == 1


class Card:
    """What is asked of torch.cuda."""

    def __init__(self, reserved: list[int], fails: bool = False) -> None:
        self.reserved, self.fails = reserved, fails

    def is_initialized(self) -> bool:
        return bool(self.reserved)

    def device_count(self) -> int:
        return len(self.reserved)

    def max_memory_reserved(self, device: int) -> int:
        return self.reserved[device]

    def mem_get_info(self, device: int) -> tuple[int, int]:
        if self.fails:
            raise RuntimeError("CUDA error: the device is gone")
        return 0, (device + 1) * 2**36


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (None, {}),
        (Card([]), {}),
        (Card([0]), {}),
        (Card([2**30, 3 * 2**30]), {"gpu_memory_gb": 3.0, "gpu_total_gb": 128.0}),
        (Card([2**30], fails=True), {}),
    ],
)
def test_what_a_trial_took_of_a_gpu(
    card: Card | None, expected: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", card and SimpleNamespace(cuda=card))
    assert memory_taken() == expected


def test_the_memory_of_the_smallest_visible_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "0, GPU-a, 81559 MiB\\n1, GPU-b, 40960 MiB\\n2, GPU-c, [N/A]\\n"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{rows}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen = {}
    for visible in ("0,1", "0", "2", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        seen[visible] = gpu_memory_gb()
    assert seen == {"0,1": 40.0, "0": pytest.approx(79.65, abs=0.01), "2": None, "": None}
