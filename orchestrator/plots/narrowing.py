"""How each parameter's range narrows over the stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from orchestrator.plots.axis import Axis, assembled, axes, grid, height, hover, inside, points, spread
from orchestrator.plots.theme import NO_PARAMETERS, SCALE, blank, numbers, plain
from orchestrator.results.load import Results

TITLE = "Ranges over the stages"


def ranges(results: Results, parameters: Sequence[str] | None = None) -> go.Figure:
    """Draw how each parameter's range narrows over the stages, with the trials, coloured by objective."""
    names = list(results.parameters if parameters is None else parameters)
    if not names:
        return blank(TITLE, NO_PARAMETERS)
    return _drawn(results, names, points(results))


def ranges_apart(results: Results) -> dict[str, go.Figure]:
    """Return for each parameter what `ranges` draws of it alone; which trials are drawn is chosen once."""
    rows = points(results)
    return {name: _drawn(results, [name], rows) for name in results.parameters}


def _drawn(results: Results, names: Sequence[str], rows: Mapping[str, pd.DataFrame]) -> go.Figure:
    traces, layout = [], grid(names)
    stages = {
        "tickvals": list(range(len(results.stages))),
        "range": [-0.6, len(results.stages) - 0.4],
        "ticktext": [plain(stage, 16) for stage in results.stages],
    }
    for number, name in enumerate(names):
        axis, (across, up) = Axis(results, name), axes(number)
        traces += [
            trace | inside(number)
            for trace in [_boxes(results, name, axis), *_points_over_stages(rows, axis)]
        ]
        layout[across] = layout.get(across, {}) | stages
        layout[up] = layout.get(up, {}) | axis.layout
    layout |= {"coloraxis": _coloraxis(len(names) > 1), "showlegend": False}
    if len(names) == 1:
        layout["margin"] = {"t": 12, "b": 32}
    return assembled(traces, layout, None if len(names) == 1 else TITLE, height(names))


def _boxes(results: Results, name: str, axis: Axis) -> dict[str, Any]:
    """Return one rectangle for each stage's range, or one for each value that a choice still has."""
    x: list[float | None] = []
    y: list[float | None] = []
    for order, stage in enumerate(results.stages):
        spec = results.spaces.get(stage, {}).get(name)
        if spec is None:
            continue
        if spec["kind"] == "choice":
            bands = [(axis.place(v) - 0.4, axis.place(v) + 0.4) for v in spec["values"]]
        else:
            bands = [(float(spec["low"]), float(spec["high"]))]
        for low, high in bands:
            x += [order - 0.4, order + 0.4, order + 0.4, order - 0.4, order - 0.4, None]
            y += [low, low, high, high, low, None]
    return {
        "type": "scatter",
        "x": x,
        "y": y,
        "fill": "toself",
        "mode": "lines",
        "hoverinfo": "skip",
        "fillcolor": "rgba(128,140,160,.18)",
        "line": {"color": "rgba(128,140,160,.7)", "width": 1},
    }


def _points_over_stages(stages: Mapping[str, pd.DataFrame], axis: Axis) -> list[dict[str, Any]]:
    traces = []
    for order, all_rows in enumerate(stages.values()):
        rows = axis.there(all_rows)
        traces.append(
            {
                "type": "scatter",
                "x": numbers(order + 0.7 * shift for shift in spread(len(rows))),
                "y": axis.positions(rows, jitter=0.5),
                "mode": "markers",
                "text": hover(rows, axis),
                "customdata": numbers(rows["objective"]),
                "hovertemplate": "%{text}<br>%{customdata:.5g}<extra></extra>",
                "marker": {
                    "color": numbers(rows["rank"]),
                    "coloraxis": "coloraxis",
                    "size": 6,
                    "line": {"width": 0.5, "color": "rgba(128,128,128,.6)"},
                },
            }
        )
    return traces


def _coloraxis(scale: bool) -> dict[str, Any]:
    bar = {
        "title": {"text": "rank in<br>its stage"},
        "tickvals": [0.02, 1],
        "ticktext": ["worst", "best"],
        "thickness": 10,
        "len": 0.8,
        "outlinewidth": 0,
    }
    return {"colorscale": SCALE, "cmin": 0, "cmax": 1, "colorbar": bar, "showscale": scale}
