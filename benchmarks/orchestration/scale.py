"""What `advance` and `status` cost on a large sweep: python benchmarks/orchestration/scale.py [--trials N]

Writes the directory of a sweep of so many trials as the orchestrator leaves it (one stage, 50 trials to a
task, reports and outcomes of all tasks that have begun), then advances it in fresh processes beside a cluster
that says of every task that it runs. Two moments: `mid-stage`, with half of the outcomes in, and `at rest`,
with all of them, compacted. Each is measured `cold`, without the index of the records (`advance` then writes
it), and `warm`, with it. Prints a table: CPU seconds and peak memory of the whole process, imports and all.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.cluster.interface import ACTIVE, Capacity, Request, TaskStatus
from orchestrator.sweep.submissions import Intent, Receipt

SWEEP = """
name: large
metric: {name: score, mode: max}
space:
  lr: tag(log, interval(1e-5, 1.0))
  width: choice(8, 16, 32)
  dropout: interval(0.0, 0.7)
  optimizer: choice(sgd, adam)
stages:
  coarse: {trials: TRIALS, sampler: random}
final: {top: 0}

jobs:
  _target_: my_train.train
  config: {lr: 0.1, width: 8, dropout: 0.0, optimizer: sgd}
slurm: {tasks_at_once: 64, cpus_per_task: 1}
"""
TRAIN = "def train(config, trial):\n    return {'score': config.lr}\n"
BATCH = 50
MOMENTS = ("mid-stage", "at rest")


class AllActive:
    """A cluster on which everything that was submitted runs."""

    def capacity(self) -> Capacity:
        return Capacity()

    def submit(self, request: Request) -> Receipt:
        raise AssertionError("everything was submitted before")

    def find(self, intent: Intent, logs: Path) -> tuple[str, ...]:
        return ()

    def adopt(self, intent: Intent, logs: Path) -> Receipt | None:
        return None

    def poll(self, jobs: Sequence[str]) -> Mapping[str, TaskStatus]:
        return {job: TaskStatus(ACTIVE) for job in jobs}

    def cancel(self, jobs: Sequence[str]) -> None:
        raise AssertionError("nothing is to be cancelled")


def make(folder: Path, trials: int, *, share: float, reports: int, array: int = 1000) -> Path:
    """Write a sweep's directory in which a share of the trials has an outcome; returns it.

    Every task has begun; of each, the first trials are done and the next one is under way.
    """
    from orchestrator.control.create import freeze_plan, work_out
    from orchestrator.space import parse_space
    from orchestrator.sweep.directory import TrialSpec, write_trials
    from orchestrator.sweep.facts import checked_path, compacted_path
    from orchestrator.sweep.files import write_json
    from orchestrator.sweep.records import encode
    from orchestrator.sweep.submissions import write_intent, write_receipt

    folder.mkdir(parents=True)
    (folder / "my_train.py").write_text(TRAIN)
    (folder / "sweep.yaml").write_text(SWEEP.replace("TRIALS", str(trials)))
    planned = work_out(folder / "sweep.yaml", [f"dir={folder}/sweep"])
    freeze_plan(planned)
    directory, phase = planned.directory, planned.plan.phases[0]
    place, rng = directory.phase(phase.kind, phase.name), random.Random(trials)
    names = {p.name for p in parse_space(dict(planned.config.space), {}, "sweep.yaml")}
    assert names == {"lr", "width", "dropout", "optimizer"}
    specs = [
        TrialSpec(
            trial_id=f"{phase.name}-{number:06d}",
            setting_id=f"{rng.getrandbits(48):012x}",
            params={
                "lr": 10 ** rng.uniform(-5, 0),
                "width": rng.choice((8, 16, 32)),
                "dropout": rng.uniform(0, 0.7),
                "optimizer": rng.choice(("sgd", "adam")),
            },
            seed=rng.getrandbits(31),
        )
        for number in range(trials)
    ]
    write_trials(place.trials, specs)
    tasks = [tuple(s.trial_id for s in specs[i : i + BATCH]) for i in range(0, trials, BATCH)]
    began = 1_780_000_000.0
    place.records.mkdir(parents=True)
    for number, start in enumerate(range(0, len(tasks), array), start=1):
        part = tuple(tasks[start : start + array])
        token = f"large-{phase.name}-{planned.plan.uid}-{number:04d}"
        write_intent(
            place.submissions, Intent(number=number, token=token, tasks=part, created=began, host="login")
        )
        jobs = tuple(f"{number}_{index}" for index in range(len(part)))
        write_receipt(place.submissions, number, Receipt(jobs=jobs))
        for index, task in enumerate(part):
            header = {
                "kind": "task", "version": 1, "token": token, "submission": number, "task": index,
                "attempt": 0, "host": f"n{index % 64}", "pid": 1, "slurm_job_id": jobs[index], "gpus": 1.0,
                "cpus": 4.0, "time": began,
            }  # fmt: skip
            lines, clock = [encode(header)], began
            done = round(share * len(task))
            for place_in_task, trial in enumerate(task[: done + (share < 1)]):
                lines.append(encode({"kind": "start", "trial": trial, "time": clock}))
                for step in range(1, reports + 1):
                    clock += rng.uniform(1, 2)
                    metrics = {"score": rng.random(), "loss": rng.random()}
                    report = {"trial": trial, "step": step, "metrics": metrics, "time": clock}
                    lines.append(encode({"kind": "report", **report}))
                if place_in_task < done:
                    end = {
                        "kind": "outcome", "trial": trial, "state": "completed", "seconds": 1.5 * reports + 1,
                        "metrics": {"score": rng.random(), "loss": rng.random()}, "error": "", "time": clock,
                    }  # fmt: skip
                    lines.append(encode(end))
            (place.records / f"{number:04d}-{index:04d}-0.jsonl").write_text("".join(lines))
    write_json(checked_path(directory), {"time": began, "host": "login"})
    if share == 1:
        write_json(compacted_path(directory), {"rows": trials})
    return directory.path


def act(command: str, path: Path) -> dict[str, object]:
    """Do what a command does, in this process; returns what it cost."""
    from orchestrator.control import drive, opened
    from orchestrator.sweep.directory import SweepDirectory

    opened.open_cluster = lambda resources: AllActive()  # type: ignore[attr-defined]
    # A sweep that is known to be done is not looked at again, which is not what is measured here.
    (path / "done.json").unlink(missing_ok=True)
    sweep = opened.open_sweep(SweepDirectory(path))
    if command == "advance":
        state = drive.advance_once(sweep, lambda action: print(action, file=sys.stderr)).state
    else:
        state = drive.observe(sweep).state
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"state": state, "cpu": used.ru_utime + used.ru_stime, "megabytes": _most_megabytes()}


def _most_megabytes() -> float:
    """Return the most memory that this process has had; that of getrusage includes who started it."""
    (line,) = (one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measure(command: str, path: Path) -> dict[str, float]:
    """Do what a command does in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--act", command, str(path)], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode != 0 or done.stderr:
        raise SystemExit(f"{command} {path}:\n{done.stderr}")
    content: dict[str, float] = json.loads(done.stdout)
    return content


def indexes(path: Path) -> list[Path]:
    """Return the indexes that a sweep's directory has."""
    return list(path.glob("stages/*/records/.index"))


def rows(trials: int, reports: int, repeats: int) -> list[list[str]]:
    """Measure both moments of a sweep of so many trials."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for moment in MOMENTS:
            began = time.monotonic()
            path = make(
                Path(folder) / moment.replace(" ", "-"), trials, share=0.5 if moment == "mid-stage" else 1.0,
                reports=reports,
            )  # fmt: skip
            size = sum(f.stat().st_size for f in path.glob("stages/*/records/*.jsonl")) / 1e6
            print(f"{moment}: {trials:,} trials, {size:.0f} MB of records, made in "
                  f"{time.monotonic() - began:.0f} s", file=sys.stderr)  # fmt: skip
            for command in ("advance", "status"):
                for temperature in ("cold", "warm"):
                    runs = []
                    for _ in range(repeats):
                        if temperature == "cold":
                            for index in indexes(path):
                                index.unlink()
                        elif not indexes(path):
                            measure("advance", path)
                        runs.append(measure(command, path))
                    cpu = min(run["cpu"] for run in runs)
                    memory = max(run["megabytes"] for run in runs)
                    figures = [f"{trials:,}", f"{cpu:.2f}", f"{memory:.0f}", str(runs[-1]["state"])]
                    found.append([moment, command, temperature, *figures])
            shutil.rmtree(path.parent)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--reports", type=int, default=5, help="of each trial")
    parser.add_argument("--repeats", type=int, default=3, help="the least CPU and the largest memory count")
    parser.add_argument("--act", nargs=2, metavar=("COMMAND", "DIR"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.act:
        print(json.dumps(act(chosen.act[0], Path(chosen.act[1]))))
        return
    table = [row for trials in chosen.trials for row in rows(trials, chosen.reports, chosen.repeats)]
    head = ["moment", "command", "index", "trials", "CPU s", "MB", "state"]
    for row in [head, ["---"] * len(head), *table]:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
