"""One self-contained page about a sweep, finished or still running.

It asks for nothing from outside, which its content security policy enforces; plotly.js is inlined once,
compressed. Every string of the user's is escaped, and only scripts that carry the page's nonce run.
"""

from __future__ import annotations

import html
import json
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestrator.plots.theme import template
from orchestrator.report import checks, diagnosis, drawn, pictures, provenance, stages
from orchestrator.report.ensemble import ensemble_parts
from orchestrator.report.header import header
from orchestrator.report.markup import bullets, folded, paragraph, script_json, section, table
from orchestrator.report.measured import Measured, measure
from orchestrator.report.shell import PAGE, SCRIPT, STYLE, plotly_source
from orchestrator.report.story import story
from orchestrator.results.load import Results, load_results
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import write_atomic


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
    # Compressed meanwhile, on another processor.
    with ThreadPoolExecutor(1) as pool:
        plotly = pool.submit(plotly_source)
        shown = _sections(results)
    sections = "\n".join(shown.values())
    return PAGE.format(
        nonce=secrets.token_urlsafe(16),
        title=html.escape(results.name),
        style=STYLE,
        header=header(results, now),
        body=f'<div class="page">{_contents(shown)}<div>{sections}</div></div>',
        templates=script_json(json.dumps({"light": template(dark=False), "dark": template(dark=True)})),
        plotly=plotly.result(),
        script=SCRIPT,
    )


def _sections(results: Results) -> dict[str, str]:
    """Return what there is to show, by title."""
    measured = measure(results)
    made = {title: section(title, part(results, measured), anchor=_anchor(title)) for title, part in PARTS}
    return {title: text for title, text in made.items() if text}


def _story(results: Results, measured: Measured) -> str:
    chapters = []
    for chapter in story(results, measured):
        said = "".join(paragraph(one) + bullets(listed) for one, listed in chapter.said)
        chapters.append(f"<h3>{html.escape(chapter.title)}</h3>{said}")
    return f'<div class="story">{"".join(chapters)}</div>'


def _settings(results: Results, _: Measured) -> str:
    return stages.best_table(results) + stages.finals_table(results)


def _ensemble(results: Results, _: Measured) -> str:
    return ensemble_parts(results.ensemble or {})


def _best_final(results: Results, _: Measured) -> str:
    """Return the best final run in detail: mistakes, weights, curves, calibration, layers."""
    best = diagnosis.best_final(results)
    if best is None:
        return ""
    trial, found = best
    mistakes, weights = pictures.mistakes(found), pictures.weights(found)
    return "".join(
        [
            paragraph(f"{trial}, on the validation data."),
            f"<h3>Its most confident mistakes</h3>{mistakes}" if mistakes else "",
            drawn.cards(diagnosis.detail_figures(results, trial, found)),
            f"<h3>Weights of its first layer</h3>{weights}" if weights else "",
        ]
    )


def _findings(_: Results, measured: Measured) -> str:
    return table(*diagnosis.findings_table(measured.findings))


def _inputs(results: Results, _: Measured) -> str:
    return pictures.inputs(results)


def _checks(results: Results, _: Measured) -> str:
    head, rows = checks.checks_table(results)
    shown = table(head, rows)
    # Only those that failed say why and what to do.
    return folded(f"None of {len(rows)} checks failed", shown) if len(head) == len(checks.HEAD) else shown


def _failures(results: Results, _: Measured) -> str:
    return stages.failures_table(results)


def _provenance(results: Results, _: Measured) -> str:
    packages = provenance.package_rows(results)
    return "".join(
        [
            table(("what", "value"), provenance.origin_rows(results)),
            paragraph(provenance.first_packages(packages)),
            folded(f"All {len(packages)} packages", table(("package", "version"), packages)),
        ]
    )


# The result first, then how it came about, then what it rests on.
PARTS: tuple[tuple[str, Callable[[Results, Measured], str]], ...] = (
    ("The search in words", _story),
    ("Best settings", _settings),
    ("Ensemble", _ensemble),
    ("The best final run", _best_final),
    ("Stages", drawn.stage_parts),
    ("Cost against plan", drawn.cost_parts),
    ("Ranges and why", drawn.range_parts),
    ("What matters", drawn.importance_parts),
    ("Objective by parameter", drawn.slice_parts),
    ("Whole settings", drawn.together_parts),
    ("Learning curves", drawn.curve_parts),
    ("How far rankings carry over", drawn.ranking_parts),
    ("How much more data would help", drawn.data_parts),
    ("Diagnosis", _findings),
    ("Inputs as the network sees them", _inputs),
    ("Checks before the first stage", _checks),
    ("Learning-rate range test", drawn.range_test_parts),
    ("Failures", _failures),
    ("Where this comes from", _provenance),
)


def _anchor(title: str) -> str:
    return title.lower().replace(" ", "-")


def _contents(titles: Iterable[str]) -> str:
    links = "".join(f'<a href="#{_anchor(title)}">{html.escape(title)}</a>' for title in titles)
    return f'<nav class="contents" aria-label="Contents">{links}</nav>'
