"""The jobs that docs/integrations.md shows, as a sweep in which one trial is killed and one abandoned."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from commands import orchestrate, record_files

PAGE = Path(__file__).parent.parent / "docs" / "integrations.md"

# At its second report in the first attempt the better one is killed, before that is known to anybody.
KILLED = """
import dataclasses, os, signal
from {job} import train as whole

def train(config, trial):
    mark = trial.checkpoint_dir / "killed"

    def send(line):
        if line["kind"] == "report" and line["step"] == 2 and config.lr > 1e-3 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.{name})
        trial.send(line)

    return whole(config, dataclasses.replace(trial, send=send))
"""


def write_documented(folder: Path, job: str, sweep: str, **changes: Any) -> None:
    """Write a job of the page, and its sweep file with other values."""
    files = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE.read_text(), re.M | re.S))
    (folder / f"{job}.py").write_text(files[f"{job}.py"])
    content = OmegaConf.to_container(OmegaConf.create(files[sweep]))
    assert isinstance(content, dict)
    OmegaConf.save(OmegaConf.create({**content, **changes}), folder / sweep)


def run_with_a_kill(folder: Path, job: str, sweep: str, lr: float, name: str = "SIGKILL") -> pd.DataFrame:
    """Run two trials: the one with this rate is killed, the other abandoned; returns the results."""
    write_documented(
        folder, job, sweep,
        space={"lr": "tag(log, interval(1e-9, 1))"},
        start_from=[{"lr": lr}, {"lr": 1e-9}],
        stages={"coarse": {"trials": 2, "data": 1.0, "epochs": 4, "prune": 2}},
        final={"top": 0},
        slurm={"trials_at_once": 1, "on_out_of_memory": {"cpus_per_task": 1}},
    )  # fmt: skip
    (folder / "killed.py").write_text(KILLED.format(job=job, name=name))
    orchestrate("run", sweep, "jobs._target_=killed.train", cwd=folder)
    return pd.read_parquet(folder / "sweeps" / Path(sweep).stem / "results" / "trials").set_index("trial_id")


def steps_of(sweep: Path, trial: str) -> list[list[int]]:
    """Return the steps that a trial reported, of each file of records in which it has some."""
    found = []
    for file in record_files(sweep):
        steps = [
            line["step"] for line in file.lines if line.get("kind") == "report" and line.get("trial") == trial
        ]
        found += [list(dict.fromkeys(steps))] if steps else []
    return found
