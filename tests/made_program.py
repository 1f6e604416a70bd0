"""A command line as a trial's program, run in this process with a trial that remembers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.errors import StopTrial
from orchestrator.programs.run import run_program
from orchestrator.schema import JobConfig, MetricConfig, MetricsConfig

OUTPUT = MetricsConfig(output={"step": "epoch %", "acc": "acc %"})
CONFIG: dict[str, Any] = {
    "lr": 1e-5, "name": "it's \"é\" {x}", "flag": True, "none": None, "sizes": [1, 2],
    "opt": {"momentum": 0.9},
}  # fmt: skip


@dataclass
class MadeTrial:
    """Takes reports, and is abandoned at a step."""

    checkpoint_dir: Path
    stop_at: int | None = None
    id: str = "coarse-00001"
    stage: str = "coarse"
    seed: int = 7
    leads: bool = True
    rows: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    alive_count: int = 0

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        self.rows.append((step, dict(metrics)))
        if step == self.stop_at:
            raise StopTrial("enough")

    def alive(self) -> None:
        self.alive_count += 1


@dataclass
class Runner:
    """Runs Python code as a trial's program."""

    trial: MadeTrial
    snapshot: Path

    def __call__(
        self, code: str, metrics: MetricsConfig = OUTPUT, more: Sequence[str] = (), **job: Any
    ) -> dict[str, float]:
        command = job.pop("command", [sys.executable, "-S", "-c", code.replace("{", "{{"), *more])
        made = JobConfig(_target_=None, command=command, metrics=metrics, **job)
        return run_program(
            made, MetricConfig(name="acc"), self.snapshot, OmegaConf.create(CONFIG), self.trial
        )


def made_program(tmp_path: Path) -> Runner:
    """Return what runs programs below a folder whose name has everything in it."""
    (tmp_path / "it's a «trial»").mkdir()
    (tmp_path / "snapshot").mkdir()
    return Runner(MadeTrial(tmp_path / "it's a «trial»"), tmp_path / "snapshot")
