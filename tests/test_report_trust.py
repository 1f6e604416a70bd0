"""What is shown of trust between scales and of importance: page, terminal, plain data."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import orchestrator
from made_sweep import make_sweep
from orchestrator import Results
from orchestrator.control.agreements import agreements as from_facts
from orchestrator.control.standing import PhaseStanding, Standing
from orchestrator.planning.narrowing.trust import carries_over, describe
from orchestrator.planning.plan import Cost, Phase, Plan, Scale
from orchestrator.report.html import page
from orchestrator.report.terminal import standing_view
from orchestrator.report.trust import agreement_table, importance_table
from orchestrator.results.compact import compact
from orchestrator.results.trust import agreements
from orchestrator.sweep.directory import STAGE, TrialSpec
from orchestrator.sweep.facts import PhaseFacts
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, Outcome


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("sweep") / "s"))


def loaded(sweep: Path) -> Results:
    compact(sweep)
    return orchestrator.load_results(sweep)


def test_each_pair_of_stages_is_measured(results: Results) -> None:
    found = agreements(results)
    assert [(one.low, one.high) for one in found] == [
        ("coarse", "medium"), ("medium", "fine"), ("fine", "final")
    ]  # fmt: skip
    promoted = results.at("medium")
    promoted = promoted[(promoted["origin"] != "sampled") & (promoted["state"] != FAILED)]
    assert found[0].settings == promoted["setting_id"].nunique()
    assert found[0].correlation > 0.3
    assert carries_over(found[0])
    columns, rows = agreement_table(results)
    assert len(rows) == 3
    assert rows[0][columns.index("what follows")] == describe(found[0])
    assert rows[2][columns.index("Kendall's tau")] == "–", "three settings are too few"


def test_importance_is_shown_with_what_matters_most_first(results: Results) -> None:
    columns, rows = importance_table(results)
    assert columns[:2] == ("parameter", "coarse")
    assert {row[0] for row in rows} == set(results.parameters)
    coarse = {str(row[0]): row[1] for row in rows}
    assert int(str(coarse["optimizer.lr"]).rstrip("%")) > 50


def test_the_page_shows_both(results: Results) -> None:
    text = page(results, now=0.0)
    assert "How far rankings carry over" in text
    assert "coarse → medium" in text
    assert "What matters" in text


def test_a_sweep_that_has_only_begun_shows_neither(tmp_path: Path) -> None:
    begun = loaded(make_sweep(tmp_path / "s", done=0.02))
    assert agreements(begun) == ()
    assert importance_table(begun)[1] == []
    assert "How far rankings carry over" not in page(begun, now=0.0)


def test_status_says_it_in_words_and_as_plain_data(results: Results) -> None:
    found = agreements(results)
    standing = Standing(
        name="s", state="running", message="", metric="m", mode="max", unit="GPU", hours=0.0,
        phases=(PhaseStanding(name="coarse", kind="stage", planned=4),), planned_hours=None,
        seconds_left=None, agreements=found,
    )  # fmt: skip
    console = Console(width=400, file=io.StringIO())
    console.print(standing_view(standing))
    assert isinstance(console.file, io.StringIO)
    assert describe(found[0]) in console.file.getvalue()
    plain = json.loads(json.dumps(standing.to_json(), allow_nan=False))["agreements"]
    assert [one["says"] for one in plain] == [describe(one) for one in found]
    assert plain[2]["correlation"] is None


def test_facts_alone_tell_it_too() -> None:
    def phase(name: str, prefix: str, values: list[float], worse: str = "") -> PhaseFacts:
        trials = [
            TrialSpec(trial_id=f"{prefix}{i}", setting_id=str(i), params={"x": i}, seed=0)
            for i in range(len(values))
        ]
        outcomes = {
            spec.trial_id: Outcome(trial=spec.trial_id, state=COMPLETED, metrics={"loss": value}, seconds=1.0)
            for spec, value in zip(trials, values, strict=True)
        }
        if worse:
            outcomes[f"{prefix}0"] = Outcome(trial=f"{prefix}0", state=worse, metrics={}, seconds=1.0)
        known = Phase(kind=STAGE, name=name, trials=len(values), scale=Scale())
        return PhaseFacts(phase=known, waves=1, trials=tuple(trials), outcomes=outcomes)

    plan = Plan(
        uid="u", name="s", metric="loss", mode="min", created=0.0, folder=".", unit="GPU", phases=(),
        total=Cost(), full_scale_share=None,
    )  # fmt: skip
    low = phase("low", "a", [float(i) for i in range(9)])
    (found,) = from_facts(
        plan, [low, phase("high", "b", [2.0 * i for i in range(9)]), PhaseFacts(phase=low.phase)]
    )
    assert (found.low, found.high, found.settings) == ("low", "high", 9)
    assert found.correlation == pytest.approx(1.0)
    (less,) = from_facts(plan, [low, phase("high", "b", [2.0 * i for i in range(9)], DIVERGED)])
    assert less.correlation < 0.9, "the best one diverged"
    (fewer,) = from_facts(plan, [low, phase("high", "b", [2.0 * i for i in range(9)], FAILED)])
    assert fewer.settings == 8
    assert from_facts(plan, [low]) == ()
