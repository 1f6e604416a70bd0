"""How far rankings carry over from a scale to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.plots.theme import COLOURS, finished, plain
from orchestrator.results.analysis import matched, spearman
from orchestrator.results.load import Results


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
    return finished(figure, None, height=360)


def _agreement(match: pd.DataFrame) -> str:
    correlation = spearman(match)
    if correlation is None:
        return f"too few or all the same (n = {len(match)})"
    return f"Spearman {correlation:.2f} (n = {len(match)})"
