"""An old, finished sweep, and how its files and records get damaged."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_old_sweep import told

from orchestrator.sweep.directory import SweepDirectory

Damage = Callable[[Path], object]


def record_file(sweep: Path, stage: str = "coarse") -> Path:
    return next(SweepDirectory(sweep).phase("stage", stage).records.glob("*.jsonl"))


def append(path: Path, *lines: dict[str, Any] | str) -> None:
    with path.open("a") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def outcome(trial: str, **more: Any) -> dict[str, Any]:
    metrics = {"score": 0.5}
    usual = {"kind": "outcome", "state": "completed", "metrics": metrics, "seconds": 1.0, "time": 1.0}
    return {**usual, "trial": trial, **more}


def report(trial: str, **more: Any) -> dict[str, Any]:
    return {"kind": "report", "trial": trial, "step": 1, "metrics": {"score": 0.5}, "time": 1.0, **more}


def rows(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the trials as `results --json` prints them, which is strict JSON."""
    printed = told("results", sweep, "--json")
    return {row["trial_id"]: row for row in json.loads(printed, parse_constant=pytest.fail)}


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garbled(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def holding(text: str) -> Damage:
    return lambda path: path.write_text(text)
