"""Pieces of a page: tables, sections and figures, with every string escaped that is not markup already."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go


class Markup(str):
    """Text that is HTML already; anything else is escaped by `cell`."""


def script_json(text: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def plot(figure: go.Figure) -> str:
    """Return a figure as the page draws it: its place, and what goes there."""
    height = figure.layout.height or 400
    figure.update_layout(template=None)  # the page sets the light or the dark one
    return (
        f'<div class="plot" style="min-height:{height}px"></div>'
        f'<script type="application/json">{script_json(figure.to_json())}</script>'
    )


def section(title: str, *parts: str) -> str:
    """Return a part of the page under its title; nothing where there is nothing to show."""
    content = "".join(parts)
    return f"<section><h2>{html.escape(title)}</h2>{content}</section>" if content else ""


def cell(value: object) -> str:
    """Return a table's cell: markup as it is, numbers short, anything else escaped."""
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return f'<td class="number">{number(value)}</td>'
    text = str(value)
    return f"<td{' class=short' if len(text) < 28 else ''}>{html.escape(text)}</td>"


def number(value: float | None) -> str:
    """Return a number with what matters of it; none, or NaN, is a dash."""
    if value is None or math.isnan(value):
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.4g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls sideways on a narrow screen; nothing where there are no rows."""
    top = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    if not body:
        return ""
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
