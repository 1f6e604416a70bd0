"""Plotly figures of a sweep: functions from results to figures, for notebooks and for the report.

Backgrounds are transparent and the colours are chosen to be seen on light and on dark; `template` gives the
rest of either look. Names and values of the user's are escaped (Plotly reads a part of HTML in its texts),
and the points of very large sweeps are thinned: the best are always among those that are drawn.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.results.analysis import matched, objective_range, planned_trials, ranks, spearman, thinned
from orchestrator.results.load import Results
from orchestrator.results.schema import text as storable

COLOURS = ("#4e79a7", "#f28e2b", "#2ca089", "#d1495b", "#9467bd", "#a07855")
STATES = {
    "completed": "#2ca089",
    "pruned": "#4e79a7",
    "diverged": "#f28e2b",
    "failed": "#d1495b",
    "not yet": "rgba(128,128,128,.25)",
}
# Viridis without its ends, which vanish on dark and on light.
SCALE = [[0.0, "#5a4fa0"], [0.35, "#3a7ca5"], [0.7, "#2ba57a"], [1.0, "#9bc53d"]]
MOST_POINTS, MOST_CURVES = 1500, 60  # of one stage


def template(dark: bool) -> dict[str, Any]:
    """Return the Plotly template of the light or of the dark look."""
    ink, grid = ("#d7dae0", "rgba(255,255,255,.12)") if dark else ("#22262e", "rgba(0,0,0,.10)")
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zeroline": False,
        "automargin": True,
        "title": {"standoff": 8},
    }
    return {
        "layout": {
            "font": {"color": ink, "size": 12, "family": "system-ui, -apple-system, 'Segoe UI', sans-serif"},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "margin": {"l": 56, "r": 16, "t": 48, "b": 48},
            "title": {"font": {"size": 14}, "x": 0, "xref": "paper", "xanchor": "left"},
            "legend": {
                "orientation": "h",
                "y": 1.0,
                "yanchor": "bottom",
                "x": 1.0,
                "xanchor": "right",
                "traceorder": "normal",
            },
            "hoverlabel": {"align": "left"},
            "colorway": list(COLOURS),
        }
    }


def plain(value: object, most: int = 48) -> str:
    """Return any string for a text of Plotly's: escaped, on one line, not too long."""
    text = " ".join(str(value).split())
    escaped = html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)
    return escaped.replace("$", "&#36;")  # between two of them Plotly looks for TeX


def funnel(results: Results) -> go.Figure:
    """Draw for each stage how many trials are planned, and how those that ended did."""
    phases = [phase for phase in results.plan["phases"] if phase["name"] in results.stages]
    labels = [f"<b>{plain(phase['name'], 24)}</b><br>{scale_text(phase)}" for phase in phases]
    counts = results.trials.groupby(["stage", "state"], observed=False).size()
    planned = planned_trials(results)
    figure = go.Figure()
    done = np.zeros(len(phases))
    for state, colour in STATES.items():
        if state == "not yet":
            number = np.asarray([planned[phase["name"]] for phase in phases]) - done
        else:
            number = np.asarray([counts.get((phase["name"], state), 0) for phase in phases])
        done += number
        if number.max(initial=0) > 0:
            figure.add_bar(
                y=labels,
                x=number.clip(min=0),
                name=state,
                orientation="h",
                marker_color=colour,
                text=[f"{n:.0f}" if n else "" for n in number],
                textangle=0,
            )
    figure.update_layout(barmode="stack", xaxis_title="trials", yaxis_autorange="reversed")
    return _finished(figure, "Trials of each stage", height=120 + 62 * max(1, len(phases)))


def scale_text(phase: Mapping[str, Any]) -> str:
    """Return a phase's scale in words: "10% data, 2 classes, 3 epochs"."""
    scale, parts = phase["scale"], []
    if (data := scale.get("data")) is not None:
        parts.append(f"{100 * data:.3g}% data")
    parts += [f"{scale[key]:g} {key}" for key in ("classes", "epochs") if scale.get(key) is not None]
    return ", ".join(parts)


def narrowing(results: Results, parameters: Sequence[str] | None = None) -> go.Figure:
    """Draw how each parameter's range narrows over the stages, with the trials, coloured by objective."""
    names = list(results.parameters if parameters is None else parameters)
    figure = _grid(names)
    for number, name in enumerate(names):
        row, col = number // _columns(names) + 1, number % _columns(names) + 1
        axis = _Axis(results, name)
        for trace in [*_ranges(results, name, axis), *_points_over_stages(results, name, axis)]:
            figure.add_trace(trace, row=row, col=col)
        figure.update_xaxes(
            tickvals=list(range(len(results.stages))),
            range=[-0.6, len(results.stages) - 0.4],
            ticktext=[plain(stage, 16) for stage in results.stages],
            row=row,
            col=col,
        )
        figure.update_yaxes(**axis.layout, row=row, col=col)
    figure.update_layout(coloraxis=_coloraxis(len(names) > 1), showlegend=False)
    if len(names) == 1:
        figure.update_layout(margin={"t": 12, "b": 32})
    return _finished(figure, None if len(names) == 1 else "Ranges over the stages", height=_height(names))


def slices(results: Results, parameters: Sequence[str] | None = None) -> go.Figure:
    """Draw the objective against each parameter, one colour for each stage."""
    names = list(results.parameters if parameters is None else parameters)
    figure = _grid(names)
    for number, name in enumerate(names):
        row, col = number // _columns(names) + 1, number % _columns(names) + 1
        axis = _Axis(results, name)
        for order, stage in enumerate(results.stages):
            rows = axis.there(thinned(results, stage, MOST_POINTS))
            trace = go.Scatter(
                x=axis.positions(rows, jitter=0.5),
                y=rows["objective"],
                mode="markers",
                name=plain(stage),
                legendgroup=str(order),
                showlegend=number == 0,
                text=_hover(rows, axis),
                marker={"color": COLOURS[order % len(COLOURS)], "size": 6, "opacity": 0.75},
                hovertemplate="%{text}<br>%{y:.5g}<extra></extra>",
            )
            figure.add_trace(trace, row=row, col=col)
        figure.update_xaxes(**axis.layout, row=row, col=col)
        figure.update_yaxes(range=objective_range(results), row=row, col=col)
    figure.update_yaxes(title_text=plain(results.metric), col=1)
    return _finished(figure, None if len(names) == 1 else "Objective by parameter", height=_height(names))


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
    figure.update_xaxes(title_text="step")
    figure.update_yaxes(title_text=plain(results.metric), col=1)
    figure.update_layout(showlegend=False)
    return _finished(figure, plain(names[0]) if len(names) == 1 else "Learning curves", height=340)


def rank_correlation(results: Results, pairs: Sequence[tuple[str, str]] | None = None) -> go.Figure:
    """Draw each promoted setting's objective at one stage against the next, with Spearman's rank correlation.

    By default for all pairs of stages that follow each other.

    Controls are settings that were promoted although they were not among the best: without them only the
    best are compared, and the correlation looks lower than it is.
    """
    pairs = list(zip(results.stages, results.stages[1:], strict=False)) if pairs is None else pairs
    matches = [matched(results, earlier, later) for earlier, later in pairs]
    titles = [
        f"{plain(earlier, 16)} → {plain(later, 16)}: {_agreement(match)}"
        for (earlier, later), match in zip(pairs, matches, strict=True)
    ]
    figure = make_subplots(rows=1, cols=max(1, len(pairs)), subplot_titles=titles, horizontal_spacing=0.09)
    shown: set[str] = set()
    for number, ((earlier, later), match) in enumerate(zip(pairs, matches, strict=True)):
        for origin, symbol in (("survivor", "circle"), ("control", "diamond-open")):
            rows = match[(match["origin"] == "control") == (origin == "control")]
            if rows.empty:
                continue
            figure.add_scatter(
                x=rows["before"],
                y=rows["after"],
                mode="markers",
                name=origin,
                showlegend=origin not in shown,
                legendgroup=origin,
                text=[plain(parent) for parent in rows.index],
                marker={"symbol": symbol, "size": 9, "color": COLOURS[0 if origin == "survivor" else 1]},
                hovertemplate="%{text}: %{x:.5g} → %{y:.5g}<extra></extra>",
                row=1,
                col=number + 1,
            )
            shown.add(origin)
        figure.update_xaxes(
            title_text=f"{plain(results.metric)} at {plain(earlier, 16)}", row=1, col=number + 1
        )
        figure.update_yaxes(title_text=f"at {plain(later, 16)}", row=1, col=number + 1)
    return _finished(figure, None, height=360)


class _Axis:
    """How a parameter's values lie on an axis: numbers as they are, choices at 0, 1, 2, ..."""

    def __init__(self, results: Results, name: str) -> None:
        self.column = f"param.{name}"
        specs = [space[name] for space in results.spaces.values() if name in space]
        self.log = any(spec.get("log") for spec in specs)
        self.values: list[str] | None = None
        self.layout: dict[str, Any] = {"title_text": plain(name), "type": "log" if self.log else "linear"}
        if self.log:
            self.layout |= {"exponentformat": "power", "dtick": 1}
        if (
            any(spec["kind"] == "choice" for spec in specs)
            or results.trials[self.column].dtype.kind not in "if"
        ):
            seen = results.trials[self.column].dropna().drop_duplicates().tolist()
            declared = [value for spec in specs for value in spec.get("values", [])]
            keys = [self._key(value) for value in (declared or sorted(seen, key=str))]
            self.values = list(dict.fromkeys([*keys, *map(self._key, seen)]))
            ticks = [plain(value, 18) for value in self.values]
            self.layout |= {"tickvals": list(range(len(ticks))), "ticktext": ticks}

    @staticmethod
    def _key(value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{value:g}"
        return storable(value)

    def place(self, value: Any) -> float:
        return float(value) if self.values is None else float(self.values.index(self._key(value)))

    def there(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Leave out the trials whose settings do not have the parameter."""
        return rows[rows[self.column].notna()]

    def positions(self, rows: pd.DataFrame, jitter: float = 0.0) -> list[float]:
        places = [self.place(value) for value in rows[self.column]]
        if self.values is None or not jitter:
            return places
        shifts = _spread(len(places), 0.754878)
        return [place + shift * jitter for place, shift in zip(places, shifts, strict=True)]


def _ranges(results: Results, name: str, axis: _Axis) -> list[go.Scatter]:
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
    return [
        go.Scatter(
            x=x,
            y=y,
            fill="toself",
            mode="lines",
            hoverinfo="skip",
            fillcolor="rgba(128,140,160,.18)",
            line={"color": "rgba(128,140,160,.7)", "width": 1},
        )
    ]


def _points_over_stages(results: Results, name: str, axis: _Axis) -> list[go.Scatter]:
    traces = []
    for order, stage in enumerate(results.stages):
        rows = axis.there(thinned(results, stage, MOST_POINTS))
        x = [order + 0.7 * shift for shift in _spread(len(rows))]
        traces.append(
            go.Scatter(
                x=x,
                y=axis.positions(rows, jitter=0.5),
                mode="markers",
                text=_hover(rows, axis),
                customdata=rows["objective"],
                hovertemplate="%{text}<br>%{customdata:.5g}<extra></extra>",
                marker={
                    "color": ranks(rows["objective"], results.mode),
                    "coloraxis": "coloraxis",
                    "size": 6,
                    "line": {"width": 0.5, "color": "rgba(128,128,128,.6)"},
                },
            )
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


def _lines(rows: pd.DataFrame, line: Mapping[str, Any], opacity: float) -> go.Scatter:
    """Return all trials' curves as one trace, parted by gaps."""
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for trial, part in rows.groupby("trial_id", sort=False):
        x += [*part["step"].tolist(), None]
        y += [value if math.isfinite(value) else None for value in part["value"]] + [None]
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


def _hover(rows: pd.DataFrame, axis: _Axis) -> list[str]:
    values = (f"{value:.4g}" if isinstance(value, float) else plain(value) for value in rows[axis.column])
    return [f"{plain(trial)}: {value}" for trial, value in zip(rows["trial_id"], values, strict=True)]


def _agreement(match: pd.DataFrame) -> str:
    correlation = spearman(match)
    if correlation is None:
        return f"too few or all the same (n = {len(match)})"
    return f"Spearman {correlation:.2f} (n = {len(match)})"


def _spread(number: int, ratio: float = 0.569840) -> list[float]:
    """Return evenly spread shifts in [-0.5, 0.5); the two ratios together fill a plane."""
    return [round((ratio * i) % 1 - 0.5, 4) for i in range(number)]


def _columns(names: Sequence[str]) -> int:
    return min(3, max(1, len(names)))


def _height(names: Sequence[str]) -> int:
    return 300 if len(names) == 1 else 90 + 270 * max(1, math.ceil(len(names) / 3))


def _grid(names: Sequence[str]) -> go.Figure:
    rows = max(1, math.ceil(len(names) / 3))
    return make_subplots(
        rows=rows, cols=_columns(names), horizontal_spacing=0.1, vertical_spacing=0.28 / rows
    )


def _finished(figure: go.Figure, title: str | None, height: int) -> go.Figure:
    figure.update_layout(template=template(dark=False), height=height, title_text=title)
    return figure
