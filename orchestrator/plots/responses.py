"""The objective against each parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from orchestrator.plots.axis import Axis, assembled, axes, columns, grid, height, hover, inside, points
from orchestrator.plots.theme import COLOURS, NO_PARAMETERS, blank, numbers, plain
from orchestrator.results.analysis import objective_range
from orchestrator.results.load import Results

TITLE = "Objective by parameter"


def slices(results: Results, parameters: Sequence[str] | None = None) -> go.Figure:
    """Draw the objective against each parameter, one colour for each stage."""
    names = list(results.parameters if parameters is None else parameters)
    if not names:
        return blank(TITLE, NO_PARAMETERS)
    return _drawn(results, names, points(results), objective_range(results), {})


def slices_apart(results: Results) -> dict[str, go.Figure]:
    """Return for each parameter what `slices` draws of it alone, without a key, which all of them share.

    Which trials are drawn is chosen once.
    """
    rows, limits, bare = points(results), objective_range(results), {"showlegend": False, "margin": {"t": 12}}
    return {name: _drawn(results, [name], rows, limits, bare) for name in results.parameters}


def _drawn(
    results: Results,
    names: Sequence[str],
    stages: Mapping[str, pd.DataFrame],
    limits: list[float] | None,
    extra: dict[str, Any],
) -> go.Figure:
    traces, layout = [], grid(names) | extra
    for number, name in enumerate(names):
        axis, (across, up) = Axis(results, name), axes(number)
        traces += [
            _points(stage, order, axis, rows) | inside(number) | {"showlegend": number == 0}
            for order, (stage, rows) in enumerate(stages.items())
        ]
        said = {"title": {"text": plain(results.metric)}} if number % columns(names) == 0 else {}
        layout[across] = layout.get(across, {}) | axis.layout
        layout[up] = layout.get(up, {}) | {"range": limits} | said
    return assembled(traces, layout, None if len(names) == 1 else TITLE, height(names))


def _points(stage: str, order: int, axis: Axis, all_rows: pd.DataFrame) -> dict[str, Any]:
    """Return one stage's trials."""
    rows = axis.there(all_rows)
    return {
        "type": "scatter",
        "x": axis.positions(rows, jitter=0.5),
        "y": numbers(rows["objective"]),
        "mode": "markers",
        "name": plain(stage),
        "legendgroup": str(order),
        "text": hover(rows, axis),
        "marker": {"color": COLOURS[order % len(COLOURS)], "size": 6, "opacity": 0.75},
        "hovertemplate": "%{text}<br>%{y:.5g}<extra></extra>",
    }
