"""How far rankings carry over from a scale to the next."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.plots.theme import COLOURS, blank, finished, numbers, plain
from orchestrator.results.analysis import matched, spearman
from orchestrator.results.load import Results

SYMBOLS = {"survivor": "circle", "control": "diamond-open"}
TITLE = "Small scales against large ones"


def rank_correlation(results: Results, pairs: Sequence[tuple[str, str]] | None = None) -> go.Figure:
    """Draw each promoted setting's objective at one stage against the next, with Spearman's rank correlation.

    By default for all pairs of stages that follow each other. Controls are settings that were promoted
    although they were not among the best: without them only the best are compared, and the correlation looks
    lower than it is.
    """
    pairs = list(zip(results.stages, results.stages[1:], strict=False)) if pairs is None else pairs
    if not pairs:
        return blank(TITLE, "Only one stage: there is nothing to compare.")
    matches = [matched(results, earlier, later) for earlier, later in pairs]
    titles = [
        f"{plain(earlier, 16)} → {plain(later, 16)}: {_agreement(match)}"
        for (earlier, later), match in zip(pairs, matches, strict=True)
    ]
    figure = make_subplots(rows=1, cols=len(pairs), subplot_titles=titles, horizontal_spacing=0.09)
    shown: set[str] = set()
    for number, ((earlier, later), match) in enumerate(zip(pairs, matches, strict=True)):
        for order, (origin, symbol) in enumerate(SYMBOLS.items()):
            rows = match[(match["origin"] == "control") == (origin == "control")]
            if rows.empty:
                continue
            figure.add_scatter(
                x=numbers(rows["before"]),
                y=numbers(rows["after"]),
                mode="markers",
                name=origin,
                showlegend=origin not in shown,
                legendgroup=origin,
                text=[plain(parent) for parent in rows.index],
                marker={"symbol": symbol, "size": 9, "color": COLOURS[order]},
                hovertemplate="%{text}: %{x:.5g} → %{y:.5g}<extra></extra>",
                row=1,
                col=number + 1,
            )
            shown.add(origin)
        across, up = f"{plain(results.metric)} at {plain(earlier, 16)}", f"at {plain(later, 16)}"
        figure.update_xaxes(title_text=across, row=1, col=number + 1)
        figure.update_yaxes(title_text=up, row=1, col=number + 1)
    return finished(figure, None, height=380)


def _agreement(match: pd.DataFrame) -> str:
    correlation = spearman(match)
    if correlation is None:
        return f"too few or all the same (n = {len(match)})"
    return f"Spearman {correlation:.2f} (n = {len(match)})"
