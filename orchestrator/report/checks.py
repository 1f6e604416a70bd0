"""The checks before the first stage, for the report: what each saw, and the curve of the range test."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from orchestrator.plots.theme import COLOURS
from orchestrator.results.load import Results
from orchestrator.space.parameter import show
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_as

HEAD, ON_FAILURE = ("check", "", "what was seen"), ("likely cause", "what to do")
_WORDS = {True: "passed", False: "failed", None: "not applicable"}


def checks_table(results: Results) -> tuple[tuple[str, ...], list[list[object]]]:
    """Return head and rows of the table of checks; no rows where nothing was checked."""
    path = SweepDirectory(results.path).checks_result
    return read_as(path, _table, "what the checks saw") if path.exists() else (HEAD, [])


def _table(content: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[object]]]:
    checks = content["checks"]
    rows: list[list[object]] = [
        [f"{check['id']} {check['name']}", _WORDS[check["passed"]], check["saw"]] for check in checks
    ]
    if all(check["passed"] is not False for check in checks):
        return HEAD, rows
    for row, check in zip(rows, checks, strict=True):
        row += [check["cause"], check["next"]] if check["passed"] is False else ["", ""]
    return (*HEAD, *ON_FAILURE), rows


def range_test_figures(results: Results) -> list[go.Figure]:
    """Return the loss over the rate as the range test saw it, with its bounds; none without a test."""
    path = SweepDirectory(results.path).range_test
    return read_as(path, _rates_figures, "a range test") if path.exists() else []


def _rates_figures(found: Mapping[str, Any]) -> list[go.Figure]:
    figure = go.Figure(
        go.Scatter(x=found["rates"], y=found["losses"], mode="lines", line={"color": COLOURS[0]}, name="loss")
    )
    figure.update_xaxes(type="log", title_text=found["parameter"])
    figure.update_yaxes(title_text="training loss")
    for name, colour in (("low", COLOURS[2]), ("best", COLOURS[1]), ("high", COLOURS[3])):
        if found.get(name) is not None:
            figure.add_vline(x=found[name], line={"color": colour, "dash": "dot"})
            # An annotation on a logarithmic axis is placed by the logarithm; a line is not.
            figure.add_annotation(
                x=math.log10(found[name]), y=1, yref="paper", yanchor="bottom", showarrow=False,
                text=f"{name} {show(found[name])}", font={"color": colour},
            )  # fmt: skip
    return [figure.update_layout(showlegend=False)]
