"""What final runs of several processes, and several of one GPU, are planned as, refused as, and cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commands import orchestrate, record_files, write_user_sweep
from orchestrator.control.create import work_out
from orchestrator.errors import UserError
from orchestrator.planning.budget import parse_budget
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Phase, Plan
from orchestrator.planning.spending import Spent, run_costs, used_so_far
from orchestrator.sweep.directory import FINAL, STAGE

DIGITS = Path(__file__).parents[1] / "examples" / "digits.yaml"
KNOWN = ["jobs.cost.startup_seconds=6.0", "jobs.cost.sample_seconds=0.001", "slurm.trials_at_once=1"]

TRAIN = """
import os

def train(config, trial):
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "OMP_NUM_THREADS")
    told = " ".join(os.environ.get(name, "-") for name in names)
    (trial.checkpoint_dir / os.environ.get("RANK", "alone")).write_text(told)
    return {"score": 0.5}
"""

SWEEP = """
name: mine
metric: {name: score}
space: {kind: "choice(a, b)"}
stages: {only: {trials: 2, sampler: grid}}
final: {top: 1, seeds: 2, processes_per_node: 2}
jobs: {_target_: my_train.train, config: {kind: a}}
slurm: {cpus_per_task: 0, trials_at_once: 0}
"""


def phase_of(plan: Plan, kind: str) -> Phase:
    return next(phase for phase in plan.phases if phase.kind == kind)


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["final.nodes=2"], "final.nodes", "slurm=gpu"),
        (["final.nodes=0"], "final.nodes", "the least is 1"),
        (["final.gpus_per_node=-1"], "final.gpus_per_node", "the least is 0"),
        (["final.processes_per_node=0"], "final.processes_per_node", "the least is 1"),
        (["final.gpus_per_node=2", "final.processes_per_node=3"], "final.processes_per_node", "share"),
        (["final.runs_at_once=0"], "final.runs_at_once", "auto"),
        (["final.runs_at_once=many"], "final.runs_at_once", "auto"),
        (["final.runs_at_once=true"], "final.runs_at_once", "auto"),
        (["final.runs_at_once=2.5"], "final.runs_at_once", "auto"),
        (["final.runs_at_once=2", "final.processes_per_node=2"], "final.runs_at_once", "Leave it out"),
        (["final.runs_at_once=auto", "final.gpus_per_node=2"], "final.runs_at_once", "Leave it out"),
        (["slurm=gpu", "slurm.sbatch={gres: gpu:4}", "slurm.gpus_per_task=0", "final.gpus_per_node=4"],
         "final.gpus_per_node", "slurm.sbatch.gres"),
        (["slurm=gpu", "slurm.sbatch={nodes: 2}"], "slurm.sbatch.nodes", "final.nodes"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_when_it_is_planned(
    overrides: list[str], key: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as refused:
        work_out(DIGITS, [f"dir={tmp_path}/s", *overrides])
    assert refused.value.key == key and words in str(refused.value)


def test_without_final_runs_their_processes_do_not_matter(tmp_path: Path) -> None:
    work_out(DIGITS, [f"dir={tmp_path}/s", "final.top=0", "final.nodes=2", "final.runs_at_once=many"])


def test_hours_of_final_runs_count_their_processes(tmp_path: Path) -> None:
    def cost(*overrides: str) -> Any:
        plan = work_out(DIGITS, [f"dir={tmp_path}/s", *KNOWN, *overrides]).plan
        return phase_of(plan, FINAL).cost, phase_of(plan, STAGE).cost

    one, stage = cost("slurm.cpus_per_task=1")
    four, same = cost("slurm.cpus_per_task=1", "final.processes_per_node=4")
    assert stage == same
    start = 9 * 6.0
    assert four.seconds == pytest.approx(start + (one.seconds - start) / 4), "four are four times as fast"
    assert four.hours == pytest.approx(4 * four.seconds / 3600)
    gpus, _ = cost("slurm=gpu", "slurm.gpus_per_task=1", "final.nodes=2", "final.gpus_per_node=2")
    assert gpus.hours == pytest.approx(four.hours), "GPUs, not the cores beside them"
    shared, _ = cost("slurm.cpus_per_task=1", "final.runs_at_once=3")
    assert shared.hours == pytest.approx(one.hours / 3)


def test_a_task_holds_as_many_runs_as_share_it(tmp_path: Path) -> None:
    where = [f"dir={tmp_path}/s", "slurm=gpu", "slurm.task_minutes=0.001"]
    sizes = {
        wanted: phase_of(work_out(DIGITS, [*where, f"final.runs_at_once={wanted}"]).plan, FINAL).batch
        for wanted in ("null", "3", "20", "auto")
    }
    assert sizes == {"null": 1, "3": 3, "20": 9, "auto": 1}


def test_a_budget_of_hours_counts_what_final_runs_held(tmp_path: Path) -> None:
    overrides = [*KNOWN, "slurm.cpus_per_task=1", "final.processes_per_node=4"]
    planned = work_out(DIGITS, [f"dir={tmp_path}/s", *overrides])
    price, budget = Price.of(planned.config), parse_budget("100 core-hours")
    assert (price.share, price.weight(STAGE), price.weight(FINAL)) == (1.0, 1.0, 4.0)
    plan = planned.plan
    costs = run_costs(plan, {}, budget, price)
    assert costs["final"] == pytest.approx((phase_of(plan, FINAL).cost.hours or 0) / 9), "as declared"
    # `spent` weighs each second.
    seconds = 4 * 100.0
    measured = {"final": Spent(drawn=2, whole=1, whole_seconds=seconds)}
    assert used_so_far(plan, measured, budget, price) == pytest.approx(2 * seconds / 3600)
    assert replace(price, final_share=None).weight(FINAL) == 1.0


def test_two_processes_on_this_machine(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, train=TRAIN, sweep=SWEEP)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "mine"
    checkpoints = [sweep / "final" / "checkpoints" / f"final-0000{number}" for number in (0, 1)]
    for folder in checkpoints:
        told = [(folder / str(rank)).read_text().split() for rank in (0, 1)]
        assert [line[:3] for line in told] == [["0", "2", "127.0.0.1"], ["1", "2", "127.0.0.1"]]
    assert all((sweep / f"stages/only/checkpoints/only-0000{n}" / "alone").exists() for n in (0, 1))
    outcomes = [
        line for file in record_files(sweep) if "final" in file.path.parts
        for line in file.lines if line["kind"] == "outcome"
    ]  # fmt: skip
    assert [line["state"] for line in outcomes] == ["completed", "completed"]
