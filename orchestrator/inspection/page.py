"""What was found as one self-contained page with pictures and plots; look and rules are the report's."""

from __future__ import annotations

import html
import json
import math
import secrets
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from orchestrator.inspection import page_samples, pictures
from orchestrator.inspection.columns import Column
from orchestrator.inspection.duplicates import PARTS
from orchestrator.inspection.examine import Inspection
from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING
from orchestrator.inspection.raw import IMAGES, TABLE
from orchestrator.plots import theme
from orchestrator.report.markup import Markup, script_json, section, table
from orchestrator.report.markup import plot as drawn
from orchestrator.report.shell import PAGE, SCRIPT, STYLE, plotly_source
from orchestrator.sweep.files import write_atomic

MOST_COLUMNS, MOST_PLOTS = 200, 12
_COLOURS = {PROBLEM: "#d1495b", WARNING: "#d98a1f", NOTE: "#4e79a7"}

EXTRA = """
.finding { border-left: 4px solid var(--mark); padding: 2px 0 2px 12px; margin: 12px 0; }
.finding p { margin: 0; } .finding b { color: var(--mark); font-size: 12.5px; text-transform: uppercase; }
figure { margin: 0; display: inline-block; vertical-align: top; max-width: 200px; }
figure img { display: block; image-rendering: pixelated; border-radius: 3px; max-width: 100%; }
figcaption { font-size: 12px; color: var(--dim); overflow-wrap: anywhere;
  line-height: 1.3; padding-top: 3px; }
.pictures { display: flex; flex-wrap: wrap; gap: 14px; align-items: flex-start; }
.pictures figure { max-width: 120px; }
.group { border: 1px solid var(--line); border-radius: 8px; padding: 8px;
  display: flex; gap: 8px; }
.rows { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 6px 14px;
  align-items: center; }
.rows img { max-width: 100%; image-rendering: pixelated; }
"""


def write_page(found: Inspection, path: Path) -> None:
    """Write the page of an inspection."""
    write_atomic(path, page(found))


def page(found: Inspection) -> str:
    """Return the page: it asks for nothing from outside, and every string of the data is escaped."""
    ends = pictures.limits(found.inputs) if found.raw.kind == IMAGES else (0.0, 1.0)
    place = {int(number): k for k, number in enumerate(found.ids)}
    sections = [
        section("Findings", _findings(found)),
        section("Labels", _labels(found)),
        section("Samples", page_samples.samples(found, ends)),
        section("Labels in doubt", page_samples.suspects(found, ends)),
        section("Copies", page_samples.copies(found, ends, place)),
        section("Far from all others", page_samples.outliers(found, ends, place)),
        section("Columns" if found.raw.kind != IMAGES else "Channels", _columns(found)),
    ]
    templates = {"light": theme.template(dark=False), "dark": theme.template(dark=True)}
    return PAGE.format(
        nonce=secrets.token_urlsafe(16),
        title=html.escape(f"{found.name}: a look at the data"),
        style=STYLE + EXTRA,
        header=_header(found),
        body="\n".join(each for each in sections if each),
        templates=script_json(json.dumps(templates)),
        plotly=plotly_source(),
        script=SCRIPT,
    )


def _header(found: Inspection) -> str:
    raw = found.raw
    sides = np.bincount(found.parts, minlength=3)
    tiles = [
        ("samples", f"{raw.count:,}"),
        (f"of a sample ({raw.kind})", " × ".join(str(k) for k in raw.shape)),
    ]
    if found.balance:
        tiles.append(("classes", f"{len(found.balance.names):,}"))
    tiles.append((", ".join(PARTS), " · ".join(f"{count:,}" for count in sides)))
    tiles.append(("looked at closely", f"{len(found.ids):,}"))
    blocks = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>" for k, v in tiles)
    how = (
        ""
        if len(found.ids) == raw.count
        else " The samples looked at closely are chosen by a hash of their number."
    )
    return (
        f"<h1>{html.escape(found.name)}</h1><p>The data as they are, before any transform.{how}</p>"
        f'<div class="tiles">{blocks}</div>'
    )


def _findings(found: Inspection) -> str:
    blocks = [
        f'<div class="finding" style="--mark:{_COLOURS[each.level]}"><b>{each.level}</b> '
        f"{html.escape(each.text[:1].upper() + each.text[1:])}<p>{html.escape(each.advice)}</p></div>"
        for each in found.findings
    ]
    return "".join(blocks) or "<p>Nothing to remark.</p>"


def _labels(found: Inspection) -> str:
    if found.balance and found.balance.names:
        pairs = sorted(zip(found.balance.counts, found.balance.names, strict=True), key=lambda pair: -pair[0])
        names = [theme.plain(name, 24) for _, name in pairs]
        bars = go.Figure(
            go.Bar(x=list(range(len(names))), y=[count for count, _ in pairs], marker_color=theme.COLOURS[0])
        )
        bars.update_layout(height=280, margin={"t": 12}, yaxis_title="samples", showlegend=False)
        bars.update_xaxes(tickvals=list(range(len(names))), ticktext=names)
        if len(names) > 60:
            bars.update_xaxes(showticklabels=False, title_text="classes, by size")
        return drawn(bars)
    values = found.values
    if values is None or len(values.edges) < 2 or math.isnan(values.low):
        return ""
    middle = [(a + b) / 2 for a, b in zip(values.edges, values.edges[1:], strict=False)]
    bars = go.Figure(
        go.Bar(x=middle[: len(values.histogram)], y=list(values.histogram), marker_color=theme.COLOURS[0])
    )
    bars.update_layout(
        height=280, margin={"t": 12}, bargap=0.02, xaxis_title="value to predict", yaxis_title="samples"
    )
    return drawn(bars)


def _columns(found: Inspection) -> str:
    if not found.columns:
        return ""
    head = [
        "column",
        "gaps",
        "infinite",
        "values",
        "lowest",
        "median",
        "highest",
        "mean",
        "deviation",
        "skew",
        "try",
    ]
    rows = [_column(each) for each in found.columns[:MOST_COLUMNS]]
    more = len(found.columns) - MOST_COLUMNS
    text = f"<p>{more:,} more.</p>" if more > 0 else ""
    return table(head, rows) + text + _histograms(found)


def _column(each: Column) -> list[object]:
    advice = (
        "leave out"
        if each.constant
        else f"{each.transform} (skew {each.skew_after:.2g})"
        if each.transform
        else ""
    )
    numbers = (each.low, each.median, each.high, each.mean, each.deviation, each.skew)
    return [
        Markup(f"<b>{html.escape(each.name)}</b>"),
        each.missing,
        each.infinite,
        each.distinct,
        *numbers,
        advice,
    ]


def _histograms(found: Inspection) -> str:
    """Draw the distributions, those that a transform would help first."""
    order: Sequence[int] = sorted(
        range(len(found.columns)),
        key=lambda k: (not found.columns[k].transform, -abs(found.columns[k].skew or 0)),
    )
    axis = {TABLE: 1, IMAGES: 1}.get(found.raw.kind, found.inputs.ndim - 1)
    cards = []
    for k in order[:MOST_PLOTS]:
        column = found.columns[k]
        values = np.take(found.inputs, k, axis=axis).astype(np.float64).reshape(-1)
        values = values[np.isfinite(values)]
        if column.constant or not len(values):
            continue
        counts, edges = np.histogram(values, bins=40)
        plot = go.Figure(go.Bar(x=(edges[:-1] + edges[1:]) / 2, y=counts, marker_color=theme.COLOURS[0]))
        title = theme.plain(column.name, 40) + (f": try {column.transform}" if column.transform else "")
        plot.update_layout(height=220, title_text=title, bargap=0.02, showlegend=False)
        cards.append(f'<div class="card">{drawn(plot)}</div>')
    return f'<div class="grid">{"".join(cards)}</div>' if cards else ""
