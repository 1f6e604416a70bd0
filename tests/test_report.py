"""Figures and the page: what they show, and that nobody's strings can do harm."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import orchestrator
from made_sweep import HOSTILE, make_sweep
from orchestrator import Results, UserError, plots
from orchestrator.plots.theme import plain
from orchestrator.report.html import page, write_report
from orchestrator.report.markup import number, script_json
from orchestrator.results.analysis import failures, final_settings, matched, spearman, standing, thinned
from orchestrator.results.compact import compact
from orchestrator.sweep.directory import SweepDirectory

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("plain") / "s"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("hostile") / "s", hostile=True))


def loaded(sweep: Path) -> Results:
    compact(sweep)
    return orchestrator.load_results(sweep)


class Parts(HTMLParser):
    """The elements of a page, its JSON and the text outside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: list[str] = []
        self.texts: list[str] = []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = str(dict(attrs).get("type", tag)) if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "application/json":
            self.json.append(data)
        elif not self.inside:
            self.texts.append(data)


def strings(value: Any) -> Iterator[str]:
    """All texts anywhere in a figure, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in strings(item))
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        yield from (text for item in value for text in strings(item))


def test_the_funnel_counts_every_planned_trial(results: Results) -> None:
    bars = plots.funnel(results).data
    assert [sum(values) for values in zip(*(bar.x for bar in bars), strict=True)] == [64, 24, 12, 9]
    assert {bar.name for bar in bars} == {"completed", "diverged", "failed"}


def test_the_narrowing_has_all_ranges_and_measured_trials(results: Results) -> None:
    figure = plots.ranges(results, ["optimizer.lr"])
    boxes, *points = figure.data
    lows = [results.spaces[stage]["optimizer.lr"]["low"] for stage in ("coarse", "medium", "fine")]
    assert [boxes.y[6 * i] for i in range(3)] == lows
    assert figure.layout.yaxis.type == "log"
    measured = results.trials[results.trials["objective"].notna()]
    assert sum(len(trace.y) for trace in points) == len(measured)
    assert max(points[0].marker.color) == 1.0
    best = points[0].y[points[0].marker.color.index(1.0)]
    assert best == results.best(1, "coarse")["param.optimizer.lr"].iloc[0]


def test_choices_lie_at_the_places_of_their_values(results: Results) -> None:
    figure = plots.slices(results, ["model.width"])
    assert list(figure.layout.xaxis.ticktext) == ["16", "32", "64", "128"]
    widths = thinned(results, "coarse", 1000)["param.model.width"].tolist()
    placed = [[16, 32, 64, 128][round(x)] for x in figure.data[0].x]
    assert placed == widths


def test_learning_curves_part_the_trials_by_gaps(results: Results) -> None:
    figure = plots.learning_curves(results, ["fine"])
    others, best = figure.data
    assert best.text[0] == results.best(1, "fine")["trial_id"].iloc[0]
    assert len(best.x) == 10 + 1
    assert best.x[-1] is None
    assert best.line.width > others.line.width


def test_rank_correlation_is_of_promoted_settings(results: Results) -> None:
    match = matched(results, "coarse", "medium")
    promoted = results.at("medium")
    promoted = promoted[(promoted["origin"] != "sampled") & promoted["objective"].notna()]
    assert sorted(match.index) == sorted(promoted["parent"])
    assert set(match["origin"]) == {"survivor", "control"}
    assert len(matched(results, "fine", "final")) == 3  # of three seeds each
    figure = plots.rank_correlation(results)
    assert f"Spearman {spearman(match):.2f} (n = {len(match)})" in figure.layout.annotations[0].text
    reverse = match.assign(after=-match["before"])
    assert spearman(reverse) == pytest.approx(-1)
    assert spearman(match.head(2)) is None
    assert spearman(match.assign(after=1.0)) is None


def test_large_sweeps_are_thinned_and_keep_their_best(results: Results) -> None:
    few = thinned(results, "coarse", 10)
    assert len(few) == 10
    assert few["trial_id"].iloc[-1] == results.best(1, "coarse")["trial_id"].iloc[0]


def test_texts_of_figures_are_escaped(hostile: Results) -> None:
    drawn = [plots.funnel(hostile), plots.ranges(hostile), plots.slices(hostile)]
    drawn += [plots.learning_curves(hostile), plots.rank_correlation(hostile)]
    for figure in drawn:
        assert not [text for text in strings(figure.to_dict()) if re.search(r"<(?!/?b>|br>|/?extra>)", text)]
    assert plain("<b>$x$\n" + "y" * 99, 12) == "&lt;b&gt;&#36;x&#36; yyyy…"


def test_figures_of_a_sweep_without_results_are_drawn(tmp_path: Path) -> None:
    results = loaded(make_sweep(tmp_path / "s", done=0))
    assert len(results.trials) == 0
    for draw in (plots.funnel, plots.ranges, plots.slices, plots.learning_curves):
        assert draw(results).to_json()
    assert "n = 0" in plots.rank_correlation(results).layout.annotations[0].text


def test_the_page_stands_alone(results: Results) -> None:
    path = write_report(results.path)
    assert path == results.path / "report.html"
    text = path.read_text()
    parts = Parts(text)
    assert not [tag for tag, attributes in parts.tags if {"src", "href", "srcset"} & set(attributes)]
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert text.count('id="plotly"') == 1
    assert len(text.encode()) < 5_000_000
    plots = [tag for tag, attributes in parts.tags if attributes.get("class") == "plot"]
    assert len(plots) == 1 + 4 + 4 + 4 + 3
    assert not [name.name for name in path.parent.glob(".report*")]


def test_the_page_shows_the_numbers(results: Results) -> None:
    shown = " ".join(Parts(page(results, now=0.0)).texts)
    best = results.best(1)
    for text in ("finished", "109 of 109", number(float(best["objective"].iloc[0])), "held-out test",
                 "0.0001 … 1 (log)", "as declared", "ValueError: bad", best["trial_id"].iloc[0],
                 "1970-01-01 00:00:00 UTC", "3 diverged, 4 failed"):  # fmt: skip
        assert text in shown
    for value in ("0.97", "0.98", "0.96"):
        assert value in shown
    for setting in final_settings(results).index:
        assert setting in shown


def test_hostile_strings_stay_text(hostile: Results) -> None:
    text = page(hostile, now=0.0)
    parts = Parts(text)
    scripts = [attributes for tag, attributes in parts.tags if tag == "script"]
    assert len([one for one in scripts if one.get("type") is None]) == 1  # ours
    assert not [tag for tag, _ in parts.tags if tag in ("img", "i") and "onerror" in str(_)]
    for one in parts.json:
        json.loads(one)
    assert HOSTILE[1] in " ".join(parts.texts)
    assert text.count("</title>") == 1
    assert text.encode()  # no lone surrogates


def test_json_cannot_end_its_script() -> None:
    assert json.loads(script_json('["</script>\u2028"]')) == ["</script>\u2028"]
    assert not set("<\u2028") & set(script_json('["</script>\u2028"]'))


def test_the_page_works_while_the_sweep_runs(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", done=0.6)
    text = write_report(sweep).read_text()  # nothing compacted yet
    assert "at coarse: 0 of 64 trials done" in text
    compact(sweep)
    assert "at medium: 2 of 24 trials done" in write_report(sweep).read_text()
    SweepDirectory(sweep).cancelled.write_text("{}")
    assert standing(orchestrator.load_results(sweep)) == "cancelled"
    with pytest.raises(UserError, match="no sweep's directory"):
        write_report(tmp_path)


def test_failures_alike_are_shown_together(results: Results) -> None:
    ((line, trials),) = failures(results)
    assert line == "ValueError: bad"
    assert len(trials) == (results.trials["state"] == "failed").sum() == 6


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_chromium_draws_the_figures_and_runs_nothing_else(hostile: Results, tmp_path: Path) -> None:
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    flags += " --disable-background-networking --disable-component-update --window-size=1200,9000"
    flags += " --enable-logging=stderr --virtual-time-budget=20000 --dump-dom"
    url = write_report(hostile.path).as_uri()
    run = subprocess.run(
        [str(CHROMIUM), *flags.split(), f"--user-data-dir={tmp_path}", url],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert run.stdout.count('class="plot js-plotly-plot"') == 1 + 6 + 6 + 4 + 3
    assert 'class="plot"' not in run.stdout
    assert "CONSOLE" not in run.stderr  # no error, and nothing refused by the page's policy
