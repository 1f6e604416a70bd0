"""What results tell about trust between scales and about the parameters' importance."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from orchestrator.planning.narrowing.trust import Agreement, agreement
from orchestrator.results.load import Results
from orchestrator.sweep.records import FAILED, PRUNED

if TYPE_CHECKING:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.planning.sampling.observation import Observation


def agreements(results: Results) -> tuple[Agreement, ...]:
    """Measure how far rankings carry over between phases that follow each other.

    Kendall's tau with a 90% interval; see `orchestrator.planning.narrowing.trust.agreement`.
    """
    stages = [stage for stage in results.stages if (results.trials["stage"] == stage).any()]
    found = [_stage(results, stage) for stage in stages] if len(stages) > 1 else []
    pairs = [agreement(low, high) for low, high in itertools.pairwise(found)]
    return tuple(pair for pair in pairs if pair is not None)


def importances(results: Results) -> dict[str, dict[str, float]]:
    """Measure how much of what each stage's results vary by each parameter accounts for.

    Returns:
        Stage to parameter to share, where a stage's shares add up to 1; a stage that can't tell (too few
        results, or all alike) is left out. See `orchestrator.planning.narrowing.importance.importance`.
    """
    found = {stage: _importance(results, stage) for stage in results.stages if stage in results.spaces}
    return {stage: shares for stage, shares in found.items() if shares}


def _stage(results: Results, stage: str) -> StageResults:
    from orchestrator.planning.narrowing.evidence import StageResults

    rows = _measured(results, stage)
    settings = [{"setting": str(setting)} for setting in rows["setting_id"]]
    # The scale does not enter into an agreement.
    return StageResults(name=stage, scale=1.0, observations=tuple(_observations(results, rows, settings)))


def _importance(results: Results, stage: str) -> dict[str, float]:
    from orchestrator.planning.narrowing.importance import importance
    from orchestrator.space import from_json

    rows = _measured(results, stage)
    space = from_json({"parameters": results.spaces[stage]})
    present = [p for p in space if f"param.{p.name}" in rows.columns]
    columns = {p.name: rows[f"param.{p.name}"].astype(object).tolist() for p in present}
    settings = [
        # What is missing was not active in that setting.
        {name: values[row] for name, values in columns.items() if not _missing(values[row])}
        for row in range(len(rows))
    ]
    with warnings.catch_warnings():
        # Optuna has a progress bar, which is not shown here, and in notebooks it misses ipywidgets.
        warnings.filterwarnings("ignore", message="IProgress not found")
        return importance(present, _observations(results, rows, settings))


def _measured(results: Results, stage: str) -> pd.DataFrame:
    rows = results.at(stage)
    measured: pd.DataFrame = rows[rows["state"] != FAILED]
    return measured


def _missing(value: object) -> bool:
    return value is None or value != value


def _observations(
    results: Results, rows: pd.DataFrame, settings: Sequence[Mapping[str, Any]]
) -> list[Observation]:
    """Return trials as what planning works with: larger is better, what diverged is the worst."""
    from orchestrator.planning.sampling.observation import Observation

    sign = 1 if results.mode == "max" else -1
    return [
        Observation(
            params, sign * float(value) if math.isfinite(value) else -math.inf, settled=state != PRUNED
        )
        for params, value, state in zip(settings, rows["objective"], rows["state"], strict=True)
    ]
