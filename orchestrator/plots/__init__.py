"""Plotly figures of a sweep: functions from `Results` to a figure, for notebooks and for the report.

Each takes what `orchestrator.load_results` returns, of a sweep that has not begun, runs or is finished, and
loads Plotly when it is first asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.plots.carrying import rank_correlation
    from orchestrator.plots.combining import ensemble
    from orchestrator.plots.curves import learning_curves
    from orchestrator.plots.ladder import funnel
    from orchestrator.plots.narrowing import ranges
    from orchestrator.plots.parallel import parallel_coordinates
    from orchestrator.plots.responses import slices
    from orchestrator.plots.samples import more_data
    from orchestrator.plots.shares import importance
    from orchestrator.plots.spending import cost

# No module has the name of a function: importing it would put the module in the function's place.
_MODULES = {
    "cost": "spending",
    "ensemble": "combining",
    "funnel": "ladder",
    "importance": "shares",
    "learning_curves": "curves",
    "more_data": "samples",
    "parallel_coordinates": "parallel",
    "rank_correlation": "carrying",
    "ranges": "narrowing",
    "slices": "responses",
}

__all__ = [
    "cost",
    "ensemble",
    "funnel",
    "importance",
    "learning_curves",
    "more_data",
    "parallel_coordinates",
    "ranges",
    "rank_correlation",
    "slices",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'orchestrator.plots' has no attribute {name!r}")
    return getattr(import_module(f"orchestrator.plots.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return list(__all__)
