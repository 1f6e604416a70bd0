"""A training function of a user's own, and the part of a sweep's file that names it."""

from __future__ import annotations

from pathlib import Path

from orchestrator.control.create import Planned, work_out

CODE = "def train(config, trial):\n    return {'acc': 1.0}\n"
OWN_JOB = """\
name: tiny
metric: {name: acc}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, fraction: 1.0, epochs: 10}
  scale: {data: fraction, epochs: epochs}
space: {lr: "tag(log, interval(1e-4, 1.0))"}
"""
OWN_AUTO = f"{OWN_JOB}budget: 20 trainings\nstages: auto\n"


def own(text: str, *overrides: str) -> Planned:
    """Work out the plan of a file's text, which is written to the working directory."""
    Path("sweep.yaml").write_text(text)
    return work_out(Path("sweep.yaml"), overrides)
