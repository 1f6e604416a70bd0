"""A task's batch: when it does nothing, what it is given, and the lines that it writes."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_task import MadeTask, made_task

import orchestrator
from orchestrator.schema import SlurmConfig, larger
from orchestrator.sweep.files import write_json
from orchestrator.sweep.provenance import provenance_path
from orchestrator.sweep.records import COMPLETED, FAILED, MEMORY, NO_PROGRESS
from orchestrator.sweep.submissions import Refusal, write_abandoned
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.batch import run_batch

TRAIN = "def train(config, trial):\n    return {'score': 0.5}\n"


def start(trial: str, time: float = 1.0) -> dict[str, Any]:
    return {"kind": "start", "trial": trial, "time": time}


def failed(trial: str, cause: str) -> dict[str, Any]:
    line = {
        "kind": "outcome",
        "trial": trial,
        "state": FAILED,
        "metrics": {},
        "error": "boom",
        "cause": cause,
    }
    return {**line, "seconds": 1.0, "time": 2.0}


def test_a_task_writes_who_it_is_and_each_outcome(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a", "b", "c"])
    assert task.run() == {COMPLETED: 3}
    (file,) = task.files()
    assert file.header["token"] == "t-1" and file.header["pid"] == os.getpid()
    assert file.header["python"] == platform.python_version()
    assert file.header["orchestrator"] == orchestrator.__version__
    assert file.header["git_commit"] == "" and isinstance(file.header["gpu"], str)
    assert {trial: line["state"] for trial, line in task.outcomes().items()} == dict.fromkeys(
        "abc", COMPLETED
    )
    assert all("cause" not in line for line in task.outcomes().values())
    # Running it again, as after a requeue, repeats nothing.
    assert task.run() == {}
    assert len(task.files()[1].lines) == 0


def test_a_task_says_which_commit_its_code_is_of(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a"])
    write_json(provenance_path(task.directory), {"git": {"commit": "abc", "dirty": True}})
    task.run()
    assert task.files()[0].header["git_commit"] == "abc-dirty"


@pytest.mark.parametrize(
    "stop",
    [
        lambda task: write_abandoned(task.folder.submissions, 1, Refusal("orphaned")),
        lambda task: write_json(task.directory.cancelled, {}),
    ],
    ids=["abandoned", "cancelled"],
)
def test_a_task_that_nobody_counts_on_does_nothing(tmp_path: Path, stop: Callable[[MadeTask], None]) -> None:
    task = made_task(tmp_path, TRAIN, ["a"])
    stop(task)
    assert task.run() == {}
    assert not task.folder.records.exists()
    assert not task.folder.checkpoints("a").exists()


def test_an_abandoned_submission_leaves_others_alone(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a"])
    write_abandoned(task.folder.submissions, 1, Refusal("orphaned"))
    task.submit(2, ["a"])
    assert task.run(2) == {COMPLETED: 1}


def test_a_larger_request_runs_again_what_ran_out_of_memory(tmp_path: Path) -> None:
    more = {"trials_at_once": 1, "mem_gb": 8}
    slurm = {"gpus_per_task": 1, "trials_at_once": 4, "on_out_of_memory": more}
    task = made_task(tmp_path, TRAIN, ["a", "b"], slurm=slurm)
    task.leg(0, [start("a"), failed("a", MEMORY), start("b"), failed("b", "")])
    task.submit(2, ["a", "b"])
    assert task.run(1) == task.run(2) == {}, "the same request would run out of the same memory"
    task.submit(3, ["a", "b"], larger=True)
    assert task.run(3) == {COMPLETED: 1}
    assert task.outcomes()["a"]["state"] == COMPLETED and task.outcomes()["b"]["state"] == FAILED
    headers = {file.header["submission"]: file.header for file in task.files() if "gpus" in file.header}
    assert headers[2]["gpus"] == 0.25 and headers[3]["gpus"] == 1.0, "one has the GPU that four shared"
    assert task.run(3) == {}


def test_a_larger_request_that_was_not_enough_is_not_made_again(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a"], slurm={"on_out_of_memory": {"mem_gb": 8}})
    task.submit(2, ["a"], larger=True)
    task.leg(0, [start("a"), failed("a", MEMORY)], submission=2)
    assert task.run(2) == {}


def test_larger_changes_what_is_declared_alone() -> None:
    slurm = SlurmConfig(mem_gb=4, cpus_per_task=3, on_out_of_memory={"mem_gb": 64, "trials_at_once": 1})
    assert (larger(slurm).mem_gb, larger(slurm).trials_at_once, larger(slurm).cpus_per_task) == (64, 1, 3)


def test_a_batch_is_all_that_running_it_takes(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a", "b"])
    task.leg(0, [start("a"), failed("a", "")])
    seen: list[Batch] = []

    def run(given: Batch, writer: RecordWriter) -> dict[str, int]:
        seen.append(given)
        writer.write({"kind": "report", "trial": "b", "step": 1, "metrics": {"score": 0.1}, "time": 1.0})
        return {COMPLETED: 1}

    before = os.getcwd()
    assert run_batch(task.directory, "only", 1, 0, run) == {COMPLETED: 1}
    assert os.getcwd() == before, "where and how trials run is for the runner to say"
    assert [spec.trial_id for spec in seen[0].todo] == ["b"]
    assert (seen[0].metric, seen[0].phase.name) == ("score", "only")
    assert task.files()[1].lines[0]["step"] == 1


def test_a_trial_that_gets_no_further_fails_and_the_others_run(tmp_path: Path) -> None:
    task = made_task(tmp_path, TRAIN, ["a", "b"], slurm={"attempts": 3, "timeout_min": 10})
    for leg in range(3):
        began = 1000.0 * leg
        first = {"kind": "report", "trial": "a", "step": 1, "metrics": {}, "time": began + 100}
        last = {"kind": "interrupted", "trial": "a", "time": began + 590}
        task.leg(leg, [start("a", began), first, last])
    assert task.run() == {COMPLETED: 1, FAILED: 1}
    line = task.outcomes()["a"]
    assert line["cause"] == NO_PROGRESS and line["seconds"] == pytest.approx(3 * 590)
    assert "slurm.timeout_min: 10" in line["error"] and "trial.checkpoint_dir" in line["error"]
    assert task.outcomes()["b"]["state"] == COMPLETED


def test_a_line_after_one_that_was_cut_short_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RecordWriter(tmp_path / "r", 1, 0)
    written = os.write

    def full(handle: int, data: bytes) -> int:
        if b"later" in data:
            return written(handle, data)
        written(handle, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        writer.write({"kind": "report", "trial": "a"})
    writer.write({"kind": "report", "trial": "later"})
    writer.close()
    (path,) = (tmp_path / "r").iterdir()
    assert path.read_bytes().splitlines()[1] == b'{"kind":"report","trial":"later"}'
