"""What the sweep costs, as planned and as spent, and what was found for it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.plots.theme import COLOURS, faded, finished, plain, significant
from orchestrator.results.analysis import objective_range
from orchestrator.results.load import Results
from orchestrator.results.spending import SAMPLES, SECONDS, Spending, progress, spending, trial_costs, unit_of

# from so many seconds on they are counted in larger ones
UNITS = ((2 * 3600, 3600, "hours"), (180, 60, "minutes"), (0, 1, "seconds"))


def cost(results: Results, columns: int = 2) -> go.Figure:
    """Draw the cost of each stage, planned beside spent, and the best objective so far against the cost.

    Cost is the trials' own time one after another where the plan has it, else samples times epochs, else
    trials. The best objective is that of its stage: stages are different problems, and share no scale.

    Args:
        results: of the sweep.
        columns: 2, or 1 for the two below each other.
    """
    each = trial_costs(results)
    costs = spending(results, each)
    unit = unit_of(costs)
    size, label = _scale(costs, unit)
    rows = 1 if columns > 1 else 2
    place = {"row": rows, "col": 3 - rows}
    figure = make_subplots(rows=rows, cols=3 - rows, horizontal_spacing=0.12, vertical_spacing=0.26)
    _add_bars(figure, costs, unit, size)
    _add_bests(figure, results, progress(results, unit, each), size, place)
    figure.update_xaxes(
        title_text=f"{label} of trials" if unit == SECONDS else label, row=1, col=1, rangemode="tozero"
    )
    figure.update_xaxes(title_text=f"{label} so far", rangemode="tozero", **place)
    figure.update_yaxes(autorange="reversed", row=1, col=1)
    figure.update_yaxes(title_text=f"best {plain(results.metric, 24)}", **place)
    return finished(figure, "Cost", height=rows * (150 + 52 * max(3, len(costs))))


def _add_bests(
    figure: go.Figure, results: Results, rows: pd.DataFrame, size: float, place: Mapping[str, int]
) -> None:
    """Draw the best objective of each stage as it grew."""
    for order, stage in enumerate(results.stages):
        steps = _changes(rows[(rows["stage"] == stage) & rows["best"].notna()])
        figure.add_scatter(
            x=[significant(value / size) for value in steps["cost"]],
            y=[significant(value) for value in steps["best"]],
            name=plain(stage, 16),
            mode="lines+markers",
            line={"shape": "hv", "color": COLOURS[order % len(COLOURS)]},
            marker={"size": 5},
            text=[plain(trial) for trial in steps["trial_id"]],
            hovertemplate="%{text}: %{y:.5g} after %{x:.4g}<extra></extra>",
            **place,
        )
    if (seen := objective_range(results)) and rows["best"].notna().any():
        # The first trials' results may lie far from all others.
        margin = 0.05 * (seen[1] - seen[0])
        low, high = rows["best"].min() - margin, rows["best"].max() + margin
        figure.update_yaxes(range=[max(low, seen[0]), min(high, seen[1])], **place)


def _changes(rows: pd.DataFrame) -> pd.DataFrame:
    """Return where the best changed, and the last row: in between the line is flat."""
    changes: pd.DataFrame = rows[rows["best"].ne(rows["best"].shift()) | (rows.index == rows.index.max())]
    return changes


def _add_bars(figure: go.Figure, costs: list[Spending], unit: str, size: float) -> None:
    stages = [plain(one.stage, 16) for one in costs]
    for name, opacity in (("planned", 0.35), ("spent", 1.0)):
        values = [(one.planned if name == "planned" else one.spent)[unit] / size for one in costs]
        figure.add_bar(
            y=stages,
            x=[significant(value) if math.isfinite(value) else None for value in values],
            name=name,
            orientation="h",
            marker_color=faded(COLOURS[0], opacity),
            hovertemplate=f"%{{y}}: %{{x:.4g}} {name}<extra></extra>",
            row=1,
            col=1,
        )


def _scale(costs: list[Spending], unit: str) -> tuple[float, str]:
    """Return by what costs are divided, and what an axis calls the quotient."""
    if unit == SECONDS:
        values = [value for one in costs for value in (one.planned[unit], one.spent[unit])]
        total = sum(value for value in values if math.isfinite(value)) / 2
        size, name = next((size, name) for least, size, name in UNITS if total >= least)
        return size, name
    return 1.0, "trained samples" if unit == SAMPLES else "trials"
