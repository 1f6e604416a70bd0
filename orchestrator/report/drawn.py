"""The page's sections that are mostly figures, each made from the results and what was measured of them."""

from __future__ import annotations

import html
from collections.abc import Mapping

import plotly.graph_objects as go

from orchestrator import plots
from orchestrator.plots.narrowing import ranges_apart
from orchestrator.plots.responses import slices_apart
from orchestrator.plots.theme import COLOURS
from orchestrator.report import checks, stages, trust
from orchestrator.report.markup import folded, paragraph, plot, table
from orchestrator.report.measured import Measured
from orchestrator.results.analysis import stages_with_curves
from orchestrator.results.load import Results

BRIGHT = "Boxes are the ranges; brighter trials rank higher within their stage."
STAGES_APART = "Stages are different problems: compare trials within a colour."
RANGE_TEST = "The rate rises from update to update; the first stage searched between the bounds."
CURVES = "The best trial of each stage stands out."
CONTROLS = (
    "A setting at one stage and, promoted, at the next. Controls were promoted although not among the best."
)


def stage_parts(results: Results, _: Measured) -> str:
    """Return how many trials each stage had, and how they ended."""
    return stages.stages_table(results) + cards({"Trials of each stage": _untitled(plots.funnel(results))})


def cost_parts(results: Results, _: Measured) -> str:
    """Return what was spent beside what was planned."""
    return cards({"Cost, planned and spent": _untitled(plots.cost(results))})


def range_parts(results: Results, _: Measured) -> str:
    """Return how each parameter's range narrowed, and why."""
    drawn = cards({f"Ranges of {name}": figure for name, figure in ranges_apart(results).items()})
    reasons = folded("Every range, with the reason for it", stages.ranges_table(results))
    return (paragraph(BRIGHT) + drawn if drawn else "") + reasons


def importance_parts(results: Results, measured: Measured) -> str:
    """Return how much of what the results vary by each parameter accounts for."""
    drawn = cards({"Importance of each parameter": plots.importance(results, measured.shares)})
    return drawn + folded("As a table", table(*trust.importance_table(results, measured.shares)))


def slice_parts(results: Results, _: Measured) -> str:
    """Return the objective against each parameter."""
    drawn = cards({f"{results.metric} by {name}": figure for name, figure in slices_apart(results).items()})
    return f"<p>{STAGES_APART}{_key(results)}</p>{drawn}" if drawn else ""


def together_parts(results: Results, _: Measured) -> str:
    """Return whole settings, as lines through all their parameters."""
    return cards({"Whole settings": _untitled(plots.parallel_coordinates(results))})


def curve_parts(results: Results, _: Measured) -> str:
    """Return the learning curves of each stage."""
    drawn = cards(
        {
            f"Learning curves of {stage}": plots.learning_curves(results, [stage])
            for stage in stages_with_curves(results)
        }
    )
    return paragraph(CURVES) + drawn if drawn else ""


def ranking_parts(results: Results, measured: Measured) -> str:
    """Return how far rankings carry over, measured and drawn."""
    told = table(*trust.agreement_table(results, measured.agreements))
    pairs = zip(results.stages, results.stages[1:], strict=False) if told else ()
    drawn = cards(
        {f"{low} against {high}": plots.rank_correlation(results, [(low, high)]) for low, high in pairs}
    )
    return told + (paragraph(CONTROLS) + drawn if drawn else "")


def data_parts(results: Results, measured: Measured) -> str:
    """Return the best error against training samples, and what follows from it."""
    forecast = measured.forecast
    if forecast is None:
        return ""
    told = paragraph(" ".join([forecast.sentence, *forecast.caveats]))
    return told + cards({"Best error by training samples": plots.more_data(results, forecast)})


def range_test_parts(results: Results, _: Measured) -> str:
    """Return the loss over the learning rate, as the range test saw it."""
    found = checks.range_test_figures(results)
    drawn = cards({"Loss by learning rate": found[0]}) if found else ""
    return paragraph(RANGE_TEST) + drawn if drawn else ""


def cards(figures: Mapping[str, go.Figure]) -> str:
    """Return figures side by side, each with what it shows in words; nothing where none has data."""
    shown = [
        f'<div class="card">{plot(figure, label)}</div>' for label, figure in figures.items() if figure.data
    ]
    return f'<div class="grid">{"".join(shown)}</div>' if shown else ""


def _untitled(figure: go.Figure) -> go.Figure:
    """Leave out a title that the section has."""
    return figure.update_layout(title_text=None)


def _key(results: Results) -> str:
    """Return the stages' colours."""
    return "".join(
        f' <span class="key"><i style="background:{COLOURS[i % len(COLOURS)]}"></i>'
        f"{html.escape(stage)}</span>"
        for i, stage in enumerate(results.stages)
    )
