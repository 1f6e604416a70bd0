"""The ladder of stages: how many trials each has, and how they did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from orchestrator.plots.theme import STATES, finished, plain
from orchestrator.results.analysis import planned_trials
from orchestrator.results.load import Results


def funnel(results: Results) -> go.Figure:
    """Draw for each stage how many trials are planned, and how those that ended did."""
    phases = [phase for phase in results.plan["phases"] if phase["name"] in results.stages]
    labels = [f"<b>{plain(phase['name'], 24)}</b><br>{scale_text(phase)}" for phase in phases]
    counts = results.trials.groupby(["stage", "state"], observed=False).size()
    planned = planned_trials(results)
    figure = go.Figure()
    done = np.zeros(len(phases))
    for state, colour in STATES.items():
        if state == "not yet":
            number = np.asarray([planned[phase["name"]] for phase in phases]) - done
        else:
            number = np.asarray([counts.get((phase["name"], state), 0) for phase in phases])
        done += number
        if number.max(initial=0) > 0:
            figure.add_bar(
                y=labels,
                x=number.clip(min=0),
                name=state,
                orientation="h",
                marker_color=colour,
                text=[f"{n:.0f}" if n else "" for n in number],
                textangle=0,
            )
    figure.update_layout(barmode="stack", xaxis_title="trials", yaxis_autorange="reversed")
    return finished(figure, "Trials of each stage", height=120 + 62 * max(1, len(phases)))


def scale_text(phase: Mapping[str, Any]) -> str:
    """Return a phase's scale in words: "10% data, 2 classes, 3 epochs"."""
    scale, parts = phase["scale"], []
    if (data := scale.get("data")) is not None:
        # More than 1 is a number of samples.
        parts.append(f"{data:,.0f} samples" if data > 1 else f"{100 * data:.3g}% data")
    counts = {key: scale[key] for key in ("classes", "epochs") if scale.get(key) is not None}
    one = {"classes": "class", "epochs": "epoch"}
    parts += [f"{number:g} {one[key] if number == 1 else key}" for key, number in counts.items()]
    return ", ".join(parts)
