"""How the objective grows with the training data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from orchestrator.plots.ladder import scale_text
from orchestrator.plots.theme import COLOURS, blank, faded, finished, plain, significant
from orchestrator.results.load import Results
from orchestrator.sweep.directory import TRAINED

if TYPE_CHECKING:
    from orchestrator.results.more_data import MoreData

HOLLOW, SOLID = "circle-open", "circle"
TITLE = "Best objective by training samples"


def more_data(results: Results, forecast: MoreData | None = None) -> go.Figure:
    """Draw the best objective of each stage against its training samples, on a logarithmic axis.

    Args:
        results: of the sweep.
        forecast: what `orchestrator.results.more_data.more_data` found; where it tells anything its curve is
            drawn, with the band that 90% of what the law allows lies in, and the stages that it leaves out,
            because they pose another problem, are hollow.
    """
    figure = go.Figure()
    if forecast is not None and forecast.known and forecast.samples:
        _add_law(figure, results, forecast)
    for order, phase in enumerate(phase for phase in results.plan["phases"] if phase["kind"] in TRAINED):
        best = results.best(1, phase["name"])
        if best.empty or not phase.get("samples"):
            continue
        name = plain(phase["name"], 16)
        apart = "" if forecast is None else forecast.left_out.get(phase["name"], "")
        figure.add_scatter(
            x=[phase["samples"]],
            y=[float(best["objective"].iloc[0])],
            name=name,
            text=[f"{name}: {scale_text(phase)}" + (f"<br>not compared: {plain(apart)}" if apart else "")],
            mode="markers+text",
            texttemplate=f"{classes:g} classes" if (classes := phase["scale"].get("classes")) else " ",
            textposition="top center",
            cliponaxis=False,
            marker={"size": 11, "color": COLOURS[order % len(COLOURS)], "symbol": HOLLOW if apart else SOLID},
            hovertemplate="%{text}<br>%{x:,} samples: %{y:.5g}<extra></extra>",
        )
    if not figure.data:
        return blank(TITLE, "No stage has both results and a known number of training samples.")
    most = max(max(trace.x) for trace in figure.data)
    ticks = [times * 10**power for power in range(math.ceil(math.log10(most)) + 1) for times in (1, 2, 5)]
    figure.update_xaxes(type="log", title_text="training samples", tickvals=ticks, tickformat=",d")
    figure.update_yaxes(title_text=f"best {plain(results.metric, 32)}")
    return finished(figure, TITLE, height=340)


def _add_law(figure: go.Figure, results: Results, forecast: MoreData) -> None:
    """Draw the law that fits best, and between which values all laws lie that the stages don't contradict."""
    colour = COLOURS[5]
    samples = [significant(size) for size in forecast.samples]
    figure.add_scatter(
        x=[*samples, *reversed(samples)],
        y=[*_objective(results, forecast.low), *reversed(_objective(results, forecast.high))],
        fill="toself",
        mode="lines",
        line={"width": 0},
        fillcolor=faded(colour, 0.18),
        hoverinfo="skip",
        showlegend=False,
    )
    figure.add_scatter(
        x=samples,
        y=_objective(results, forecast.middle),
        name="power law, 90%",
        mode="lines",
        line={"color": colour, "dash": "dot"},
        hovertemplate="%{x:,.0f} samples: %{y:.5g} by the law<extra></extra>",
    )


def _objective(results: Results, errors: Sequence[float]) -> list[float]:
    """Return errors as values of the metric, which counts what is right where it is to be high."""
    return [significant(1 - error if results.mode == "max" else error) for error in errors]
