"""What the report and the terminal show of trust between scales and of the parameters' importance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.planning.narrowing.trust import Agreement, agreement, describe, measured

if TYPE_CHECKING:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.results.load import Results


def agreements(results: Results) -> tuple[Agreement, ...]:
    """Measure how far rankings carry over between phases that follow each other, from compacted results."""
    stages = [stage for stage in results.stages if (results.trials["stage"] == stage).any()]
    found = [_stage(results, stage) for stage in stages] if len(stages) > 1 else []
    pairs = [agreement(low, high) for low, high in itertools.pairwise(found)]
    return tuple(pair for pair in pairs if pair is not None)


def _stage(results: Results, stage: str) -> StageResults:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.planning.sampling.samplers import Observation
    from orchestrator.sweep.records import FAILED, PRUNED

    rows = results.at(stage)
    rows = rows[rows["state"] != FAILED]
    sign = 1 if results.mode == "max" else -1
    seen = tuple(
        Observation(
            {"setting": str(setting)},
            sign * float(value) if math.isfinite(value) else -math.inf,
            settled=state != PRUNED,
        )
        for setting, value, state in zip(rows["setting_id"], rows["objective"], rows["state"], strict=True)
    )
    # The scale does not enter into an agreement.
    return StageResults(name=stage, scale=1.0, observations=seen)


def agreement_table(results: Results) -> tuple[Sequence[str], list[list[object]]]:
    """Return the columns and rows of a table: each pair of phases, and what follows from how they agree."""
    rows: list[list[object]] = []
    for one in agreements(results):
        known = measured(one)
        interval = f"{one.interval[0]:.2f} … {one.interval[1]:.2f}" if known else "–"
        tau = f"{one.correlation:.2f}" if known else "–"
        rows.append([f"{one.low} → {one.high}", one.settings, tau, interval, describe(one)])
    return ("from → to", "settings", "Kendall's tau", "90% interval", "what follows"), rows


def importance_table(results: Results) -> tuple[Sequence[str], list[list[object]]]:
    """Return the columns and rows of a table: each parameter's share of what a stage's results vary by.

    The parameter that matters most in the last stage that can tell comes first.
    """
    found = {stage: shares for stage in results.spaces if (shares := _importance(results, stage))}
    names = {name: 0.0 for shares in found.values() for name in shares}
    for shares in found.values():
        names.update(shares)
    rows: list[list[object]] = [
        [name, *(f"{shares[name]:.0%}" if name in shares else "–" for shares in found.values())]
        for name in sorted(names, key=lambda name: (-names[name], name))
    ]
    return ("parameter", *found), rows


def _importance(results: Results, stage: str) -> dict[str, float]:
    from orchestrator.planning.narrowing.importance import importance
    from orchestrator.planning.sampling.samplers import Observation
    from orchestrator.space import from_json
    from orchestrator.sweep.records import FAILED, PRUNED

    space = from_json({"parameters": results.spaces[stage]})
    rows = results.at(stage)
    rows = rows[rows["state"] != FAILED]
    columns = {p.name: f"param.{p.name}" for p in space if f"param.{p.name}" in rows.columns}
    sign = 1 if results.mode == "max" else -1
    seen = [
        Observation(
            # What is missing was not active in that setting.
            {name: row[column] for name, column in columns.items() if row[column] == row[column]
             and row[column] is not None},
            sign * float(row["objective"]) if math.isfinite(row["objective"]) else -math.inf,
            settled=row["state"] != PRUNED,
        )
        for row in rows.to_dict("records")
    ]  # fmt: skip
    return importance([p for p in space if p.name in columns], seen)
