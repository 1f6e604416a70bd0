"""Whole settings: a line for each trial through the values of all its parameters."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from orchestrator.plots.theme import NO_PARAMETERS, blank, finished, plain
from orchestrator.plots.uprights import ABSENT, Upright, of_numbers, of_parameter, of_stages
from orchestrator.results.analysis import ranks, shown, thinned
from orchestrator.results.load import Results

MOST_LINES = 400  # more are a blur; they are thinned evenly by rank, and the best are drawn
# From the worst to the best: from which rank on (1 the best), name, colour, opacity and width of lines.
GROUPS = (
    (0.0, "worse half", "#8a8f99", 0.25, 1.0),
    (0.5, "better half", "#3a7ca5", 0.45, 1.0),
    (0.75, "best quarter", "#2ba57a", 0.75, 1.4),
    (0.95, "best twentieth", "#f28e2b", 1.0, 2.0),
)
GREY = "rgba(128,128,128,.55)"
TITLE = "Whole settings"


def parallel_coordinates(results: Results, stage: str | None = None) -> go.Figure:
    """Draw each trial as a line through the values of its parameters, coloured by its rank in its stage.

    A click on the legend takes a group of ranks away. Lines, and not Plotly's own parallel coordinates: those
    need WebGL and `eval`, which a page that lets no foreign script run forbids, and have no logarithmic axes.

    Args:
        results: of the sweep.
        stage: the stage whose trials are drawn, with the objective as the last axis, the best on top; by
            default all of them, with the stage as the first axis and the rank as the last.

    Raises:
        UserError: there is no such stage.
    """
    title = TITLE if stage is None else f"{TITLE} of {plain(stage, 24)}"
    rows = _ranked(results, stage)
    if rows.empty or not results.parameters:
        return blank(title, "No trials with an objective yet." if rows.empty else NO_PARAMETERS)
    stages = results.stages if stage is None else [stage]
    uprights = [of_parameter(results, name, rows, stages) for name in results.parameters]
    if stage is None:
        seen = [name for name in results.stages if (rows["stage"] == name).any()]
        uprights.insert(0, of_stages(seen, rows["stage"].astype(str)))
        uprights.append(of_numbers("rank in its stage", rows["rank"], (0.0, 1.0)))
    else:
        uprights.append(of_numbers(results.metric, rows["objective"], falling=results.mode == "min"))
    figure = go.Figure([*_lines(uprights, rows), *_scales(uprights)])
    _lay_out(figure, uprights)
    # There are no ticks below these axes.
    return finished(figure, title, height=480).update_layout(legend_y=-0.06)


def _ranked(results: Results, stage: str | None) -> pd.DataFrame:
    """Return the trials that are drawn, with their `rank` among all of their stage, the best ones last."""
    if stage is not None:
        rows = thinned(results, stage, MOST_LINES)
    else:
        rows = pd.concat(list(shown(results, MOST_LINES).values()))
    return rows.assign(rank=ranks(results).loc[rows.index]).sort_values("rank", kind="stable")


def _lines(uprights: Sequence[Upright], rows: pd.DataFrame) -> list[go.Scatter]:
    """Return one trace for each group of ranks, its trials' lines parted by gaps."""
    traces = []
    highest = [*(group[0] for group in GROUPS[1:]), float("inf")]
    for (low, name, colour, opacity, width), high in zip(GROUPS, highest, strict=True):
        members = [place for place, rank in enumerate(rows["rank"]) if low < rank <= high]
        x: list[float | None] = []
        y: list[float | None] = []
        text: list[str] = []
        for member in members:
            trial = plain(rows["trial_id"].iloc[member], 24)
            x += [*range(len(uprights)), None]
            y += [*(upright.places[member] for upright in uprights), None]
            text += [*(f"{trial}: {upright.values[member]}" for upright in uprights), ""]
        if members:
            line = {"color": colour, "width": width}
            # Plotly checks each item of a list.
            drawn = {key: np.asarray(one, dtype=object) for key, one in (("x", x), ("y", y), ("text", text))}
            trace = go.Scatter(**drawn, name=name, mode="lines", line=line, opacity=opacity)
            traces.append(trace.update(hovertemplate="%{text}<extra></extra>"))
    return traces


def _scales(uprights: Sequence[Upright]) -> list[go.Scatter]:
    """Return the axes, and what their ticks say."""
    ticks = [(number, *tick) for number, upright in enumerate(uprights) for tick in upright.ticks]
    bars_x = [end for number in range(len(uprights)) for end in (number, number, None)]
    quiet = {"hoverinfo": "skip", "showlegend": False}
    bars = go.Scatter(x=bars_x, y=[0, 1, None] * len(uprights), mode="lines", line={"color": GREY}, **quiet)
    marks = go.Scatter(
        x=[number for number, _, _ in ticks],
        y=[place for _, place, _ in ticks],
        text=[f" {said}" for _, _, said in ticks],
        mode="markers+text",
        textposition="middle right",
        # The shadow is of the other look's colour, so that texts are read on top of lines.
        textfont={"size": 11, "shadow": "auto"},
        marker={"symbol": "line-ew", "size": 7, "line": {"width": 1.5, "color": GREY}},
        **quiet,
    )
    return [bars, marks]


def _lay_out(figure: go.Figure, uprights: Sequence[Upright]) -> None:
    absent = any(place == ABSENT for upright in uprights for place in upright.places)
    figure.update_xaxes(
        tickvals=list(range(len(uprights))),
        ticktext=[upright.title for upright in uprights],
        side="top",
        showgrid=False,
        showline=False,
        range=[-0.3, len(uprights) - 0.4],
    )
    figure.update_yaxes(visible=False, range=[-0.14 if absent else -0.04, 1.04])
    if absent:
        figure.add_annotation(
            text="below an axis: settings that do not have the parameter",
            x=1, y=0, xref="paper", yref="paper", xanchor="right", yanchor="top", showarrow=False,
        )  # fmt: skip
    figure.update_layout(
        legend={"traceorder": "reversed"},
        margin={"t": 110, "b": 24, "l": 16, "r": 16},
        hovermode="closest",
    )
