"""The story in words: what was tried, found and ruled out, what is next; pictures and provenance."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from made_sweep import make_sweep
from orchestrator import Results
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.plots.ladder import scale_text
from orchestrator.report.html import page
from orchestrator.report.measured import measure
from orchestrator.report.next_steps import next_steps
from orchestrator.report.pictures import inputs, mistakes, weights
from orchestrator.report.provenance import origin_rows, package_rows
from orchestrator.report.remembered import remembered_importances, remembered_path
from orchestrator.report.ruled_out import at_an_edge, change, ruled_out
from orchestrator.report.story import story
from orchestrator.results.compact import compact
from orchestrator.results.trust import importances
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import write_json

LR = {"kind": "float", "low": 1e-4, "high": 1.0, "log": True, "reason": "as declared"}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAI"


def loaded(sweep: Path) -> Results:
    compact(sweep)
    return orchestrator.load_results(sweep, missing_ok=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return loaded(make_sweep(tmp_path_factory.mktemp("plain") / "s"))


def texts(results: Results) -> dict[str, str]:
    return {str(name): str(text) for name, text in origin_rows(results)}


def told(results: Results) -> dict[str, str]:
    """Each chapter as one text."""
    return {
        chapter.title: " ".join(" ".join([lead, *listed]) for lead, listed in chapter.said)
        for chapter in story(results, measure(results))
    }


def test_the_story_tells_what_was_tried_found_and_ruled_out(results: Results) -> None:
    chapters = told(results)
    assert list(chapters) == [
        "What was found", "What is next", "What was tried", "What was ruled out, and why",
        "How far rankings carry over", "How much more data would help",
    ]  # fmt: skip
    tried = chapters["What was tried"]
    assert "109 trials of" in tried
    assert "coarse: 64 trials on 10% data, 2 classes, 3 epochs, 29 training samples; 3 diverged" in tried
    assert "12 promoted from the stage before" in tried
    found = chapters["What was found"]
    best = results.trials[results.trials["stage"] == "final"].groupby("setting_id")["objective"].mean().max()
    assert f"val/accuracy {best:.4g} (mean of 3 seeds" in found
    assert "It was first tried at " in found
    assert "ran again as final-0000" in found
    assert "optimizer.lr (" in found
    assert "6 trials failed with: ValueError: bad" in found
    out = chapters["What was ruled out, and why"]
    low = results.spaces["medium"]["optimizer.lr"]["low"]
    assert "coarse ruled out parts of 3 parameters for medium" in out
    assert f"optimizer.lr below {low:.3g} and above" in out
    assert "trials lie here" in out
    assert "Rankings carry over from coarse to medium" in chapters["How far rankings carry over"]
    assert "can't be told" in chapters["How much more data would help"]
    assert "All that was planned has run." in chapters["What is next"]


def test_what_is_next_while_it_runs(tmp_path: Path) -> None:
    begun = loaded(make_sweep(tmp_path / "none", done=0))
    assert next_steps(begun, {})[0] == "Next comes coarse: 64 trials on 10% data, 2 classes, 3 epochs."
    assert told(begun)["What was tried"].strip() == "Nothing has been tried yet."
    half = loaded(make_sweep(tmp_path / "half", done=0.6))
    running, fine, final, ensemble = next_steps(half, {})
    assert running == "medium is running: 2 of 24 trials have ended."
    assert fine.startswith("Then fine: 12 trials on 100% data, 10 epochs")
    assert final.startswith("Then the final runs: 9 trainings of the best settings")
    assert ensemble.startswith("Then the ensemble")
    trained = make_sweep(tmp_path / "trained")
    SweepDirectory(trained).ensemble_result.unlink()
    (combining,) = next_steps(loaded(trained), {})
    assert "are being combined" in combining
    SweepDirectory(trained).cancelled.write_text("{}")
    assert next_steps(loaded(trained), {}) == ["The sweep was cancelled: nothing more will run."]


def test_a_failed_check_and_failing_trials_come_first(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", done=0)
    check = {"id": "D3", "name": "a small batch can be fitted", "passed": False, "saw": "it stays <b>2.3</b>",
             "cause": "labels shuffled", "next": "look at the labels"}  # fmt: skip
    write_json(SweepDirectory(sweep).checks_result, {"checks": [check]})
    results = loaded(sweep)
    first, second, *_ = next_steps(results, {})
    assert first == (
        "Check D3 failed, a small batch can be fitted: it stays <b>2.3</b>. Likely: labels shuffled. "
        "look at the labels."
    )
    assert second == "The first stage waits until a person has looked at that."
    text = page(results, now=0.0)
    assert "it stays &lt;b&gt;2.3&lt;/b&gt;" in text
    assert "<b>2.3" not in text
    SweepDirectory(sweep).accepted.write_text("{}")
    assert second not in next_steps(results, {})
    done = loaded(make_sweep(tmp_path / "failed"))
    rows = done.trials.assign(state="failed", error="ValueError: no", objective=math.nan)
    failed = replace(done, trials=rows)
    assert any("64 of 64 trials of coarse failed" in one for one in next_steps(failed, {}))
    assert "No trial has a result yet" in told(failed)["What was found"]
    assert "ValueError: no" in page(failed, now=0.0)


@pytest.mark.parametrize(
    ("before", "after", "cut", "added"),
    [
        (LR, {**LR, "low": 1e-3}, "below 0.001", ""),
        (LR, {**LR, "low": 1e-3, "high": 0.1}, "below 0.001 and above 0.1", ""),
        (LR, {**LR, "low": 1e-3, "high": 10.0}, "below 0.001", "up to 10"),
        (LR, LR, "", ""),
        ({"values": [1, True, "a"]}, {"values": [True, "a"]}, "1", ""),
        ({"values": [16, 32]}, {"values": [32, 64]}, "16", "64"),
        ({"values": [f"v{i}" for i in range(20)]}, {"values": ["v0", "v1"]},
         "v2, v3, v4, v5, v6, v7, v8, v9 and 10 more", ""),
    ],
)  # fmt: skip
def test_what_a_stage_cut_off_and_added(before: Any, after: Any, cut: str, added: str) -> None:
    found = change("p", before, after)
    assert (found.cut, found.added, found.held) == (cut, added, False)


def test_reasons_are_told_without_how_sure_they_are() -> None:
    reason = (
        "narrowed to 50% of its width: the 4 best of 14 lie in 0.003 … 0.02; the lower end is sure to ± 5% "
        "of the width; moves along the drift; importance 37%; cut 50% as hard because few"
    )
    found = change("p", LR, {**LR, "low": 1e-3, "reason": reason})
    assert found.why == "the 4 best of 14 lie in 0.003 … 0.02; moves along the drift"


def test_what_was_held_is_compared_with_what_was_searched_before() -> None:
    held = {**LR, "low": 0.1, "high": 0.1}
    spaces = {"a": {"lr": LR}, "b": {"lr": held}, "c": {"lr": {**LR, "high": 0.5}}}
    (_, first), (_, second) = ruled_out(spaces, ["a", "b", "c"])
    assert first == ["held at one value: lr"]
    assert second == ["lr above 0.5: as declared"]


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        ({"data": 0.125, "classes": 5, "epochs": 1.0}, "12.5% data, 5 classes, 1 epoch"),
        ({"data": 5000.0, "classes": None, "epochs": 0.5}, "5,000 samples, 0.5 epochs"),
        ({"data": None}, ""),
    ],
)
def test_a_scale_in_words(scale: Any, said: str) -> None:
    assert scale_text({"scale": scale}) == said


def test_only_so_many_cuts_are_told_the_largest_first() -> None:
    wide = {f"p{i}": {**LR, "log": False, "low": 0.0} for i in range(9)}
    narrow = {f"p{i}": {**LR, "log": False, "low": i / 10, "reason": ""} for i in range(9)}
    ((lead, cuts),) = ruled_out({"a": wide, "b": narrow}, ["a", "b"])
    assert lead == "a ruled out parts of 8 parameters for b; 1 kept all that they had:"
    assert cuts[0] == "p8 below 0.8"
    assert cuts[-1] == "and parts of 2 more, see the ranges"


def test_the_best_at_an_edge_is_told_unless_the_edge_is_a_limit() -> None:
    space = {"lr": LR, "drop": {"kind": "float", "low": 0.0, "high": 0.7, "limits": [0.0, 0.95]}}
    edges = list(at_an_edge(space, {"lr": 0.98, "drop": 0.0}))
    assert edges == ["the best lr, 0.98, lies at the upper end of its range, 1"]
    (said,) = at_an_edge(space, {"lr": 0.01, "drop": 0.7})
    assert said.endswith("the upper end of its range, 0.7")
    assert not list(at_an_edge(space, {"lr": None, "drop": math.nan}))


def test_pictures_are_shown_with_what_they_are_and_nothing_else_gets_in(results: Results) -> None:
    worst = [
        {"id": 7, "target": "<i>5</i>", "predicted": 9, "confidence": 0.99, "picture": PNG},
        {"id": 8, "target": 1, "predicted": 2, "picture": '"><script>alert(1)</script>'},
        "no mapping",
    ]
    shown = mistakes({"predictions": {"worst": worst}})
    assert shown.count("<img ") == 1
    assert 'alt="&lt;i&gt;5&lt;/i&gt; taken for 9"' in shown
    assert "<script>" not in shown
    assert weights({"weights": {"pictures": [PNG, None, "x"]}}).count("<img ") == 1
    odd: list[dict[str, Any]] = [{}, {"predictions": []}, {"predictions": {"worst": 3}}]
    for broken in [*odd, {"weights": {"pictures": "x"}}]:
        assert mistakes(broken) + weights(broken) == ""
    samples = [
        {"label": "cat", "picture": f"data:image/png;base64,{PNG}"},
        {"label": "3", "values": [0.5, None]},
    ]
    write_json(
        SweepDirectory(results.path).checks_result,
        {
            "checks": [
                {"id": "D6", "passed": True, "saw": "64×1×8×8", "name": "n", "details": {"samples": samples}}
            ]
        },
    )
    seen = inputs(results)
    assert 'alt="cat"' in seen
    assert "0.5, –" in seen
    SweepDirectory(results.path).checks_result.write_text("{half")
    assert inputs(results) == ""
    SweepDirectory(results.path).checks_result.unlink()


def test_provenance_is_told_as_far_as_it_is_known(results: Results) -> None:
    assert texts(results)["page written by"].startswith("orchestrator ")
    directory = SweepDirectory(results.path)
    git = {"commit": "abc123", "branch": "main", "dirty": True, "diff": "snapshot.diff"}
    write_json(
        directory.path / "provenance.json",
        {"git": git, "host": "n1", "user": "eva", "python": "3.11.7", "time": 1.7e9,
         "packages": {"zlib": "1", "torch": "2.4"}},
    )  # fmt: skip
    write_json(directory.asked, {"file": "sweep.yaml", "overrides": ["slurm=gpu", "name=<b>"]})
    directory.config.write_text(
        "seed: 3\ndatasets: {_target_: mine.data, samples: 1797, fingerprint: 1 file}\n"
    )
    rows = texts(results)
    assert rows["commit"] == "abc123 on main, changed since (see snapshot.diff)"
    assert rows["by"] == "eva on n1"
    assert rows["sweep file"] == "sweep.yaml slurm=gpu name=<b>"
    assert rows["dataset"] == "mine.data, 1,797 samples, 1 file"
    assert rows["planned"] == "2023-11-14 22:13 UTC"
    assert package_rows(results)[0] == ["torch", "2.4"]
    for broken in ("[]", "{", json.dumps({"git": 3, "packages": [], "time": "x"})):
        (directory.path / "provenance.json").write_text(broken)
        directory.config.write_text(": [")
        directory.asked.write_text(broken)
        assert origin_rows(results)


def test_importance_is_measured_again_only_where_results_are_new(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def counting(some: Results) -> dict[str, dict[str, float]]:
        asked.append(some.stages)
        return importances(some)

    monkeypatch.setattr("orchestrator.report.remembered.importances", counting)
    path = remembered_path(SweepDirectory(results.path))
    path.unlink(missing_ok=True)
    first = remembered_importances(results)
    assert first == importances(results)
    assert remembered_importances(results) == first
    assert asked == [["coarse", "medium", "fine"]]
    trials = results.trials.copy()
    trials.loc[trials["trial_id"] == "fine-00000", "objective"] = 0.123
    assert remembered_importances(replace(results, trials=trials))["coarse"] == first["coarse"]
    assert asked[1:] == [["fine"]]
    for broken in ("{", '{"coarse": 3}', '{"coarse": {"mark": "x", "shares": {"optimizer.lr": "much"}}}'):
        path.write_text(broken)
        assert remembered_importances(results) == first


def test_a_plan_remembers_what_it_was_asked_for(tmp_path: Path) -> None:
    words = ("stages.coarse.trials=8", f"dir={tmp_path / 'sweep'}")
    freeze_plan(work_out(Path("examples/digits.yaml"), words))
    directory = SweepDirectory(tmp_path / "sweep")
    assert json.loads(directory.asked.read_text()) == {"file": "digits.yaml", "overrides": list(words)}
    rows = texts(orchestrator.load_results(directory.path, missing_ok=True))
    assert rows["sweep file"] == f"digits.yaml {' '.join(words)}"
    assert rows["dataset"].endswith("1,797 samples, 10 classes")
    assert rows["commit"]
