"""The look of all figures: colours that are seen on light and on dark, and safe texts.

Backgrounds are transparent; `template` gives the rest of either look. Names and values of the user's are
escaped: Plotly reads a part of HTML in its texts.
"""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go

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


def finished(figure: go.Figure, title: str | None, height: int) -> go.Figure:
    """Give a figure the light look, a title and a height in pixels."""
    figure.update_layout(template=template(dark=False), height=height, title_text=title)
    return figure
