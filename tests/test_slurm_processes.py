"""Final runs of several processes on a real SLURM: on one node, on two, and put back into the queue."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import commands
from commands import orchestrate, wait_for, write_user_sweep
from orchestrator.sweep.records import RecordFile

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("slurm", "two_nodes")]

SLURM = ["slurm=gpu", "slurm.cpus_per_task=1", "slurm.task_minutes=10"]

# As a user's own job would do it: it meets the others by env://, and rank 0 saves.
TOGETHER = """
import os, time

def train(config, trial):
    if trial.kind != "final":
        return {"score": 0.5}
    import torch
    import torch.distributed as dist
    dist.init_process_group("gloo")
    rank, place = dist.get_rank(), trial.checkpoint_dir / "step"
    done = int(place.read_text()) if place.exists() else 0
    seen = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "SLURMD_NODENAME", "CUDA_VISIBLE_DEVICES")
    (trial.checkpoint_dir / f"rank{rank}").write_text(" ".join(os.environ[name] for name in seen))
    for step in range(done + 1, 9):
        total = torch.tensor([10.0 ** rank])
        dist.all_reduce(total)
        trial.report(step, {"score": total.item()})
        if rank == 0:
            place.write_text(str(step))
        time.sleep(0.5 if done == 0 else 0.0)
    dist.destroy_process_group()
    return {"score": total.item()}
"""

SWEEP = """
name: together
metric: {name: score}
space: {kind: "choice(a, b)"}
stages: {only: {trials: 2, sampler: grid}}
final: {top: 1, seeds: 1, nodes: 2, processes_per_node: 2, gpus_per_node: 2}
jobs: {_target_: my_train.train, config: {kind: a}}
"""

DIGITS = """
defaults: [sweep, {jobs: classify}, {datasets: digits}, _self_]
name: together
metric: {name: val/accuracy}
space: {optimizer.lr: "choice(0.02, 0.03)"}
stages: {only: {trials: 2, data: 0.1, classes: 2, epochs: 1, sampler: grid}}
checks: {enabled: false}
final: {top: 1, seeds: 1, epochs: 4, checkpoints: [best, last], gpus_per_node: 2}
jobs: {predict: null, config: {model: {width: 16}, batch_size: 64}}
"""


def job_of(sweep: Path) -> str:
    uid = json.loads((sweep / "plan.json").read_text())["uid"]
    rows = subprocess.run(
        ["squeue", "--noheader", "--format=%j|%A|%T"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return next(row.split("|")[1] for row in rows if uid in row and row.strip().endswith("RUNNING"))


def final_files(sweep: Path) -> list[RecordFile]:
    return [file for file in commands.record_files(sweep) if file.path.parts[-3] == "final"]


def test_two_processes_on_each_of_two_nodes_and_a_preemption(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=TOGETHER, sweep=SWEEP)
    sweep = tmp_path / "sweeps" / "together"
    folder = sweep / "final" / "checkpoints" / "final-00000"
    run = subprocess.Popen(
        commands.command("run", "sweep.yaml", *SLURM), cwd=tmp_path, env=commands.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for(lambda: run.poll() is not None or (folder / "step").exists(), what="a checkpoint")
        # What SLURM sends before it takes a job's place.
        subprocess.run(["scancel", "--signal=USR2", job_of(sweep)], check=True)
        shown, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    assert run.returncode == 0, shown + errors
    first, second = final_files(sweep)
    assert first.header["processes"] == 4 == second.header["gpus"]
    assert [line["kind"] for line in first.lines][-1] == "interrupted"
    reports = [line for line in second.lines if line["kind"] == "report"]
    assert 1 < reports[0]["step"] <= reports[-1]["step"] == 8, "the next leg went on from the checkpoint"
    assert [line["kind"] for line in second.lines].count("report") == len(reports), "of one rank alone"
    (outcome,) = [line for line in second.lines if line["kind"] == "outcome"]
    assert outcome["metrics"] == {"score": 1111.0}, "the sum over all four"
    ranks = [(folder / f"rank{rank}").read_text().split() for rank in range(4)]
    assert [rank[:2] for rank in ranks] == [["0", "2"], ["1", "2"], ["0", "2"], ["1", "2"]]
    assert ranks[0][2] == ranks[1][2] != ranks[2][2] == ranks[3][2]
    assert all(len(rank[3].split(",")) == 2 for rank in ranks), "each sees both GPUs of its node"


def test_the_built_in_job_with_two_processes_on_one_node(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(DIGITS)
    orchestrate("run", "sweep.yaml", *SLURM, cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "together"
    (file,) = final_files(sweep)
    (outcome,) = [line for line in file.lines if line["kind"] == "outcome"]
    assert (outcome["state"], file.header["processes"]) == ("completed", 2), outcome
    assert outcome["metrics"]["val/accuracy"] > 0.7
    kept = [line["path"] for line in file.lines if line["kind"] == "checkpoint"]
    assert len(kept) == len(set(kept)) > 0, "rank 0 alone keeps checkpoints"
