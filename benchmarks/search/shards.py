"""Results on disk: one Parquet file for each task and method, a row for each seed and budget."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
from meter import Outcome
from task import Setting, Task

REFERENCE = "reference"


def shard(out: Path, task: str, method: str) -> Path:
    """Return where a method's results on a task lie."""
    return out / "shards" / method / f"{task.replace('/', '--')}.parquet"


def present(file: Path) -> set[tuple[int, float]]:
    """Return the seeds and budgets that a shard holds already."""
    if not file.is_file():
        return set()
    rows = pd.read_parquet(file, columns=["seed", "budget"])
    return set(zip(rows.seed.astype(int), rows.budget.astype(float), strict=True))


def row(
    task: Task, method: str, seed: int, budget: float, outcome: Outcome | None, seconds: float
) -> dict[str, Any]:
    """Return one row: the test error of the chosen setting after training at full scale, and what it cost.

    Where nothing was chosen that could be trained within the budget, cost, errors and setting are null.
    """
    result = task.evaluate(outcome.setting, 1.0, seed) if outcome else None
    return {
        "task": task.name, "family": task.family, "half": task.half, "method": method,
        "seed": seed, "budget": float(budget), "seconds": seconds,
        "cost": outcome.cost if outcome else None,
        "validation": result.validation if result else None,
        "test": result.test if result else None,
        "setting": json.dumps(dict(outcome.setting)) if outcome else None,
    }  # fmt: skip


def reference_row(task: Task, settings: list[Setting]) -> dict[str, Any]:
    """Return what settings that nobody chose give at full scale: the lowest and the median test error."""
    tests = pd.Series([result.test for result in task.evaluate_many(settings)])
    return {
        "task": task.name, "family": task.family, "half": task.half, "seed": 0, "budget": 0.0,
        "settings": len(settings), "best": tests.min(), "median": tests.median(),
    }  # fmt: skip


def add(file: Path, rows: list[dict[str, Any]]) -> None:
    """Add rows to a shard, written whole beside it and renamed; one process writes a shard at a time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(rows)
    if file.is_file():
        table = pd.concat([pd.read_parquet(file), table], ignore_index=True)
    temporary = file.with_suffix(".partial")
    table.to_parquet(temporary, index=False)
    temporary.replace(file)
