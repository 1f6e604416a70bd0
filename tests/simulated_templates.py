"""The small sweeps that are simulated: planned once, and copied for each world."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from orchestrator.control.create import freeze_plan, work_out
from orchestrator.planning.plan import Plan
from orchestrator.schema import SweepConfig
from orchestrator.sweep.facts import checked_path
from orchestrator.sweep.files import write_json

EPOCH = 1_780_000_000.0
HOSTS = ("login1", "login2")

TRAIN = "def train(config, trial):\n    return {'score': config.lr}\n"
SWEEP = """
name: tiny
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-5, 1.0))", width: "choice(8, 16)"}
stages:
  first: {trials: 4, epochs: 1%s}
  second: {trials: 3, epochs: 2}
final: {top: 1, seeds: 2, epochs: 3}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, width: 8, epochs: 1}
  scale: {epochs: epochs}
slurm:
  {executor: slurm, tasks_at_once: 2, cpus_per_task: 1, attempts: 50, timeout_min: 600,
   on_out_of_memory: {mem_gb: 64}}
"""
# Variants of the first stage, and one with the checks before it.
VARIANTS = {"plain": "", "closing": ", close: 0.5", "waves": ", waves: 2, repeats: 1", "checked": ""}


@dataclass(frozen=True, kw_only=True, slots=True)
class Template:
    """A sweep, planned once and copied for each world."""

    name: str
    path: Path
    plan: Plan
    config: SweepConfig


def make_templates(folder: Path) -> dict[str, Template]:
    """Plan each variant."""
    templates = {}
    for name, first in VARIANTS.items():
        user = folder / name
        user.mkdir(parents=True)
        (user / "my_train.py").write_text(TRAIN)
        (user / "sweep.yaml").write_text(SWEEP % first)
        overrides = [f"dir={folder / f'{name}-planned'}", f"checks.enabled={name == 'checked'}".lower()]
        planned = work_out(user / "sweep.yaml", overrides)
        freeze_plan(planned)
        shutil.rmtree(planned.directory.lease)
        write_json(checked_path(planned.directory), {"time": EPOCH, "host": HOSTS[0]})
        templates[name] = Template(
            name=name, path=planned.directory.path, plan=planned.plan, config=planned.config
        )
    return templates
