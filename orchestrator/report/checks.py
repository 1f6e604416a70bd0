"""The checks before the first stage, for the report: what each saw, and the curve of the range test."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from orchestrator.report.figures import COLOURS
from orchestrator.results.load import Results
from orchestrator.space.parameter import show
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json

HEAD = ("check", "", "what was seen", "likely cause", "what to do")
_WORDS = {True: "passed", False: "failed", None: "not applicable"}


def checks_table(results: Results) -> tuple[tuple[str, ...], list[list[object]]]:
    """Return head and rows of the table of checks; no rows where nothing was checked."""
    path = SweepDirectory(results.path).checks_result
    checks: list[dict[str, Any]] = read_json(path)["checks"] if path.exists() else []
    rows: list[list[object]] = [
        [
            f"{check['id']} {check['name']}",
            _WORDS[check["passed"]],
            check["saw"],
            *((check["cause"], check["next"]) if check["passed"] is False else ("", "")),
        ]
        for check in checks
    ]
    return HEAD, rows


def range_test_figures(results: Results) -> list[go.Figure]:
    """Return the loss over the rate as the range test saw it, with its bounds; none without a test."""
    path = SweepDirectory(results.path).range_test
    if not path.exists():
        return []
    found = read_json(path)
    figure = go.Figure(
        go.Scatter(x=found["rates"], y=found["losses"], mode="lines", line={"color": COLOURS[0]}, name="loss")
    )
    figure.update_xaxes(type="log", title_text=found["parameter"])
    figure.update_yaxes(title_text="training loss")
    for name, colour in (("low", COLOURS[2]), ("best", COLOURS[1]), ("high", COLOURS[3])):
        if found.get(name) is not None:
            figure.add_vline(
                x=found[name],
                line={"color": colour, "dash": "dot"},
                annotation_text=f"{name} {show(found[name])}",
            )
    return [figure.update_layout(showlegend=False)]
