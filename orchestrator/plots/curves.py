"""What trials reported on their way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from orchestrator.plots.axis import assembled, axes, inside
from orchestrator.plots.theme import COLOURS, plain, significant
from orchestrator.results.analysis import thinned
from orchestrator.results.load import Results

MOST_CURVES = 60  # of one stage
FEW_STEPS = 6


def learning_curves(results: Results, stages: Sequence[str] | None = None) -> go.Figure:
    """Draw what the trials of each stage reported of the sweep's metric; the best trial stands out."""
    names = list(results.stages if stages is None else stages)
    traces, layout = [], _panels(names) | {"showlegend": False}
    own = (results.curves["metric"] == results.metric).to_numpy()
    for number, stage in enumerate(names):
        there = own & (results.curves["stage"] == stage).to_numpy()
        across, up = axes(number)
        traces += [trace | inside(number) for trace in _of_stage(results, stage, there)]
        steps = results.curves["step"].to_numpy()[there]
        # Steps are whole, which the ticks of few would not be.
        whole = {"dtick": 1} if len(steps) and np.ptp(steps) < FEW_STEPS else {}
        layout[across] = layout.get(across, {}) | {"title": {"text": "step"}} | whole
        if number == 0:
            layout[up] = layout.get(up, {}) | {"title": {"text": plain(results.metric)}}
    title = plain(names[0]) if len(names) == 1 else "Learning curves"
    return assembled(traces, layout, title, height=340)


def _panels(names: Sequence[str]) -> dict[str, Any]:
    """Return the layout of one empty panel for each stage."""
    if len(names) == 1:
        return {}
    figure = make_subplots(
        rows=1,
        cols=max(1, len(names)),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[plain(name) for name in names],
    )
    layout: dict[str, Any] = figure.to_plotly_json()["layout"]
    return layout


def _of_stage(results: Results, stage: str, there: NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return some trials of a stage, and the best one.

    Args:
        results: of the sweep.
        stage: its name.
        there: which rows of the curves are of the stage and of the sweep's metric.
    """
    curves, colour = results.curves, COLOURS[results.stages.index(stage) % len(COLOURS)]
    best = results.best(1, stage)["trial_id"].tolist()
    chosen = thinned(results, stage, MOST_CURVES)["trial_id"].tolist()
    chosen = chosen or curves.loc[there, "trial_id"].unique()[:MOST_CURVES].tolist()
    # Of thousands of trials the few that are drawn are found before anything is copied.
    rows = curves[there & curves["trial_id"].isin([*chosen, *best]).to_numpy()]
    is_best = rows["trial_id"].isin(best)
    return [
        _lines(rows[~is_best], {"color": colour, "width": 1}, 0.45),
        _lines(rows[is_best], {"color": colour, "width": 3.5}, 1.0),
    ]


def _lines(rows: pd.DataFrame, line: Mapping[str, Any], opacity: float) -> dict[str, Any]:
    """Return all trials' curves as one trace, parted by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial, part in rows.groupby("trial_id", sort=False):
        x += [*part["step"].tolist(), None]
        y += [significant(value) if math.isfinite(value) else None for value in part["value"]] + [None]
        text += [plain(trial)] * (len(part) + 1)
    return {
        "type": "scatter",
        # Plotly checks each item of a list.
        "x": np.asarray(x, dtype=object),
        "y": np.asarray(y, dtype=object),
        "text": np.asarray(text, dtype=object),
        "mode": "lines",
        "line": dict(line),
        "opacity": opacity,
        "hovertemplate": "%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
    }
