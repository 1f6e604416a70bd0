"""Figures and the page: what they show, and that nobody's strings can do harm."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

import orchestrator
from browsing import CHROMIUM, look
from figure_texts import strings
from made_sweep import HOSTILE, make_sweep
from orchestrator import Results, UserError, plots
from orchestrator.plots.theme import plain
from orchestrator.report.html import page, write_report
from orchestrator.report.markup import number, script_json
from orchestrator.results.analysis import failures, final_settings, matched, spearman, standing, thinned
from orchestrator.results.compact import compact
from orchestrator.sweep.directory import SweepDirectory


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("plain") / "s"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("hostile") / "s", hostile=True))


def loaded(sweep: Path) -> Results:
    compact(sweep)
    return orchestrator.load_results(sweep)


@pytest.fixture(scope="module")
def plain_page(results: Results) -> Path:
    return write_report(results.path)


@pytest.fixture(scope="module")
def hostile_page(hostile: Results) -> Path:
    return write_report(hostile.path)


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
    best = points[0].y[list(points[0].marker.color).index(1.0)]
    assert best == pytest.approx(results.best(1, "coarse")["param.optimizer.lr"].iloc[0], rel=1e-6)


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


def test_the_page_stands_alone(results: Results, plain_page: Path) -> None:
    path = plain_page
    assert path == results.path / "report.html"
    text = path.read_text()
    parts = Parts(text)
    assert not [tag for tag, attributes in parts.tags if {"src", "srcset"} & set(attributes)]
    anchors = [str(attributes["href"]) for _, attributes in parts.tags if "href" in attributes]
    places = [attributes["id"] for tag, attributes in parts.tags if tag == "section"]
    assert anchors == [f"#{place}" for place in places], "the list of contents leads to every section"
    assert "default-src 'none'" in text
    assert "url(" not in text
    assert text.count('id="plotly"') == 1
    assert len(text.encode()) < 5_000_000
    plots = [tag for tag, attributes in parts.tags if attributes.get("class") == "plot"]
    # funnel, cost, importance and whole settings; ranges, slices, curves; pairs of stages; more data
    assert len(plots) == 4 + 4 + 4 + 4 + 3 + 1
    assert not [name.name for name in path.parent.glob(".report*")]


def test_the_page_shows_the_numbers(results: Results, plain_page: Path) -> None:
    shown = " ".join(Parts(plain_page.read_text()).texts)
    best = results.best(1)
    for text in ("finished", "109 of 109", number(float(best["objective"].iloc[0])), "held-out test",
                 "0.0001 … 1 (log)", "as declared", "ValueError: bad", best["trial_id"].iloc[0],
                 "3 diverged, 4 failed"):  # fmt: skip
        assert text in shown
    for value in ("0.97", "0.98", "0.96"):
        assert value in shown
    for setting in final_settings(results).index:
        assert setting in shown


def test_hostile_strings_stay_text(hostile_page: Path) -> None:
    text = hostile_page.read_text()
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
    text = page(orchestrator.load_results(sweep, missing_ok=True), now=0.0)  # nothing compacted yet
    assert "1970-01-01 00:00:00 UTC" in text
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


def test_headings_go_down_by_one_and_pictures_and_figures_say_what_they_show(hostile_page: Path) -> None:
    tags = Parts(hostile_page.read_text()).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    shown = [attributes for tag, attributes in tags if attributes.get("class") == "plot" or tag == "img"]
    assert shown
    assert all(one.get("aria-label") or one.get("alt") for one in shown)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_a_narrow_page_of_either_look_holds_everything_and_runs_nothing_else(
    hostile_page: Path, tmp_path: Path
) -> None:
    figures = len([one for _, one in Parts(hostile_page.read_text()).tags if one.get("class") == "plot"])
    seen = look(hostile_page, [(390, "light"), (390, "dark")], tmp_path)
    assert seen.complaints == [], "no error, and nothing refused by the page's policy"
    light, dark = sorted(seen.frames, key=lambda frame: frame["look"] == "dark")
    assert (light["look"], dark["look"]) == ("light", "dark")
    assert light["back"] != dark["back"]
    assert light["ink"] != dark["ink"]
    assert (light["drawn"], light["left"]) == (figures, 0)
    for frame in seen.frames:
        assert frame["outside"] == []
        assert frame["scrolls"] <= frame["width"]
        assert frame["asked"] == [], "nothing is asked for"
