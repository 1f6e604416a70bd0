"""One task of a sweep that is planned for real, to be run here without a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import commands
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.sweep.directory import STAGE, PhaseDirectory, SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.records import RecordFile, encode, read_file
from orchestrator.sweep.submissions import Intent, write_intent
from orchestrator.worker.batch import run_batch

SWEEP = """
name: tasks
metric: {{name: score}}
space: {{kind: "choice(a, b)"}}
stages: {{only: {{trials: 2, sampler: grid}}}}
final: {{top: 0}}
jobs: {{_target_: my_train.train, config: {{kind: a}}}}
slurm: {slurm}
"""


@dataclass(frozen=True)
class MadeTask:
    """A planned sweep of one stage, and its first submission."""

    directory: SweepDirectory
    folder: PhaseDirectory

    def run(self, submission: int = 1) -> dict[str, int]:
        """Run the only task of a submission in this process."""
        return run_batch(self.directory, "only", submission, 0)

    def submit(self, number: int, trials: Sequence[str], *, larger: bool = False) -> None:
        """Write the intent of a submission of one task."""
        intent = Intent(
            number=number, token=f"t-{number}", tasks=(tuple(trials),), created=0.0, host="h", larger=larger
        )
        assert write_intent(self.folder.submissions, intent)

    def leg(self, number: int, lines: Sequence[Mapping[str, Any]], submission: int = 1) -> None:
        """Write the record file of an earlier leg of the submission's only task."""
        self.folder.records.mkdir(exist_ok=True)
        header = {"kind": "task", "submission": submission, "task": 0, "attempt": number}
        path = self.folder.records / f"{submission:04d}-0000-{number}.jsonl"
        path.write_text("".join(encode(line) for line in [header, *lines]))

    def files(self) -> list[RecordFile]:
        """Return all its record files."""
        return [read_file(path) for path in sorted(self.folder.records.glob("[0-9]*.jsonl"))]

    def outcomes(self) -> dict[str, dict[str, Any]]:
        """Return the outcome line of each trial, the last where there are several."""
        return {
            line["trial"]: line for file in self.files() for line in file.lines if line["kind"] == "outcome"
        }

    def log(self, trial: str) -> str:
        """Return what a trial wrote to the file `log` in its checkpoint folder."""
        path = self.folder.checkpoints(trial) / "log"
        return path.read_text() if path.exists() else ""


def made_task(
    tmp_path: Path, train: str, kinds: Sequence[str], slurm: Mapping[str, Any] | None = None
) -> MadeTask:
    """Plan a sweep over a training function; its trials are called as `config.kind` is in each of them."""
    sweep = SWEEP.format(slurm=json.dumps({"trials_at_once": 2, **(slurm or {})}))
    planned = work_out(commands.write_user_sweep(tmp_path, train=train, sweep=sweep), [f"dir={tmp_path}/s"])
    freeze_plan(planned)
    folder = planned.directory.phase(STAGE, "only")
    trials = [TrialSpec(trial_id=kind, setting_id=kind, params={"kind": kind}, seed=0) for kind in kinds]
    write_trials(folder.trials, trials)
    task = MadeTask(planned.directory, folder)
    task.submit(1, kinds)
    return task
