"""The top of the page: what the sweep looks for, where it stands, and its most important figures."""

from __future__ import annotations

import html
import time

from orchestrator.report.markup import number
from orchestrator.report.units import duration
from orchestrator.results.analysis import final_settings, planned_trials, standing
from orchestrator.results.ensemble_parts import figure, part
from orchestrator.results.load import Results


def header(results: Results, now: float) -> str:
    """Return the top of the page; `now` is in seconds since the epoch."""
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    blocks = "".join(
        f"<div><b>{html.escape(value)}</b><span>{html.escape(name)}</span></div>"
        for name, value in _tiles(results)
    )
    goal = {"max": "highest", "min": "lowest"}[results.mode]
    metric, stands = html.escape(results.metric), html.escape(standing(results))
    return (
        f"<h1>{html.escape(results.name)}</h1>"
        f"<p>Looking for the {goal} <code>{metric}</code> · {stands} · as of {written}</p>"
        f'<div class="tiles">{blocks}</div>'
    )


def _tiles(results: Results) -> list[tuple[str, str]]:
    """Return what each figure is, and the figure: the results first."""
    tiles, best, finals = [], results.best(1), final_settings(results)
    tested = figure(part(results.ensemble or {}, "test").get("ensemble"))
    if tested is not None:
        tiles.append(("ensemble, held-out test", number(tested)))
    if len(best):
        stage = best["stage"].iloc[0]
        tiles.append((f"best {results.metric} ({stage})", number(float(best["objective"].iloc[0]))))
    if len(finals) and finals["seeds"].iloc[0] > 1:
        mean, spread = float(finals[f"mean {results.metric}"].iloc[0]), float(finals["std"].iloc[0])
        tiles.append(("mean over seeds of the best setting", f"{number(mean)} ± {spread:.2g}"))
    planned = sum(planned_trials(results).values())
    held = results.trials["gpu_seconds"].sum() / 3600
    spent = f"{held:.3g} GPU-h" if held else duration(float(results.trials["seconds"].sum()))
    return [*tiles, ("trials done", f"{len(results.trials):,} of {planned:,}"), ("spent in trials", spent)]
