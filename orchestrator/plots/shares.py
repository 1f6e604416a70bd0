"""How much each parameter matters."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from orchestrator.plots.theme import COLOURS, blank, finished, plain
from orchestrator.results.load import Results
from orchestrator.results.trust import importances

TITLE = "What the objective varies by"


def importance(results: Results, shares: Mapping[str, Mapping[str, float]] | None = None) -> go.Figure:
    """Draw each parameter's share of what the results of each stage vary by, what matters most on top.

    Shares are of fANOVA (few results) or PED-ANOVA (many); see
    `orchestrator.planning.narrowing.importance.importance`.

    Args:
        results: of the sweep.
        shares: stage to parameter to share, where they are known already; otherwise they are measured.
    """
    found = importances(results) if shares is None else shares
    if not found:
        return blank(TITLE, "Too few different results to tell.")
    last: dict[str, float] = {}
    for one in found.values():
        last.update(one)
    names = sorted(last, key=lambda name: (-last[name], name))
    figure = go.Figure()
    for stage, one in found.items():
        colour = COLOURS[results.stages.index(stage) % len(COLOURS)]
        figure.add_bar(
            y=[plain(name, 32) for name in names],
            x=[round(one[name], 4) if name in one else None for name in names],
            name=plain(stage, 24),
            orientation="h",
            marker_color=colour,
            hovertemplate="%{y}: %{x:.1%}<extra></extra>",
        )
    figure.update_xaxes(title_text="share", tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(barmode="group", bargap=0.25)
    return finished(figure, TITLE, height=140 + (12 + 9 * len(found)) * len(names))
