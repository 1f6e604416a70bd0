"""What the report shows of the diagnosis: findings by stage, and the best final run in detail.

Of a final run's `diagnosis.json` nothing is trusted: what is not of the form that is expected is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from orchestrator.diagnosis import detail
from orchestrator.diagnosis.collect import Diagnosed, StageFinding, collect
from orchestrator.diagnosis.curves import plain
from orchestrator.diagnosis.finding import ADVICE
from orchestrator.plots.theme import COLOURS, SCALE, template
from orchestrator.plots.theme import plain as shown
from orchestrator.results.load import Results
from orchestrator.sweep.directory import FINAL, SweepDirectory

MOST_HISTOGRAMS = 12
_SEEN = re.compile(r"^(\w+) at (\d+): (.*)$", re.MULTILINE)


def findings_of(results: Results, stage: str) -> tuple[StageFinding, ...]:
    """Return what the findings of a stage's trials say together."""
    rows = results.at(stage)
    if "diagnosis_evidence" not in rows.columns:  # compacted by an earlier version
        return ()
    if not rows["diagnosis_evidence"].fillna("").astype(bool).any():
        return ()  # of thousands of trials all settings would be read for nothing
    columns = [f"param.{name}" for name in results.parameters]
    trials = [
        Diagnosed(
            {
                column.removeprefix("param."): row[column]
                for column in columns
                # What is missing was not active in that setting.
                if row[column] is not None and row[column] == row[column]
            },
            {code: int(step) for code, step, _ in _SEEN.findall(row["diagnosis_evidence"] or "")},
        )
        for row in rows[[*columns, "diagnosis_evidence"]].to_dict("records")
    ]
    return collect(trials)


def findings_table(
    findings: Mapping[str, Sequence[StageFinding]],
) -> tuple[Sequence[str], list[list[object]]]:
    """Return the columns and rows of a table: each stage's findings, what they say and what to try."""
    rows: list[list[object]] = [
        [stage, one.code, one.sentence, ADVICE.get(one.code, "")]
        for stage, found in findings.items()
        for one in found
    ]
    return ("stage", "finding", "which trials", "what to try"), rows


def best_final(results: Results) -> tuple[str, Mapping[str, Any]] | None:
    """Return the best of the final runs that left a description, and that; None where none did."""
    for phase in results.plan["phases"]:
        if phase["kind"] != FINAL:
            continue
        folder = SweepDirectory(results.path).phase(FINAL, phase["name"])
        for trial in results.best(len(results.trials), phase["name"])["trial_id"]:
            if found := detail.read(folder.checkpoints(trial) / detail.NAME):
                return str(trial), found
    return None


def detail_figures(results: Results, trial: str, found: Mapping[str, Any]) -> dict[str, go.Figure]:
    """Return the figures of one run by what they show: curves, confusion, calibration, coverage, layers."""
    predictions = found.get("predictions")
    predictions = predictions if isinstance(predictions, Mapping) else {}
    made: list[go.Figure] = []
    parts: list[tuple[Callable[[Any], list[go.Figure]], Any]] = [
        (confusion, predictions.get("confusion")),
        (curves, results.curves[results.curves["trial_id"] == trial]),
        (calibration, predictions.get("calibration")),
        (coverage, predictions.get("coverage")),
        (residuals, predictions.get("points")),
        (histograms, found.get("layers")),
    ]
    for draw, part in parts:
        try:
            made += draw(part) if part is not None else []
        except (KeyError, TypeError, ValueError, AttributeError, IndexError):
            continue
    return {f"{trial}: {figure.layout.title.text}": figure for figure in made}


def curves(rows: pd.DataFrame) -> list[go.Figure]:
    """Draw training and validation in one plot, of loss and of accuracy as far as they were reported."""
    made = []
    named = {name: next(iter(plain({str(name): 0.0}))) for name in rows["metric"].unique()}
    for kind in ("loss", "accuracy"):
        figure = go.Figure()
        for part, colour in (("train", COLOURS[0]), ("val", COLOURS[1])):
            one = rows[rows["metric"].map(named) == f"{part}/{kind}"].sort_values("step")
            if len(one):
                figure.add_scatter(x=one["step"], y=one["value"], name=part, line={"color": colour})
        if len(figure.data):
            figure.update_xaxes(title_text="step")
            made.append(_finished(figure, kind))
    return made


def confusion(found: Mapping[str, Any]) -> list[go.Figure]:
    """Draw how often each class was taken for each other; rows are the true ones."""
    # The number keeps classes apart that are named alike.
    names = [
        shown(name, 16) if str(name) == str(number) else f"{shown(name, 16)} ({number})"
        for number, name in enumerate(found["classes"])
    ]
    counts = [[int(count) for count in row] for row in found["counts"]]
    if len(counts) != len(names) or any(len(row) != len(names) for row in counts):
        return []
    text = [[str(count) if count else "" for count in row] for row in counts] if len(names) <= 12 else None
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    figure = go.Figure(
        go.Heatmap(
            z=shares, x=names, y=names, text=text, texttemplate="%{text}", colorscale=SCALE, showscale=False
        )
    )
    figure.update_xaxes(title_text="predicted", type="category")
    figure.update_yaxes(title_text="true", autorange="reversed", type="category")
    return [_finished(figure, "confusion")]


def calibration(found: Mapping[str, Any]) -> list[go.Figure]:
    """Draw accuracy against confidence."""
    bins = found["bins"]
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"dash": "dot", "color": "rgba(128,128,128,.7)"}
    )
    figure.add_scatter(
        x=[float(one["confidence"]) for one in bins],
        y=[float(one["accuracy"]) for one in bins],
        mode="lines+markers",
        marker={"color": COLOURS[0]},
        text=[f"{int(one['count'])} samples" for one in bins],
    )
    figure.update_xaxes(title_text="confidence")
    figure.update_yaxes(title_text="accuracy")
    return [_finished(figure, f"calibration: expected error {float(found['error']):.1%}", legend=False)]


def coverage(found: Mapping[str, Any]) -> list[go.Figure]:
    """Draw the accuracy where the model may refuse the predictions that it is least sure of."""
    figure = go.Figure()
    shares, values = ([float(value) for value in found[key]] for key in ("share", "accuracy"))
    figure.add_scatter(x=shares, y=values, mode="lines+markers", marker={"color": COLOURS[2]})
    figure.update_xaxes(title_text="share answered")
    figure.update_yaxes(title_text="accuracy of these")
    return [_finished(figure, "accuracy against coverage", legend=False)]


def residuals(found: Mapping[str, Any]) -> list[go.Figure]:
    """Draw predicted against true values."""
    targets, values = ([float(value) for value in found[key]] for key in ("target", "predicted"))
    figure = go.Figure()
    ends = [min(targets), max(targets)]
    figure.add_scatter(x=ends, y=ends, mode="lines", line={"dash": "dot", "color": "rgba(128,128,128,.7)"})
    figure.add_scatter(x=targets, y=values, mode="markers", marker={"color": COLOURS[0], "opacity": 0.6})
    figure.update_xaxes(title_text="true")
    figure.update_yaxes(title_text="predicted")
    return [_finished(figure, "predicted and true values", legend=False)]


def histograms(found: Mapping[str, Any]) -> list[go.Figure]:
    """Draw activations and gradients by layer, at the last update that was looked at."""
    made = []
    for kind in ("activations", "gradients"):
        figure = go.Figure()
        for name, one in list((found.get(kind) or {}).items())[:MOST_HISTOGRAMS]:
            counts = [int(count) for count in one["counts"]]
            if counts and one["high"] > one["low"]:
                width = (one["high"] - one["low"]) / len(counts)
                middles = [one["low"] + (place + 0.5) * width for place in range(len(counts))]
                figure.add_scatter(
                    x=middles, y=counts, name=shown(name, 24), line={"shape": "hvh", "width": 1.5}
                )
        if len(figure.data):
            figure.update_yaxes(type="log", title_text="values")
            made.append(_finished(figure, f"{kind} by layer"))
    return made


def _finished(figure: go.Figure, title: str, *, legend: bool = True) -> go.Figure:
    figure.update_layout(template=template(dark=False), height=320, title_text=title, showlegend=legend)
    return figure
