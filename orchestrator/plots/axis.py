"""A parameter on an axis, and grids of one panel for each parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from orchestrator.plots.theme import PANEL_TITLE, finish, numbers, plain
from orchestrator.results.analysis import ranks, shown
from orchestrator.results.load import Results
from orchestrator.results.schema import text as storable

MOST_POINTS = 1500  # of all stages: those of very large sweeps are thinned, and the best are drawn
FEW_VALUES = 8  # of whole numbers: there is a tick for each
FEW_DECADES = 1.5  # on less than these one tick for each is too few


class Axis:
    """How a parameter's values lie on an axis: numbers as they are, choices at 0, 1, 2, ..."""

    def __init__(self, results: Results, name: str) -> None:
        self.column = f"param.{name}"
        specs = [space[name] for space in results.spaces.values() if name in space]
        self.log = any(spec.get("log") for spec in specs)
        self.whole = any(spec["kind"] == "int" for spec in specs)
        self.values: list[str] | None = None
        self.layout: dict[str, Any] = {"title_text": plain(name), "type": "log" if self.log else "linear"}
        if self.log and _decades(results.trials[self.column]) >= FEW_DECADES:
            self.layout |= {"exponentformat": "power", "dtick": 1}
        elif self.whole and not self.log and _width(results.trials[self.column]) <= FEW_VALUES:
            self.layout["dtick"] = 1
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
        """Return where a value lies."""
        return float(value) if self.values is None else float(self.values.index(self._key(value)))

    def there(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Leave out the trials whose settings do not have the parameter."""
        there = rows[self.column].notna().to_numpy()
        return rows if there.all() else rows[there]

    def positions(self, rows: pd.DataFrame, jitter: float = 0.0) -> NDArray[np.float32 | np.float64]:
        """Return where the trials lie; those of a choice are spread over `jitter`, so that all are seen."""
        if self.values is None:
            return numbers(rows[self.column])
        places = [self.place(value) for value in rows[self.column]]
        return numbers(np.asarray(places) + jitter * np.asarray(spread(len(places), 0.754878)))


def _decades(values: pd.Series[float]) -> float:
    """Return over how many powers of ten positive numbers spread."""
    positive = values[values > 0] if values.dtype.kind in "if" else values[:0]
    return math.log10(positive.max() / positive.min()) if len(positive) else 0.0


def _width(values: pd.Series[float]) -> float:
    """Return how far apart numbers lie; NaN where there are none."""
    return float(values.max() - values.min()) if values.dtype.kind in "if" else math.nan


def points(results: Results) -> dict[str, pd.DataFrame]:
    """Return by stage the trials that are drawn, with their `rank` in their stage and a safe `label`."""
    drawn, rank = shown(results, MOST_POINTS), ranks(results)
    return {
        stage: rows.assign(
            rank=rank.loc[rows.index],
            label=np.asarray([plain(trial) for trial in rows["trial_id"]], dtype=object),
        )
        for stage, rows in drawn.items()
    }


def hover(rows: pd.DataFrame, axis: Axis) -> NDArray[np.object_]:
    """Return what each trial of `points` shows below the pointer; Plotly checks each text of a list."""
    values = (f"{value:.4g}" if isinstance(value, float) else plain(value) for value in rows[axis.column])
    texts = [f"{label}: {value}" for label, value in zip(rows["label"], values, strict=True)]
    return np.asarray(texts, dtype=object)


def spread(number: int, ratio: float = 0.569840) -> list[float]:
    """Return evenly spread shifts in [-0.5, 0.5); the two ratios together fill a plane."""
    return [round((ratio * i) % 1 - 0.5, 4) for i in range(number)]


def columns(names: Sequence[str]) -> int:
    """Return how many panels stand side by side."""
    return min(3, max(1, len(names)))


def height(names: Sequence[str]) -> int:
    """Return the height of a grid in pixels."""
    return 300 if len(names) == 1 else 90 + 270 * max(1, math.ceil(len(names) / 3))


def axes(number: int) -> tuple[str, str]:
    """Return what a layout calls the axes of a panel."""
    return (f"xaxis{number + 1}", f"yaxis{number + 1}") if number else ("xaxis", "yaxis")


def inside(number: int) -> dict[str, str]:
    """Return the axes of a panel as what is drawn in it names them; those of the first need not be named."""
    return {"xaxis": f"x{number + 1}", "yaxis": f"y{number + 1}"} if number else {}


def grid(names: Sequence[str]) -> dict[str, Any]:
    """Return the layout of one empty panel for each parameter, side by side and below each other."""
    if len(names) == 1:
        return {}
    rows = max(1, math.ceil(len(names) / 3))
    figure = make_subplots(
        rows=rows, cols=columns(names), horizontal_spacing=0.1, vertical_spacing=0.28 / rows
    )
    layout: dict[str, Any] = figure.to_plotly_json()["layout"]
    return layout


def assembled(
    traces: Sequence[Mapping[str, Any]], layout: Mapping[str, Any], title: str | None, height: int
) -> go.Figure:
    """Return a figure, checked as a whole: Plotly takes several times as long to change one bit by bit."""
    known = {key: value for key, value in layout.items() if key != "template"}
    figure = go.Figure(data=list(traces), layout=known | finish(title, height))
    return figure.update_annotations(font_size=PANEL_TITLE)
