"""How well a stage fills 64 GPUs: python benchmarks/orchestration/makespan.py [--trials 1000] [--seeds 2]

On the simulated cluster: trials of long-tailed lengths (lognormal), tasks as the planner lays them out, waits
in the queue, and the real `advance`, called every few seconds as `orchestrate run` does. The lower bound is
what nothing can beat: all work spread evenly over the GPUs, or the longest trial of each stage after the
other, whichever takes longer. A straggler that nobody waits for any more is not work that has to be done, so
a stage that closes early can be below it.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cluster.simulation.cluster import SimulatedCluster
from orchestrator.cluster.simulation.machine import Machine, Site
from orchestrator.cluster.simulation.work import recorded
from orchestrator.control import act
from orchestrator.control.advance import advance
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.decide import DONE
from orchestrator.sweep import lease
from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.facts import checked_path, read_facts
from orchestrator.sweep.files import write_json

GPUS, MEAN_SECONDS, LOOK_SECONDS = 64, 120.0, 20.0
START = 1_780_000_000.0
SWEEP = """
name: makespan
metric: {{name: score, mode: max}}
space: {{lr: "tag(log, interval(1e-5, 1.0))", width: "interval(0.0, 1.0)"}}
stages:
  first: {{trials: {trials}{first}}}
{second}
final: {{top: 0}}
jobs:
  _target_: my_train.train
  config: {{lr: 0.1, width: 0.5}}
{cost}
slurm:
  {{executor: slurm, gpus_per_task: 1, cpus_per_task: 1, timeout_min: 240, tasks_at_once: {gpus},
    task_minutes: {minutes}}}
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One row of the table."""

    name: str
    # tasks are filled to so many minutes; and whether the planner knows how long a trial is
    minutes: float = 10.0
    known: bool = True
    first: str = ""
    two_stages: bool = False


LAYOUTS = (
    Layout(name="one stage, a task for each trial", minutes=0.01),
    Layout(name="one stage, as planned (tasks of 10 min)"),
    Layout(name="one stage, tasks of 30 min", minutes=30.0),
    Layout(name="one stage, length of a trial not known", known=False),
    Layout(name="two stages", two_stages=True),
    Layout(name="two stages, the first closes at 95%", two_stages=True, first=", close: 0.95"),
    Layout(name="two stages, the first closes at 80%", two_stages=True, first=", close: 0.8"),
    Layout(name="two stages, the first in 4 waves", two_stages=True, first=", waves: 4"),
    Layout(
        name="two stages, 4 waves closing at 80%", two_stages=True, first=", waves: 4, close: 0.8"
    ),
)  # fmt: skip


def lengths(seed: int, sigma: float) -> Callable[[TrialSpec], float]:
    """Return the seconds that a trial takes: lognormal, with the same mean whatever its tail."""

    def seconds(spec: TrialSpec) -> float:
        drawn = random.Random(f"{seed} {spec.trial_id}").gauss(0.0, sigma)
        return MEAN_SECONDS * math.exp(drawn - sigma**2 / 2)

    return seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Took:
    """What one sweep took: seconds of the cluster's clock, the lower bound, and its tasks."""

    seconds: float
    bound: float
    tasks: int


def measure(layout: Layout, trials: int, seed: int, sigma: float, queue: float) -> Took:
    """Run one sweep from its first submission to its end."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        user = Path(folder)
        (user / "my_train.py").write_text("def train(config, trial): ...\n")
        second = f"  second: {{trials: {trials // 4}}}" if layout.two_stages else ""
        cost = f"  cost: {{startup_seconds: {MEAN_SECONDS}}}" if layout.known else ""
        (user / "sweep.yaml").write_text(
            SWEEP.format(
                trials=trials, first=layout.first, second=second, cost=cost, gpus=GPUS, minutes=layout.minutes
            )
        )
        planned = work_out(user / "sweep.yaml", [f"dir={user / 'sweep'}"])
        freeze_plan(planned)
        write_json(checked_path(planned.directory), {"time": START, "host": "simulated"})
        length = lengths(seed, sigma)
        machine = Machine(
            site=Site(gpus=GPUS, queue_seconds=queue), work=recorded(length, lambda: machine), seed=seed
        )
        cluster = SimulatedCluster(machine)
        with lease.hold(planned.directory.lease, "makespan") as held:
            while True:
                decision = advance(planned.directory, planned.plan, planned.config, cluster, held)
                if decision.state == DONE:
                    break
                assert machine.alive() or decision.actions, decision
                machine.run_until(machine.now + LOOK_SECONDS)
        seconds = machine.now
        tasks = len(machine.jobs)
        # Threads that stragglers left behind end with them.
        for job in machine.alive():
            machine.cancel(job.id)
        phases = read_facts(planned.directory, planned.plan).phases
        each = [[length(spec) for spec in known.trials] for known in phases]
        work = sum(sum(stage) for stage in each)
        return Took(seconds=seconds, bound=max(work / GPUS, sum(map(max, each))), tasks=tasks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--sigma", type=float, nargs="+", default=[1.0])
    parser.add_argument(
        "--queue", type=float, nargs="+", default=[0.0, 60.0, 300.0], help="mean wait, seconds"
    )
    arguments = parser.parse_args()
    # Results and report are not what is measured.
    act.refresh_results = lambda *_: None
    columns = [(sigma, queue) for sigma in arguments.sigma for queue in arguments.queue]
    print(
        f"Makespan as a multiple of the lower bound: {arguments.trials} trials of {MEAN_SECONDS:.0f} s on "
        f"the mean on {GPUS} GPUs, mean of {arguments.seeds} seeds; a second stage has a quarter as many.\n"
    )
    print("| layout | tasks |" + "".join(f" σ {sigma:g}, wait {queue:g} s |" for sigma, queue in columns))
    print("|---|--:|" + "--:|" * len(columns))
    for layout in LAYOUTS:
        cells, tasks = [], 0
        for sigma, queue in columns:
            runs = [measure(layout, arguments.trials, seed, sigma, queue) for seed in range(arguments.seeds)]
            tasks = max(run.tasks for run in runs)
            cells.append(f" {statistics.mean(run.seconds / run.bound for run in runs):.2f} |")
        print(f"| {layout.name} | {tasks} |" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
