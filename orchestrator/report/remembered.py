"""Importance as it was measured for the last page: a stage that has nothing new isn't measured again.

Few results are measured by a forest of scikit-learn's, and importing that takes as long as drawing a page.
What is remembered lies beside the tables, is worked out from them alone, and may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd

from orchestrator import __version__
from orchestrator.diagnosis import detail
from orchestrator.results.load import Results
from orchestrator.results.trust import importances
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import write_json

Shares = dict[str, dict[str, float]]


def remembered_path(directory: SweepDirectory) -> Path:
    """Return where the importances lie that were measured last."""
    return directory.results / "importance.json"


def remembered_importances(results: Results) -> Shares:
    """Return what `importances` does, measured anew for those stages alone that have changed since."""
    path = remembered_path(SweepDirectory(results.path))
    before = detail.read(path)
    marks = {stage: _mark(results, stage) for stage in results.stages if stage in results.spaces}
    known = {stage: _shares(before.get(stage), mark) for stage, mark in marks.items()}
    new = [stage for stage, shares in known.items() if shares is None]
    if new:
        measured = importances(replace(results, stages=new))
        known |= {stage: measured.get(stage, {}) for stage in new}
        told = {stage: {"mark": marks[stage], "shares": shares} for stage, shares in known.items()}
        with contextlib.suppress(OSError):  # it only saves time: the disk may be full, or not ours to write
            write_json(path, told)
    return {stage: shares for stage, shares in known.items() if shares}


def _mark(results: Results, stage: str) -> str:
    """Return what changes with anything that a stage's importances are measured from."""
    rows = results.at(stage)
    # A setting never changes once it was drawn: the trial's name stands for it.
    columns = rows[["trial_id", "state", "objective"]].astype({"trial_id": object, "state": object})
    content = pd.util.hash_pandas_object(columns, index=False).to_numpy().tobytes()
    ranges = json.dumps([__version__, results.mode, results.spaces[stage]], sort_keys=True)
    return hashlib.sha256(content + ranges.encode()).hexdigest()[:24]


def _shares(found: object, mark: str) -> dict[str, float] | None:
    """Return what was remembered under a mark; None where there is nothing that can be used."""
    if not isinstance(found, Mapping) or found.get("mark") != mark:
        return None
    shares = found.get("shares")
    if not isinstance(shares, Mapping):
        return None
    numbers = {str(name): share for name, share in shares.items() if isinstance(share, float)}
    return numbers if len(numbers) == len(shares) and all(map(math.isfinite, numbers.values())) else None
