"""Plotly figures of a sweep: functions from `Results` to figures, for notebooks and for the report."""

from orchestrator.plots.carrying import rank_correlation
from orchestrator.plots.curves import learning_curves
from orchestrator.plots.ladder import funnel
from orchestrator.plots.ranges import ranges
from orchestrator.plots.slices import slices

__all__ = ["funnel", "learning_curves", "ranges", "rank_correlation", "slices"]
