"""One self-contained page about a sweep, finished or still running.

It asks for nothing from outside, which its content security policy enforces; plotly.js is inlined once,
compressed. Every string of the user's is escaped, and only scripts that carry the page's nonce run.
"""

from __future__ import annotations

import html
import json
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from orchestrator import plots
from orchestrator.plots.ladder import scale_text
from orchestrator.plots.theme import COLOURS, template
from orchestrator.report import checks, diagnosis, trust
from orchestrator.report.ensemble import ensemble_parts
from orchestrator.report.markup import Markup, number, plot, script_json, section, table
from orchestrator.report.shell import PAGE, SCRIPT, STYLE, plotly_source
from orchestrator.results.analysis import (
    failures,
    final_settings,
    planned_trials,
    stages_with_curves,
    standing,
)
from orchestrator.results.load import Results, load_results
from orchestrator.sweep.directory import TRAINED, SweepDirectory
from orchestrator.sweep.files import write_atomic

BRIGHT = "Boxes are the ranges; brighter trials rank higher within their stage."
STAGES_APART = "Stages are different problems: compare trials within a colour."
RANGE_TEST = "The rate rises from update to update; the first stage searched between the bounds."
BARE = {"showlegend": False, "margin": {"t": 12}}  # one figure of many that share a key
CURVES = "The best trial of each stage stands out."
CONTROLS = (
    "A setting at one stage and, promoted, at the next. Controls were promoted although not among the best."
)
MOST_BEST, MOST_FAILURES, MOST_ERROR = 10, 20, 4000  # settings, kinds of failure, characters of an error


def write_report(sweep: Path) -> Path:
    """Write the page of a sweep as `report.html`, from the results as they were last compacted.

    Returns:
        The page's path.

    Raises:
        UserError: the directory is no sweep's.
    """
    results = load_results(sweep, missing_ok=True)
    path = SweepDirectory(results.path).report
    write_atomic(path, page(results, now=time.time()))
    return path


def page(results: Results, now: float) -> str:
    """Return the page; `now` is in seconds since the epoch."""
    names, pairs = results.parameters, zip(results.stages, results.stages[1:], strict=False)
    narrowing = [plots.ranges(results, [name]) for name in names]
    slices = [plots.slices(results, [name]).update_layout(**BARE) for name in names]
    curves = [plots.learning_curves(results, [stage]) for stage in stages_with_curves(results)]
    correlation = [plots.rank_correlation(results, [pair]) for pair in pairs]
    sections = [
        section("Checks before the first stage", table(*checks.checks_table(results))),
        _drawn("Learning-rate range test", RANGE_TEST, checks.range_test_figures(results)),
        section("Stages", _stages(results), plot(plots.funnel(results).update_layout(title_text=None))),
        section("Best settings", _best(results)),
        section("Final runs and ensemble", _finals(results), ensemble_parts(results.ensemble or {})),
        section("Ranges and why", _ranges(results)),
        section("What matters", table(*trust.importance_table(results))),
        section("How far rankings carry over", table(*trust.agreement_table(results))),
        _drawn("How the ranges narrowed", BRIGHT, narrowing),
        _drawn("Objective by parameter", STAGES_APART + _key(results), slices),
        _drawn("Learning curves", CURVES, curves),
        _drawn("Do small scales predict large ones?", CONTROLS, correlation),
        section("Diagnosis", table(*diagnosis.findings_table(results)), _best_final(results)),
        section("Failures", _failures(results)),
    ]
    nonce = secrets.token_urlsafe(16)
    templates = {"light": template(dark=False), "dark": template(dark=True)}
    return PAGE.format(
        nonce=nonce,
        title=html.escape(results.name),
        style=STYLE,
        header=_header(results, now),
        body="\n".join(filter(None, sections)),
        templates=script_json(json.dumps(templates)),
        plotly=plotly_source(),
        script=SCRIPT,
    )


def _drawn(title: str, caption: str, drawn: Iterable[go.Figure]) -> str:
    plots = [f'<div class="card">{plot(figure)}</div>' for figure in drawn if len(figure.data)]
    return section(title, f"<p>{caption}</p>", f'<div class="grid">{"".join(plots)}</div>') if plots else ""


def _header(results: Results, now: float) -> str:
    best = results.best(1)
    planned = sum(planned_trials(results).values())
    hours = results.trials["gpu_seconds"].sum() / 3600
    spent = f"{hours:.3g} GPU-h" if hours else f"{results.trials['seconds'].sum() / 3600:.3g} h"
    tiles = [("trials done", f"{len(results.trials):,} of {planned:,}"), ("spent in trials", spent)]
    if len(best):
        stage = best["stage"].iloc[0]
        tiles.append((f"best {results.metric} ({stage})", number(float(best["objective"].iloc[0]))))
    if results.ensemble and results.ensemble.get("test"):
        tiles.append(("ensemble, held-out test", number(results.ensemble["test"].get("ensemble"))))
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    blocks = "".join(f"<div><b>{html.escape(v)}</b><span>{html.escape(k)}</span></div>" for k, v in tiles)
    goal = {"max": "highest", "min": "lowest"}[results.mode]
    metric, stands = html.escape(results.metric), html.escape(standing(results))
    return (
        f"<h1>{html.escape(results.name)}</h1>"
        f"<p>Looking for the {goal} <code>{metric}</code> · {stands} · as of {written}</p>"
        f'<div class="tiles">{blocks}</div>'
    )


def _stages(results: Results) -> str:
    rows = []
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
                f"{len(trials)} of {phase['trials']}",
                ", ".join(others) or "–",
                float(best["objective"].iloc[0]) if len(best) else math.nan,
                _duration(trials["seconds"].sum()),
                _cost(phase.get("cost") or {}),
            ]
        )
    return table(["stage", "samples", "done", "of these", f"best {results.metric}", "spent", "planned"], rows)


def _cost(cost: Mapping[str, Any]) -> str:
    if cost.get("seconds") is not None:
        return _duration(cost["seconds"])
    samples = cost.get("trained_samples")
    return "–" if samples is None else f"{samples:,} samples"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.3g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def _best(results: Results) -> str:
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


def _finals(results: Results) -> str:
    """Return the settings of the final runs, best first, with the spread over their seeds."""
    settings = final_settings(results)
    if settings.empty:
        return ""
    rows = [
        [setting, int(row.pop("seeds")), *row.values()] for setting, row in settings.to_dict("index").items()
    ]
    return table(["setting", *(str(name) for name in settings.columns)], rows)


def _ranges(results: Results) -> str:
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


def _range(spec: Mapping[str, Any] | None) -> Markup:
    if spec is None:
        return Markup("–")
    if spec["kind"] == "choice":
        text = ", ".join(value if isinstance(value, str) else json.dumps(value) for value in spec["values"])
    else:
        text = f"{spec['low']:.3g} … {spec['high']:.3g}{' (log)' if spec.get('log') else ''}"
    return Markup(f"{html.escape(text)}<small>{html.escape(str(spec.get('reason', '')))}</small>")


def _key(results: Results) -> str:
    """Return the stages' colours."""
    return "".join(
        f' <span class="key"><i style="background:{COLOURS[i % len(COLOURS)]}"></i>'
        f"{html.escape(stage)}</span>"
        for i, stage in enumerate(results.stages)
    )


def _best_final(results: Results) -> str:
    """Return the best final run in detail: curves, mistakes, calibration, layers."""
    best = diagnosis.best_final(results)
    if best is None:
        return ""
    trial, found = best
    plots = [
        f'<div class="card">{plot(one)}</div>' for one in diagnosis.detail_figures(results, trial, found)
    ]
    mistakes = [(image, html.escape(said)) for image, said in diagnosis.pictures(found)]
    weights = [(image, "") for image in diagnosis.weights(found)]
    return "".join(
        [
            f"<h3>The best final run, {html.escape(trial)}</h3>",
            f'<div class="grid">{"".join(plots)}</div>' if plots else "",
            f"<h3>Its most confident mistakes</h3>{_pictures(mistakes)}" if mistakes else "",
            table(*diagnosis.worst_table(found)),
            f"<h3>Weights of its first layer</h3>{_pictures(weights)}" if weights else "",
        ]
    )


def _pictures(images: Sequence[tuple[str, str]]) -> str:
    """Return pictures, PNGs in base64 with what is said below them."""
    shown = (
        f'<figure><img alt="" src="data:image/png;base64,{image}"><figcaption>{said}</figcaption></figure>'
        for image, said in images
    )
    return f'<div class="pictures">{"".join(shown)}</div>'


def _failures(results: Results) -> str:
    """Return the failures, alike ones together, most frequent first."""
    kinds = failures(results)
    if not kinds:
        return "<p>None.</p>"
    rows = []
    for last, kind in kinds[:MOST_FAILURES]:
        error = kind["error"].iloc[0]
        shown = error if len(error) <= MOST_ERROR else "…" + error[-MOST_ERROR:]
        folded = f"<summary>{html.escape(last)}</summary><pre>{html.escape(shown)}</pre>"
        stages = ", ".join(dict.fromkeys(kind["stage"].astype(str)))
        rows.append([len(kind), Markup(f"<details>{folded}</details>"), stages, kind["trial_id"].iloc[0]])
    more = f"<p>{len(kinds) - MOST_FAILURES} more kinds.</p>" if len(kinds) > MOST_FAILURES else ""
    return table(["trials", "error", "stages", "for example"], rows) + more
