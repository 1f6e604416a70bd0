"""The built-in jobs of the catalogue, swept through the command line."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from commands import orchestrate, status
from orchestrator.sweep.files import read_json

SWEEP = """
defaults: [sweep, {jobs: regress}, {datasets: diabetes}, {slurm: local}, _self_]
name: values
metric: {name: val/loss, mode: min}
space:
  optimizer.lr: tag(log, interval(1e-3, 1e-1))
  loss: choice(mse, huber)
stages: {only: {trials: 2, data: 0.5, epochs: 2}}
final: {top: 1, seeds: 1, epochs: 3, checkpoints: 1}
checks: {enabled: false}
"""


def test_values_are_swept_and_combined(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    orchestrate("run", "sweep.yaml", cwd=tmp_path)
    sweep = tmp_path / "sweeps" / "values"
    assert status(sweep)["state"] == "done"
    trials = pd.read_parquet(sweep / "results" / "trials")
    assert set(trials["stage"]) == {"only", "final"}
    # 1 is what the mean of the training targets gets.
    assert (trials["metric.val/loss"] < 1.5).all()
    assert [path.name for path in sweep.rglob("*.pt")].count("epoch-0003.pt") == 1
    ensemble = read_json(sweep / "ensemble" / "ensemble.json")
    assert (ensemble["task"], ensemble["score"], ensemble["mode"]) == ("regression", "mse", "min")
    # In the data's own units, whose variance is about 5,900.
    assert 2000 < ensemble["test"]["ensemble"] < 12_000
    low, high = ensemble["test_intervals"]["ensemble"]
    assert low < ensemble["test"]["ensemble"] < high
    assert "calibration" not in ensemble
