"""Pieces of a page: tables, sections, pictures and figures, with every string escaped that isn't markup."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence

import plotly.graph_objects as go

_PICTURE = re.compile(r"(?:data:image/png;base64,)?([A-Za-z0-9+/]{20,200000}={0,2})")


class Markup(str):
    """Text that is HTML already; anything else is escaped by `cell`."""


def script_json(text: str) -> str:
    """Return JSON that cannot end the script element it stands in."""
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def plot(figure: go.Figure, label: str = "") -> str:
    """Return a figure as the page draws it: its place, and what goes there.

    Args:
        figure: loses its template, because the page sets the light or the dark one.
        label: what it shows, for who can't see it; its title where none is given.
    """
    height = figure.layout.height or 400
    told = label or re.sub(r"<[^>]*>", " ", html.unescape(figure.layout.title.text or "")).strip() or "figure"
    content = figure.to_plotly_json()
    content["layout"].pop("template", None)
    return (
        f'<div class="plot" style="min-height:{height}px" role="img" aria-label="{html.escape(told)}"></div>'
        f'<script type="application/json">{script_json(figure_json(content))}</script>'
    )


def section(title: str, *parts: str, anchor: str = "") -> str:
    """Return a part of the page under its title; nothing where there is nothing to show."""
    content = "".join(parts)
    if not content:
        return ""
    place = f' id="{html.escape(anchor)}"' if anchor else ""
    return f"<section{place}><h2>{html.escape(title)}</h2>{content}</section>"


def folded(summary: str, *parts: str) -> str:
    """Return what opens when its summary is clicked; nothing where there is nothing inside."""
    content = "".join(parts)
    return f"<details><summary>{html.escape(summary)}</summary>{content}</details>" if content else ""


def paragraph(text: str) -> str:
    """Return a text as a paragraph; nothing where it is empty."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def bullets(texts: Iterable[str]) -> str:
    """Return texts as a list; nothing where there are none."""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in texts if text)
    return f"<ul>{items}</ul>" if items else ""


def pictures(images: Iterable[tuple[object, str]]) -> str:
    """Return pictures side by side; what is no PNG in base64 is left out.

    Args:
        images: each in base64, or as a data URI, and what it shows.
    """
    shown = [
        f'<figure><img alt="{html.escape(said)}" src="data:image/png;base64,{found[1]}">'
        f"<figcaption>{html.escape(said)}</figcaption></figure>"
        for image, said in images
        if isinstance(image, str) and (found := _PICTURE.fullmatch(image))
    ]
    return f'<div class="pictures">{"".join(shown)}</div>' if shown else ""


def cell(value: object) -> str:
    """Return a table's cell: markup as it is, numbers short, anything else escaped."""
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return f'<td class="number">{number(value)}</td>'
    text = str(value)
    width = ' class="short"' if len(text) < 28 else ' class="long"' if len(text) > 60 else ""
    return f"<td{width}>{html.escape(text)}</td>"


def number(value: float | None) -> str:
    """Return a number with what matters of it; none, or NaN, is a dash."""
    if value is None or math.isnan(value):
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e6):
        return f"{int(value):,}"
    return f"{value:.4g}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls sideways on a narrow screen; nothing where there are no rows."""
    top = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in head)
    body = "".join(f"<tr>{''.join(cell(value) for value in row)}</tr>" for row in rows)
    if not body:
        return ""
    return (
        '<div class="scroll" tabindex="0"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def figure_json(content: dict[str, object]) -> str:
    """Return a figure's content as JSON, as Plotly writes it: what is not finite is null."""
    from plotly.io.json import to_json_plotly

    text: str = to_json_plotly(content)
    return text
