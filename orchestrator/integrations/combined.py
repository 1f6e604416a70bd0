"""The ensemble as one more run: what was chosen, and what it measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from orchestrator.integrations.ended import Ended
from orchestrator.results.load import Results
from orchestrator.results.schema import text
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.records import COMPLETED

ENSEMBLE = "ensemble"
# Of ensemble.json: the parts that hold numbers by name, and what says how it came about.
_FIGURES = ("validation", "test", "gains", "methods", "other_scores")
_CHOSEN = ("score", "mode", "combine", "candidates", "validation_samples", "test_samples")


def combined(results: Results) -> Ended | None:
    """Return what the ensemble step chose and measured, as a run; None until it has."""
    found = results.ensemble
    if found is None:
        return None
    figures = [pair for part in _FIGURES for pair in _numbers(found.get(part), part)]
    params = {key: found[key] for key in _CHOSEN if found.get(key) is not None}
    members = [one for one in found.get("members", ()) if isinstance(one, Mapping)]
    told = [
        f"{one.get('trial_id')} at step {one.get('step')}, seed {one.get('seed')}, weight {one.get('weight')}"
        for one in members
    ]
    at = SweepDirectory(results.path).ensemble_result.stat().st_mtime
    return Ended(
        trial_id=ENSEMBLE,
        stage=ENSEMBLE,
        state=COMPLETED,
        params=params | {"members": len(members)},
        facts={"trial_id": ENSEMBLE, "stage": ENSEMBLE, "members": text("\n".join(told))},
        outcome=dict(figures),
        curves={},
        began=at,
        ended=at,
    )


def _numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Give the finite numbers in a mapping of mappings, by their way through it: test/best_single."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _numbers(item, f"{name}/{text(str(key))}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        yield name, float(value)
