"""The shipped examples: the main job end to end on this machine, and the same sweep on a real SLURM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from commands import orchestrate, outcome_counts

EXAMPLES = Path(__file__).parent.parent / "examples"
ON_SLURM = ["slurm=gpu", "slurm.cpus_per_task=1", "slurm.tasks_at_once=2", "slurm.task_minutes=0.04"]
WHOLE = {"coarse": 64, "medium": 24, "fine": 12, "final": 9}
# Every phase that there is, and little training: what it learns is tested on this machine.
SMALL = {"coarse": 24, "medium": 8, "fine": 4, "final": 4}
SMALLER = [
    *(f"stages.{stage}.trials={SMALL[stage]}" for stage in ("coarse", "medium", "fine")),
    "final={top: 2, seeds: 2, epochs: 20, checkpoints: 2}",
]


def run_digits(folder: Path, *overrides: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    done = orchestrate("run", EXAMPLES / "digits.yaml", *overrides, cwd=folder, timeout=600)
    sweep = folder / "sweeps" / "digits"
    for shown in ("best single model", "ensemble", "held-out test accuracy", "planned", "report.html"):
        assert shown in done.stdout, done.stdout
    assert set(outcome_counts(sweep).values()) == {1}
    ensemble: dict[str, Any] = json.loads((sweep / "ensemble" / "ensemble.json").read_text())
    return pd.read_parquet(sweep / "results" / "trials"), ensemble


def check_digits(trials: pd.DataFrame, counts: dict[str, int]) -> None:
    assert trials["stage"].value_counts().to_dict() == counts
    # Survivors ran again under the same setting, at the larger scale.
    medium = trials[trials["stage"] == "medium"]
    coarse = trials[trials["stage"] == "coarse"].set_index("trial_id")["setting_id"]
    promoted = medium[medium["origin"] != "sampled"]
    # The survivors and controls that are sure, and what the model takes on beside them.
    assert len(promoted) >= 3 * counts["medium"] // 8
    assert (promoted["parent"].map(coarse) == promoted["setting_id"]).all()


def test_digits_on_this_machine(tmp_path: Path) -> None:
    trials, ensemble = run_digits(tmp_path)
    check_digits(trials, WHOLE)
    assert ensemble["test"]["ensemble"] > 0.95
    assert ensemble["test"]["best_single"] > 0.94
    assert ensemble["validation"]["ensemble"] >= ensemble["validation"]["average_member"]
    assert ensemble["test_samples"] == 360


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_digits_on_slurm(tmp_path: Path) -> None:
    trials, ensemble = run_digits(tmp_path, *ON_SLURM, *SMALLER)
    check_digits(trials, SMALL)
    assert ensemble["test"]["ensemble"] > 0.9
    assert (trials["gpu_seconds"] > 0).all()


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
@pytest.mark.parametrize("cluster", ["local", "gpu", "cpu"])
def test_every_example_can_be_planned_for_every_cluster(tmp_path: Path, file: Path, cluster: str) -> None:
    orchestrate("plan", file, f"slurm={cluster}", "--dry-run", cwd=tmp_path)
