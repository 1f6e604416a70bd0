"""The look of all figures: colours that are seen on light and on dark, and safe texts.

Backgrounds are transparent; `template` gives the rest of either look. Names and values of the user's are
escaped: Plotly reads a part of HTML in its texts.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

COLOURS = ("#4e79a7", "#f28e2b", "#2ca089", "#d1495b", "#9467bd", "#a07855")
STATES = {
    "completed": "#2ca089",
    "pruned": "#4e79a7",
    "diverged": "#f28e2b",
    "failed": "#d1495b",
    "not yet": "rgba(128,128,128,.25)",
}
NO_PARAMETERS = "No parameters are known yet."
BELOW = 52  # pixels from an axis to a key below it
PANEL_TITLE = 13  # what make_subplots calls its panels would be larger than the title
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
            "title": {
                "font": {"size": 14},
                "x": 0,
                "xref": "paper",
                "xanchor": "left",
                "y": 1,
                "yanchor": "top",
                "pad": {"t": 12},
            },
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


@lru_cache(maxsize=1)
def _light() -> go.layout.Template:
    """Return the light look as Plotly keeps it, which takes it a while to check."""
    return go.layout.Template(template(dark=False))


def plain(value: object, most: int = 48) -> str:
    """Return any string for a text of Plotly's: escaped, on one line, not too long."""
    text = " ".join(str(value).split())
    escaped = html.escape(text if len(text) <= most else text[: most - 1] + "…", quote=False)
    return escaped.replace("$", "&#36;")  # between two of them Plotly looks for TeX


def faded(colour: str, opacity: float) -> str:
    """Return a colour of the form #rrggbb that lets what lies behind it show."""
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"


def significant(value: float, digits: int = 6) -> float:
    """Return a number with as many digits as a figure can show: it is a third of the size."""
    return float(f"{value:.{digits}g}")


def numbers(values: Iterable[float]) -> NDArray[np.float32 | np.float64]:
    """Return numbers as an array, which Plotly writes as bytes: with seven digits unless that loses any."""
    exact = np.fromiter(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        short = exact.astype(np.float32)
    return short if np.allclose(short, exact, rtol=1e-6, atol=0, equal_nan=True) else exact


def blank(title: str, why: str) -> go.Figure:
    """Return a figure that says why there is nothing to draw."""
    figure = finished(go.Figure(), title, height=140)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    figure.add_annotation(
        text=plain(why, 160), x=0, y=0.5, xref="paper", yref="paper", showarrow=False, xanchor="left"
    )
    return figure


def finish(title: str | None, height: int) -> dict[str, Any]:
    """Return the part of a layout that all figures share: see `finished`."""
    # Below the ticks and what the axis is called.
    below = {"x": 0, "xanchor": "left", "y": -BELOW / (height - 96), "yanchor": "top"}
    return {"template": _light(), "height": height, "title": {"text": title}, "legend": below}


def finished(figure: go.Figure, title: str | None, height: int) -> go.Figure:
    """Give a figure the light look, a title, and a height in pixels; its key comes below it.

    Above, where it needs several lines on a narrow screen, the key would run into the title.
    """
    figure.update_layout(finish(title, height))
    figure.update_annotations(font_size=PANEL_TITLE)
    return figure
