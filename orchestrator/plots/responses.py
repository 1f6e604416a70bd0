"""The objective against each parameter."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from orchestrator.plots.axis import MOST_POINTS, Axis, grid, height, hover, place
from orchestrator.plots.theme import COLOURS, NO_PARAMETERS, blank, finished, numbers, plain
from orchestrator.results.analysis import objective_range, shown
from orchestrator.results.load import Results

TITLE = "Objective by parameter"


def slices(results: Results, parameters: Sequence[str] | None = None) -> go.Figure:
    """Draw the objective against each parameter, one colour for each stage."""
    names = list(results.parameters if parameters is None else parameters)
    if not names:
        return blank(TITLE, NO_PARAMETERS)
    figure, stages, limits = grid(names), shown(results, MOST_POINTS), objective_range(results)
    for number, name in enumerate(names):
        axis, where = Axis(results, name), place(names, number)
        for order, (stage, all_rows) in enumerate(stages.items()):
            rows = axis.there(all_rows)
            trace = go.Scatter(
                x=axis.positions(rows, jitter=0.5),
                y=numbers(rows["objective"]),
                mode="markers",
                name=plain(stage),
                legendgroup=str(order),
                showlegend=number == 0,
                text=hover(rows, axis),
                marker={"color": COLOURS[order % len(COLOURS)], "size": 6, "opacity": 0.75},
                hovertemplate="%{text}<br>%{y:.5g}<extra></extra>",
            )
            figure.add_trace(trace, **where)
        figure.update_xaxes(**axis.layout, **where)
        figure.update_yaxes(range=limits, **where)
    figure.update_yaxes(title_text=plain(results.metric), **({"col": 1} if len(names) > 1 else {}))
    return finished(figure, None if len(names) == 1 else TITLE, height=height(names))
