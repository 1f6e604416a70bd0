"""The budget of a sweep: as it was planned, or as a person changed it since. One file for each change."""

from __future__ import annotations

import json
import time

from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import create_exclusive, read_as


def write_budget(directory: SweepDirectory, text: str) -> None:
    """Write down what a sweep may cost from now on."""
    folder = directory.path / "budgets"
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)
    while not create_exclusive(
        folder / f"{number:04d}.json", json.dumps({"budget": text, "time": time.time()})
    ):
        number += 1


def read_budget(directory: SweepDirectory, planned: str) -> str:
    """Return the budget that holds now: the last that a person wrote down, or the plan's; empty is none."""
    written = sorted((directory.path / "budgets").glob("[0-9]*.json"), key=lambda path: int(path.stem))
    if not written:
        return planned
    return read_as(written[-1], lambda content: str(content["budget"]), "a budget")
