"""What combining the checkpoints of the final runs is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.plots.theme import COLOURS, blank, finished, plain, significant
from orchestrator.results.ensemble_parts import (
    KINDS,
    METHODS,
    figure,
    kinds,
    mappings,
    pair,
    part,
    score_name,
)
from orchestrator.results.load import Results

TITLE = "Ensemble"
MOST_MEMBERS = 10
GAINS = {
    "over_best_single": "ensemble over the best single",
    "over_average_member": "ensemble over the average member",
    "soup_over_best_single": "soup over the best single",
    "student_over_labels": "student over labels alone",
    "student_below_ensemble": "ensemble over the student",
}


@dataclass(frozen=True, slots=True)
class _Row:
    """A measured value with its interval, None where that is not known."""

    name: str
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class _Panel:
    """A panel: what is drawn, whether a line stands at 0, and what its axis is like."""

    title: str
    trace: go.Scatter | go.Bar | None
    zero: bool = False
    axis: Mapping[str, Any] = field(default_factory=dict)


def ensemble(results: Results, columns: int = 2) -> go.Figure:
    """Draw what the ensemble step measured, in up to four panels, each where there is something to draw.

    Scores on the held-out test data and what was gained, each with its 95% interval; which kinds of members
    may differ; the shares of the members. Validation data chose, never these.

    Args:
        results: of the sweep.
        columns: how many panels stand side by side.
    """
    found = results.ensemble
    if not found:
        return blank(TITLE, "No ensemble yet.")
    panels = [
        _Panel(f"Held-out test, {plain(score_name(found), 24)}", _dots(_scores(found), COLOURS[0])),
        _Panel("Gains on test data", _dots(_gains(found), COLOURS[2]), zero=True),
        _Panel("Gain by what may differ", _dots(_ablation(found), COLOURS[1]), zero=True),
        _Panel("Shares of the members", _members(found), axis={"tickformat": ".0%", "rangemode": "tozero"}),
    ]
    panels = [panel for panel in panels if panel.trace is not None]
    if not panels:
        return blank(TITLE, "The result of the ensemble step holds nothing to draw.")
    columns = max(1, min(columns, len(panels)))
    rows = math.ceil(len(panels) / columns)
    made = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[panel.title for panel in panels],
        horizontal_spacing=0.24,
        vertical_spacing=0.3 / rows,
    )
    for number, panel in enumerate(panels):
        row, col = number // columns + 1, number % columns + 1
        made.add_trace(panel.trace, row=row, col=col)
        made.update_xaxes(**panel.axis, row=row, col=col)
        if panel.zero:
            made.add_vline(x=0, line={"color": "rgba(128,128,128,.6)", "dash": "dot"}, row=row, col=col)
    made.update_yaxes(autorange="reversed", dtick=1)
    made.update_layout(showlegend=False)
    return finished(made, TITLE, height=110 + 270 * rows)


def _scores(found: Mapping[str, Any]) -> list[_Row]:
    tested, ends, methods = part(found, "test"), part(found, "test_intervals"), part(found, "methods")
    rows = [_row(name, tested.get(key), *pair(ends.get(key))) for key, name in KINDS.items()]
    # The method that was chosen is the ensemble, which is there already.
    others = {key: name for key, name in METHODS.items() if key != found.get("combine")}
    for key, name in others.items():
        one = part(methods, key)
        rows.append(_row(name, one.get("value"), one.get("low"), one.get("high")))
    return [row for row in rows if row is not None]


def _gains(found: Mapping[str, Any]) -> list[_Row]:
    gains = {name: part(part(found, "gains"), key) for key, name in GAINS.items()}
    rows = [_row(name, one.get("value"), one.get("low"), one.get("high")) for name, one in gains.items()]
    return [row for row in rows if row is not None]


def _ablation(found: Mapping[str, Any]) -> list[_Row]:
    rows = [
        _row(kinds(one), one.get("gain"), one.get("gain_low"), one.get("gain_high"))
        for one in mappings(found.get("ablation"))
    ]
    return [row for row in rows if row is not None]


def _row(name: str, value: object, low: object, high: object) -> _Row | None:
    measured = figure(value)
    return None if measured is None else _Row(name, measured, figure(low), figure(high))


def _dots(rows: Sequence[_Row], colour: str) -> go.Scatter | None:
    """Return values as points with their intervals; None where there are none."""
    if not rows:
        return None
    return go.Scatter(
        x=[significant(row.value) for row in rows],
        y=[_folded(row.name) for row in rows],
        mode="markers",
        marker={"color": colour, "size": 9},
        error_x={
            "array": [0.0 if row.high is None else max(0.0, row.high - row.value) for row in rows],
            "arrayminus": [0.0 if row.low is None else max(0.0, row.value - row.low) for row in rows],
            "color": colour,
            "thickness": 1.5,
        },
        hovertemplate="%{y}: %{x:.5g}<extra></extra>",
    )


def _members(found: Mapping[str, Any]) -> go.Bar | None:
    """Return the members' shares as bars, the heaviest first; those of many that weigh least are one."""
    members = [(one, max(0.0, figure(one.get("weight")) or 0.0)) for one in mappings(found.get("members"))]
    total = sum(weight for _, weight in members)
    if not total:
        return None
    members.sort(key=lambda member: -member[1])
    shown = [
        (
            f"{place + 1}. {plain(one.get('trial_id', '?'), 18)} @ {plain(one.get('step', '?'), 8)}",
            weight / total,
        )
        for place, (one, weight) in enumerate(members[:MOST_MEMBERS])
    ]
    if rest := members[MOST_MEMBERS:]:
        shown.append((f"{len(rest)} more", sum(weight for _, weight in rest) / total))
    return go.Bar(
        y=[name for name, _ in shown],
        x=[round(share, 4) for _, share in shown],
        orientation="h",
        marker_color=COLOURS[4],
        hovertemplate="%{y}: %{x:.1%}<extra></extra>",
    )


def _folded(name: str) -> str:
    """Return a name for an axis on short lines: two of the kinds of members, or one of what is compared."""
    named = [plain(one, 34) for one in name.split(", ")]
    lines = ",<br>".join(", ".join(named[at : at + 2]) for at in range(0, len(named), 2))
    return lines.replace(" over ", "<br>over ")
