"""Final runs in many legs against undisturbed ones: python benchmarks/ensembles/legs.py

The same small sweep runs twice. Once in one process on this machine, with nothing in its way; once on the
SLURM that answers `sinfo` here, with a time limit of one minute for a task, and preemptions (`scontrol
requeue`) besides. Each final run keeps the ends of its schedule's cycles, the last epoch and the best one
within a share of the disk. What is compared: the kept steps, every number of the kept state dicts, every
reported metric, and the results' table. Exit status 1 where a bit differs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from orchestrator.sweep import records

SWEEP = """
defaults: [sweep, {{jobs: classify}}, {{datasets: digits}}, _self_]
name: legs
metric: {{name: val/accuracy}}
space: {{optimizer.lr: "choice(0.01, 0.02)"}}
stages: {{only: {{trials: 2, sampler: grid, data: 0.1, epochs: 1}}}}
final:
  {{top: 2, seeds: 1, epochs: {epochs}, checkpoints: [cycles, last, best], disk_gb: {disk_gb}}}
checks: {{enabled: false}}
jobs:
  predict: null
  config:
    model: {{dropout: 0.3, batch_norm: true, width: 32}}
    schedule: {{name: cyclical, cycle_epochs: {cycle}}}
    stopping: {{patience: 20, then: report}}
    augmentation: {{noise: 0.1}}
    batch_size: 32
    save_seconds: 1
slurm: {{cpus_per_task: 1, trials_at_once: 1, task_minutes: 0.01, attempts: 50}}
"""
ON_SLURM = ("slurm=gpu", "slurm.gpus_per_task=0", "slurm.tasks_at_once=2", "slurm.cpus_per_task=1")
LIMITS = ("slurm.timeout_min=1", "slurm.task_minutes=0.01", "slurm.attempts=50")


def main() -> None:
    """Run both sweeps and compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=240)
    parser.add_argument("--preempt", type=float, nargs="*", default=[0.2, 0.6], help="shares of the epochs")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("legs.md"))
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="legs-") as folder:
        place = Path(folder)
        cycle = max(1, asked.epochs // 12)
        (place / "sweep.yaml").write_text(SWEEP.format(epochs=asked.epochs, cycle=cycle, disk_gb=4.4e-4))
        began = time.monotonic()
        cut = start(place, "cut", *ON_SLURM, *LIMITS)
        preempted = preempt(place / "cut", [round(share * asked.epochs) for share in asked.preempt], cut)
        finish(cut)
        seconds = {"in legs": time.monotonic() - began}
        began = time.monotonic()
        finish(start(place, "calm"))
        seconds["undisturbed"] = time.monotonic() - began
        found = compare(place / "calm", place / "cut")
        text = page(place / "cut", asked.epochs, preempted, seconds, found)
    asked.out.write_text(text)
    print(text)
    sys.exit(0 if all(found.values()) else 1)


def start(folder: Path, name: str, *overrides: str) -> subprocess.Popen[str]:
    """Start a sweep's whole run."""
    command = [
        sys.executable,
        "-m",
        "orchestrator.cli",
        "run",
        "sweep.yaml",
        f"dir={folder / name}",
        *overrides,
    ]
    return subprocess.Popen(
        [*command, *overrides], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(run: subprocess.Popen[str]) -> None:
    """Wait for a run's end; what it said where that was no good one."""
    said, _ = run.communicate()
    if run.returncode != 0:
        sys.exit(f"the sweep failed:\n{said}")


def lines(sweep: Path) -> list[dict[str, Any]]:
    """Return the lines of all legs of the final runs."""
    return [line for file in records.read_directory(sweep / "final" / "records") for line in file.lines]


def preempt(sweep: Path, steps: list[int], run: subprocess.Popen[str]) -> Counter[str]:
    """Requeue each final run's task when it has got to each of some steps; return how often that was done."""
    waiting = {f"final-{number:05d}": list(steps) for number in range(2)}
    done: Counter[str] = Counter()
    while any(waiting.values()) and run.poll() is None:
        time.sleep(0.5)
        reached: Counter[str] = Counter()
        for line in lines(sweep) if (sweep / "final" / "records").exists() else []:
            if line["kind"] == "report":
                reached[line["trial"]] = max(reached[line["trial"]], line["step"])
        for trial, left in waiting.items():
            job = running(sweep, int(trial[-5:])) if left and reached[trial] >= left[0] else None
            if job is not None:
                subprocess.run(["scontrol", "requeue", job], check=True)
                left.pop(0)
                done[trial] += 1
    return done


def running(sweep: Path, task: int) -> str | None:
    """Return the job of a final run's task while it runs."""
    uid = json.loads((sweep / "plan.json").read_text())["uid"]
    rows = subprocess.check_output(["squeue", "--noheader", "--array", "--format=%j|%i|%T"], text=True)
    for name, job, state in (row.strip().split("|") for row in rows.splitlines()):
        if uid in name and "-final-" in name and state == "RUNNING" and job.endswith(f"_{task}"):
            return job
    return None


def compare(calm: Path, cut: Path) -> dict[str, bool]:
    """Say of each thing that is compared whether it has the same bits."""
    members = members_of(calm), members_of(cut)
    tables = [rows(sweep, "trials") for sweep in (calm, cut)]
    curves = [rows(sweep, "curves") for sweep in (calm, cut)]
    same = members[0] == members[1]
    return {
        "kept steps": same and bool(members[0]),
        "state dicts of the kept members": same and all(equal(calm / one, cut / one) for one in members[0]),
        "reported metrics of every epoch": bool(curves[0]) and curves[0] == curves[1],
        "the results' table: objective, best metrics": bool(tables[0]) and tables[0] == tables[1],
    }


def members_of(sweep: Path) -> list[str]:
    """Return the members that are on disk, relative to the sweep."""
    found = (sweep / "final" / "checkpoints").glob("*/*.pt")
    return sorted(str(path.relative_to(sweep)) for path in found if path.name != "last.pt")


def equal(one: Path, other: Path) -> bool:
    """Compare two members number by number."""
    first, second = (torch.load(path, weights_only=True)["model"] for path in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def rows(sweep: Path, name: str) -> list[tuple[Any, ...]]:
    """Return what the results say of the final runs, without what depends on when and where they ran."""
    table = pd.read_parquet(sweep / "results" / name)
    table = table[table["trial_id"].str.startswith("final")]
    if name == "curves":
        kept = table[["trial_id", "step", "metric", "value"]]
    else:
        kept = table[["trial_id", "objective", *sorted(table.filter(like="metric.").columns)]]
    return sorted(kept.itertuples(index=False, name=None))


def page(
    cut: Path, epochs: int, preempted: Counter[str], seconds: dict[str, float], found: dict[str, bool]
) -> str:
    """Return what was found, as Markdown."""
    files = records.read_directory(cut / "final" / "records")
    text = [
        "# Final runs in many legs\n",
        f"Two final runs of {epochs} epochs (digits; dropout, noise, batch normalization, a cyclical "
        "schedule; the ends of its cycles, the last epoch and the best are kept within a share of the disk), "
        "once undisturbed in one process, and once on a real SLURM on the same machine with a limit of one "
        "minute for each task, and preemptions. Made by `python benchmarks/ensembles/legs.py`.\n",
        "| run | legs | ended by a preemption | by the time limit | ended before the training began "
        "| checkpoints kept | dropped |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, trial in enumerate(sorted(preempted)):
        own = [file.lines for file in files if file.header.get("task") == task]
        empty = sum(not any(line["kind"] == "report" for line in each) for each in own)
        offered, dropped = (
            {line["path"] for each in own for line in each if line["kind"] == kind}
            for kind in ("checkpoint", "dropped")
        )
        limit = len(own) - 1 - preempted[trial]
        text.append(
            f"| {trial} | {len(own)} | {preempted[trial]} | {limit} | {empty} "
            f"| {len(offered - dropped)} | {len(dropped)} |"
        )
    text += ["", "| compared with the undisturbed runs | same bits |", "|---|---|"]
    text += [f"| {what} | {'yes' if same else '**no**'} |" for what, same in found.items()]
    spent = ", ".join(f"{value:.0f} s {name}" for name, value in seconds.items())
    text += ["", f"The whole sweeps took {spent}, on a machine that did other work at the same time."]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
