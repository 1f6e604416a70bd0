"""The page's tables of the stages: how they went, their best settings, their ranges, their failures."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping
from typing import Any

from orchestrator.plots.ladder import scale_text
from orchestrator.report.markup import Markup, paragraph, table
from orchestrator.report.units import duration
from orchestrator.results.analysis import failures, final_settings, planned_trials
from orchestrator.results.load import Results
from orchestrator.sweep.directory import TRAINED

MOST_BEST, MOST_FAILURES, MOST_ERROR = 10, 20, 4000  # settings, kinds of failure, characters of an error


def stages_table(results: Results) -> str:
    """Return a row for each stage and the final runs: trials, how they ended, the best, cost."""
    rows, planned = [], planned_trials(results)
    for phase in results.plan["phases"]:
        if phase["kind"] not in TRAINED:
            continue
        trials, best = results.at(phase["name"]), results.best(1, phase["name"])
        states = trials["state"].value_counts()
        others = [f"{states[state]} {state}" for state in ("pruned", "diverged", "failed") if state in states]
        rows.append(
            [
                Markup(f"<b>{html.escape(phase['name'])}</b><small>{scale_text(phase)}</small>"),
                phase["samples"] if phase["samples"] is not None else "all",
                f"{len(trials)} of {planned[phase['name']]}",
                ", ".join(others) or "–",
                float(best["objective"].iloc[0]) if len(best) else math.nan,
                duration(trials["seconds"].sum()),
                _cost(phase.get("cost") or {}),
            ]
        )
    return table(["stage", "samples", "done", "of these", f"best {results.metric}", "spent", "planned"], rows)


def best_table(results: Results) -> str:
    """Return the best trials of the last stage that has results."""
    top = results.best(MOST_BEST)
    if top.empty:
        return "<p>None yet.</p>"
    head = ["trial", results.metric, *results.parameters]
    rows = [
        [row["trial_id"], row["objective"], *(row[f"param.{name}"] for name in results.parameters)]
        for row in top.to_dict("records")
    ]
    stage = html.escape(str(top["stage"].iloc[0]))
    return f"<p>Of <b>{stage}</b>, the last stage with results, best first.</p>{table(head, rows)}"


def finals_table(results: Results) -> str:
    """Return the settings of the final runs, best first, with the spread over their seeds."""
    settings = final_settings(results)
    if settings.empty:
        return ""
    rows = [
        [setting, int(row.pop("seeds")), *row.values()] for setting, row in settings.to_dict("index").items()
    ]
    said = paragraph("The settings of the final runs, over their seeds:")
    return said + table(["setting", *(str(name) for name in settings.columns)], rows)


def ranges_table(results: Results) -> str:
    """Return each parameter's range at each stage, with the reason."""
    stages = [stage for stage in results.stages if stage in results.spaces]
    names = dict.fromkeys(name for stage in stages for name in results.spaces[stage])
    rows = []
    for name in names:
        specs = [results.spaces[stage].get(name) for stage in stages]
        when = next((spec["when"] for spec in specs if spec and spec.get("when")), "")
        condition = f"<small>only when {html.escape(when)}</small>" if when else ""
        head = Markup(f"<b>{html.escape(name)}</b>{condition}")
        rows.append([head, *(_range(spec) for spec in specs)])
    return table(["parameter", *stages], rows)


def failures_table(results: Results) -> str:
    """Return the failures, alike ones together, most frequent first."""
    kinds = failures(results)
    if not kinds:
        return "<p>None.</p>"
    rows = []
    for last, kind in kinds[:MOST_FAILURES]:
        error = kind["error"].iloc[0]
        shown = error if len(error) <= MOST_ERROR else "…" + error[-MOST_ERROR:]
        said = f"<summary>{html.escape(last)}</summary><pre>{html.escape(shown)}</pre>"
        stages = ", ".join(dict.fromkeys(kind["stage"].astype(str)))
        rows.append([len(kind), Markup(f"<details>{said}</details>"), stages, kind["trial_id"].iloc[0]])
    more = f"<p>{len(kinds) - MOST_FAILURES} more kinds.</p>" if len(kinds) > MOST_FAILURES else ""
    return table(["trials", "error", "stages", "for example"], rows) + more


def _cost(cost: Mapping[str, Any]) -> str:
    if cost.get("seconds") is not None:
        return duration(cost["seconds"])
    samples = cost.get("trained_samples")
    return "–" if samples is None else f"{samples:,} samples"


def _range(spec: Mapping[str, Any] | None) -> Markup:
    if spec is None:
        return Markup("–")
    if spec["kind"] == "choice":
        text = ", ".join(value if isinstance(value, str) else json.dumps(value) for value in spec["values"])
    else:
        text = f"{spec['low']:.3g} … {spec['high']:.3g}{' (log)' if spec.get('log') else ''}"
    return Markup(f"{html.escape(text)}<small>{html.escape(str(spec.get('reason', '')))}</small>")
