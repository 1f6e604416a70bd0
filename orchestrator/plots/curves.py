"""What trials reported on their way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.plots.theme import COLOURS, finished, plain, significant
from orchestrator.results.analysis import thinned
from orchestrator.results.load import Results

MOST_CURVES = 60  # of one stage
FEW_STEPS = 6


def learning_curves(results: Results, stages: Sequence[str] | None = None) -> go.Figure:
    """Draw what the trials of each stage reported of the sweep's metric; the best trial stands out."""
    names = list(results.stages if stages is None else stages)
    figure = make_subplots(
        rows=1,
        cols=max(1, len(names)),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[plain(name) for name in names] if len(names) > 1 else None,
    )
    curves = results.curves[results.curves["metric"] == results.metric]
    for number, stage in enumerate(names):
        rows = curves[curves["stage"] == stage]
        best = results.best(1, stage)["trial_id"].tolist()
        chosen = thinned(results, stage, MOST_CURVES)["trial_id"].tolist()
        others = rows[rows["trial_id"].isin(chosen or rows["trial_id"].unique()[:MOST_CURVES])]
        colour = COLOURS[results.stages.index(stage) % len(COLOURS)]
        for part, line in (
            (others[~others["trial_id"].isin(best)], {"color": colour, "width": 1}),
            (rows[rows["trial_id"].isin(best)], {"color": colour, "width": 3.5}),
        ):
            opacity = 0.45 if line["width"] == 1 else 1.0
            figure.add_trace(_lines(part, line, opacity), row=1, col=number + 1)
        # Steps are whole, which the ticks of few would not be.
        if rows["step"].max() - rows["step"].min() < FEW_STEPS:
            figure.update_xaxes(dtick=1, row=1, col=number + 1)
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text=plain(results.metric), col=1)
    figure.update_layout(showlegend=False)
    return finished(figure, plain(names[0]) if len(names) == 1 else "Learning curves", height=340)


def _lines(rows: pd.DataFrame, line: Mapping[str, Any], opacity: float) -> go.Scatter:
    """Return all trials' curves as one trace, parted by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial, part in rows.groupby("trial_id", sort=False):
        x += [*part["step"].tolist(), None]
        y += [significant(value) if math.isfinite(value) else None for value in part["value"]] + [None]
        text += [plain(trial)] * (len(part) + 1)
    return go.Scatter(
        x=x,
        y=y,
        text=text,
        mode="lines",
        line=dict(line),
        opacity=opacity,
        hovertemplate="%{text}<br>step %{x}: %{y:.5g}<extra></extra>",
    )
