"""The page's part about the ensemble: its tables, what is said of them, and three figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import plotly.graph_objects as go

from orchestrator.plots.theme import COLOURS, plain, template
from orchestrator.report import ensemble_tables as tables
from orchestrator.report import ensemble_words as words
from orchestrator.report.markup import bullets, folded, paragraph, plot, table
from orchestrator.results.ensemble_parts import KINDS, figure, kinds, mappings, part, score_name

BASE, TOGETHER = ("best_single", COLOURS[0]), ("ensemble", COLOURS[1])
ABLATION = "What each kind of member adds: the same method, with only some kinds let in."
MOST_ROWS = 40  # of members, and of checkpoints that were passed over
METHODS = "Every way of combining. Validation chose; the figures on test data are for information."


def ensemble_parts(found: Mapping[str, Any]) -> str:
    """Return what the ensemble came to, as a part of the page; nothing where there is none yet."""
    if not found:
        return ""
    told = [
        words.choice_sentence(found),
        words.reading_sentence(found),
        *words.gain_sentences(found),
        words.room_sentence(found),
    ]
    return "".join(
        [
            bullets(told),
            table(*tables.scores_table(found)),
            _titled(METHODS, tables.methods_table(found)),
            paragraph(words.method_sentence(found)),
            _titled(ABLATION, tables.ablation_table(found)),
            _figures(found),
            paragraph(words.calibration_sentence(found)),
            paragraph(words.soup_sentence(found)),
            paragraph(words.student_sentence(found)),
            table(*tables.students_table(found)),
            folded("Members", _first(tables.members_table(found))),
            folded("Checkpoints that were passed over", _first(tables.skipped_table(found))),
        ]
    )


def ensemble_figures(found: Mapping[str, Any]) -> list[go.Figure]:
    """Return the figures for which there are data: gains by kind of member, calibration, coverage."""
    draws: list[Callable[[Mapping[str, Any]], go.Figure | None]] = [ablation, calibration, coverage]
    made = []
    for draw in draws:
        try:
            one = draw(found)
        except (KeyError, TypeError, ValueError, IndexError):
            continue  # not of the form that is expected: the other figures are still good
        made += [one] if one is not None else []
    return made


def ablation(found: Mapping[str, Any]) -> go.Figure | None:
    """Draw the gain over the best single model, with its interval, by which kinds of members may differ."""
    rows = [one for one in mappings(found.get("ablation")) if figure(one.get("gain")) is not None]
    if not rows:
        return None
    points = found.get("score") == "accuracy"
    unit = 100.0 if points else 1.0
    gains = [unit * one["gain"] for one in rows]
    above = [unit * one["gain_high"] - value for one, value in zip(rows, gains, strict=True)]
    below = [value - unit * one["gain_low"] for one, value in zip(rows, gains, strict=True)]
    made = go.Figure(
        go.Scatter(
            x=gains,
            y=[_folded(kinds(one)) for one in rows],
            mode="markers",
            marker={"color": TOGETHER[1], "size": 9},
            error_x={"array": above, "arrayminus": below, "color": TOGETHER[1], "thickness": 1.5},
            hovertemplate="%{y}: %{x:.3g}<extra></extra>",
        )
    )
    made.add_vline(x=0, line={"color": "rgba(128,128,128,.6)", "dash": "dot"})
    title = "points of accuracy" if points else plain(score_name(found))
    made.update_xaxes(title_text=title)
    made.update_yaxes(autorange="reversed")
    return _finished(made, "Test: over the best single", height=150 + 46 * len(rows)).update_layout(
        showlegend=False
    )


def calibration(found: Mapping[str, Any]) -> go.Figure | None:
    """Draw accuracy by confidence; what is calibrated lies on the diagonal."""
    made = go.Figure()
    for key, colour in (BASE, TOGETHER):
        bins = [one for one in part(part(found, "calibration"), key).get("bins") or [] if one["count"]]
        if not bins:
            continue
        made.add_scatter(
            x=[one["confidence"] for one in bins],
            y=[one["accuracy"] for one in bins],
            text=[f"{int(one['count']):,} samples" for one in bins],
            name=KINDS[key],
            mode="lines+markers",
            line={"color": colour},
            hovertemplate="%{text}: confidence %{x:.2f}, accuracy %{y:.2f}<extra></extra>",
        )
    if not made.data:
        return None
    made.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", hoverinfo="skip", showlegend=False,
        line={"color": "rgba(128,128,128,.6)", "dash": "dot"},
    )  # fmt: skip
    made.update_xaxes(title_text="confidence", range=[0, 1.02])
    made.update_yaxes(title_text="accuracy", range=[0, 1.04])
    return _finished(made, "Calibration")


def coverage(found: Mapping[str, Any]) -> go.Figure | None:
    """Draw the accuracy on the samples that are answered when the least sure ones are refused."""
    made = go.Figure()
    for key, colour in (BASE, TOGETHER):
        points = part(found, "coverage").get(key) or []
        if points:
            made.add_scatter(
                x=[100 * point[0] for point in points],
                y=[point[1] for point in points],
                name=KINDS[key],
                mode="lines",
                line={"color": colour},
                hovertemplate="%{x:.0f}% answered: accuracy %{y:.4f}<extra></extra>",
            )
    if not made.data:
        return None
    made.update_xaxes(title_text="answered, % of the test data", range=[0, 101])
    made.update_yaxes(title_text="accuracy")
    return _finished(made, "Accuracy, least sure refused")


def _folded(kinds: str) -> str:
    """Return kinds of members for an axis, two on a line."""
    named = [plain(kind, 24) for kind in kinds.split(", ")]
    return ",<br>".join(", ".join(named[at : at + 2]) for at in range(0, len(named), 2))


def _figures(found: Mapping[str, Any]) -> str:
    cards = "".join(f'<div class="card">{plot(one)}</div>' for one in ensemble_figures(found))
    return f'<div class="grid">{cards}</div>' if cards else ""


def _first(rows: tuple[tables.Head, tables.Rows]) -> str:
    """Return a table of the first of many rows, and how many more there are."""
    head, all_rows = rows
    more = len(all_rows) - MOST_ROWS
    return table(head, all_rows[:MOST_ROWS]) + (paragraph(f"And {more:,} more.") if more > 0 else "")


def _titled(title: str, rows: tuple[tables.Head, tables.Rows]) -> str:
    shown = table(*rows)
    return paragraph(title) + shown if shown else ""


def _finished(made: go.Figure, title: str, height: int = 340) -> go.Figure:
    return made.update_layout(
        template=template(dark=False),
        height=height,
        title_text=title,
        legend={"x": 0.0, "y": -0.25, "xanchor": "left", "yanchor": "top"},
    )
