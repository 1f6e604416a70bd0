"""What the page and the terminal say of an ensemble: all of it, nothing that is not so, and no harm done."""

from __future__ import annotations

import copy
import json
import math
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import orchestrator
from commands import orchestrate
from made_sweep import HOSTILE, make_sweep
from orchestrator import UserError
from orchestrator.control.standing import Standing
from orchestrator.report import ensemble_tables as tables
from orchestrator.report import ensemble_words as words
from orchestrator.report.ensemble import ensemble_figures, ensemble_parts
from orchestrator.report.html import page
from orchestrator.report.terminal import show_end
from orchestrator.results.compact import compact
from orchestrator.results.ensemble_file import read_ensemble
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json, write_json


def member(number: int, weight: float, **more: Any) -> dict[str, Any]:
    one = {"trial_id": f"final-0000{number}", "setting_id": "s1", "model": "cnn", "seed": number, "step": 9}
    return {**one, "kind": "checkpoint", "checkpoint": f"m{number}.pt", "parts": [], "weight": weight, **more}


BINS = [
    {"confidence": 0.6, "accuracy": 0.5, "count": 20},
    {"confidence": 0.9, "accuracy": 0.95, "count": 340},
]
FOUND: dict[str, Any] = {
    "version": 2,
    "task": "classification",
    "score": "accuracy",
    "mode": "max",
    "combine": "blend",
    "candidates": 45,
    "skipped": [{"checkpoint": "m7.pt", "why": "EOFError: the file ends early"}],
    "members": [member(1, 0.25), member(2, 0.75, kind="average")],
    "best_single": member(1, 1.0),
    "soup": {**member(1, 1.0), "barrier": 0.8, "note": "Between seeds the loss rises by 0.8 nats"},
    "temperature": {"best_single": 1.5, "ensemble": 0.9},
    "nested": {
        "folds": 5,
        "methods": {
            "average": {"value": 0.951, "gain": 0.01, "gain_error": 0.004},
            "blend": {"value": 0.96, "gain": 0.019, "gain_error": 0.005},
        },
        "chosen": "blend",
        "why": "the plain average is more than one standard error below",
    },
    "validation": {
        "best_single": 0.94, "average_member": 0.93, "ensemble": 0.96, "soup": 0.945, "student": 0.95,
    },
    "test": {
        "best_single": 0.93, "average_member": 0.925, "ensemble": 0.955, "soup": 0.94, "student": 0.948,
        "student_labels": 0.931,
    },
    "test_intervals": {"best_single": [0.91, 0.95], "ensemble": [0.94, 0.97]},
    "gains": {
        "over_best_single": {"value": 0.025, "low": 0.004, "high": 0.041},
        "over_average_member": {"value": 0.03, "low": 0.01, "high": 0.05},
        "soup_over_best_single": {"value": 0.01, "low": -0.01, "high": 0.03},
        "student_over_labels": {"value": 0.017, "low": 0.001, "high": 0.03},
        "student_below_ensemble": {"value": 0.007, "low": -0.002, "high": 0.015},
    },
    "methods": {"average": {"value": 0.95, "low": 0.93, "high": 0.965}, "blend": {"value": 0.955}},
    "ablation": [
        {"kinds": ["seeds"], "members": 3, "value": 0.94, "low": 0.92, "high": 0.96, "gain": 0.01,
         "gain_low": -0.004, "gain_high": 0.02},
        {"kinds": ["seeds", "models"], "members": 6, "value": 0.955, "low": 0.94, "high": 0.97, "gain": 0.025,
         "gain_low": 0.004, "gain_high": 0.041},
    ],
    "other_scores": {"log_loss": {"best_single": 0.31, "ensemble": 0.17}},
    "calibration": {
        "best_single": {"ece": 0.06, "ece_scaled": 0.02, "bins": BINS},
        "ensemble": {"ece": 0.02, "ece_scaled": 0.01, "bins": BINS},
    },
    "coverage": {"best_single": [[0.5, 0.99], [1.0, 0.93]], "ensemble": [[0.5, 1.0], [1.0, 0.955]]},
    "validation_samples": 360,
    "test_samples": 360,
    "test_looks": 1,
    "student": {
        "chosen": {"trial_id": "student-00001", "params": {"model.width": 16}},
        "sizes": [
            {"params": {"model.width": 8}, "parameters": 700, "validation": 0.93, "test": 0.92,
             "labels_validation": 0.91, "labels_test": 0.9},
            {"params": {"model.width": 16}, "parameters": 1500, "validation": 0.95, "test": 0.948,
             "labels_validation": 0.935, "labels_test": 0.931},
        ],
    },
}  # fmt: skip
VERSION_1 = {
    "score": "log_loss", "mode": "min", "candidates": 9, "combine": "greedy", "skipped": [],
    "members": [{"trial_id": "final-00000", "setting_id": "s", "seed": 0, "step": 9, "weight": 3}],
    "validation": {"best_single": 0.3, "ensemble": 0.2, "average_member": 0.35},
    "test": {"best_single": 0.31, "ensemble": 0.22, "average_member": 0.36}, "test_samples": 360,
}  # fmt: skip


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(FOUND), **parts}


def test_every_figure_stands_in_a_table() -> None:
    head, rows = tables.scores_table(FOUND)
    assert list(head) == ["accuracy", "validation", "held-out test", "95% interval", "test log loss"]
    assert rows[2] == ["ensemble (linear blend)", 0.96, 0.955, "0.9400 … 0.9700", 0.17]
    assert [row[0] for row in rows][3:] == [
        "averaged weights (soup)", "student", "same network on labels",
    ]  # fmt: skip
    _, methods = tables.methods_table(FOUND)
    assert methods == [
        ["plain average", 0.951, "+0.0100 ± 0.0040", 0.95, "0.9300 … 0.9650"],
        ["linear blend (chosen)", 0.96, "+0.0190 ± 0.0050", 0.955, "–"],
    ]
    assert tables.ablation_table(FOUND)[1][0][0] == "seeds"
    assert tables.ablation_table(FOUND)[1][0][-1] == "+1.0 points (-0.4 to 2.0)"
    assert tables.members_table(FOUND)[1][0] == ["final-00002", "s1", 2, 9, "cnn", "average", "75.0%"]
    assert [row[0] for row in tables.students_table(FOUND)[1]] == ["model.width 8", "model.width 16 (chosen)"]
    assert tables.skipped_table(FOUND)[1] == [["m7.pt", "EOFError: the file ends early"]]


def test_gains_are_said_in_words_with_their_intervals() -> None:
    said = " ".join(words.gain_sentences(FOUND))
    assert "+2.5 points (0.4 to 4.1) over the best single model and +3.0 points (1.0 to 5.0)" in said
    assert "The student is +1.7 points" in said
    loss = changed(score="log_loss")
    said = " ".join(words.gain_sentences(loss))
    assert "+0.0250 (0.0040 to 0.0410) over the best single model" in said
    assert said.endswith("Gains are in log loss, and + is better.")


def test_large_values_are_not_shown_to_the_fourth_decimal() -> None:
    assert [tables.short(value) for value in (0.25, -12.345, 4165.1797)] == ["0.2500", "-12.35", "4,165"]
    found = changed(score="mse", test={"best_single": 3003.96, "ensemble": 2900.1},
                    test_intervals={"ensemble": [2234.3, 3936.7]},
                    gains={"over_best_single": {"value": 103.86, "low": -10.0, "high": 200.0}})  # fmt: skip
    assert "+103.86 (-10.00 to 200.00) over the best single" in " ".join(words.gain_sentences(found))
    assert "held-out test mse 2,900 (2,234 to 3,937)" in dict(words.summary_rows(found))["ensemble"]


@pytest.mark.parametrize(
    ("single", "together", "words_of_it"),
    [
        (0.99, 0.995, "not possible: the best single model makes 1.0% errors"),
        (0.979, 0.985, "hardly possible: the best single model makes 2.1% errors"),
        (0.93, 0.955, "are reached: the best single model makes 7.0% errors, 36% of which are gone"),
        (0.9, 0.91, "not reached, although there was room: the best single model makes 10.0% errors"),
    ],
)
def test_two_points_are_judged_by_the_room_there_was(
    single: float, together: float, words_of_it: str
) -> None:
    found = changed(test={"best_single": single, "ensemble": together})
    assert words_of_it in words.room_sentence(found)
    # A sweep for another score is judged by the accuracy that was measured beside it.
    beside = {"accuracy": found["test"]}
    assert words_of_it in words.room_sentence(changed(score="log_loss", test={}, other_scores=beside))


def test_nothing_is_said_of_accuracy_where_values_are_predicted() -> None:
    assert words.room_sentence(changed(score="mse", other_scores={"mae": {"ensemble": 2.0}})) == ""


def test_more_than_one_look_at_the_test_data_is_said() -> None:
    assert "read once, at the end" in words.reading_sentence(FOUND)
    again = changed(test_looks=3)
    assert "were read 3 times" in words.reading_sentence(again)
    assert ("test data", "labels read 3 times: only the first reading is clean") in words.summary_rows(again)
    assert "test data" not in dict(words.summary_rows(FOUND))


def test_the_page_has_all_of_it() -> None:
    text = ensemble_parts(FOUND)
    for said in (
        "2 members of 45 candidates", "linear blend", "read once", "+2.5 points (0.4 to 4.1)", "36% of which",
        "Nested validation with 5 folds: the plain average is more", "seeds, models", "m7.pt", "EOFError",
        "6.0%, 2.0% after the temperature of 1.50", "Between seeds the loss rises by 0.8 nats.", "1,500",
    ):  # fmt: skip
        assert said in text, said
    assert text.count('class="plot"') == 3
    assert ensemble_parts({}) == ""


def test_of_many_members_the_heaviest_are_shown() -> None:
    text = ensemble_parts(changed(members=[member(number, number / 1000) for number in range(100, 150)]))
    assert "final-0000149" in text and "final-0000100<" not in text
    assert "And 10 more." in text


def test_figures_show_what_was_measured() -> None:
    gains, sure, answered = ensemble_figures(FOUND)
    assert list(gains.data[0].x) == [1.0, 2.5]
    assert gains.data[0].error_x.array[0] == pytest.approx(1.0)
    assert gains.data[0].error_x.arrayminus[0] == pytest.approx(1.4)
    assert list(sure.data[1].y) == [0.5, 0.95]
    assert list(answered.data[0].x) == [50, 100]


ODD: list[Any] = [None, [], {}, "x", math.nan, [{}], {"best_single": None}]
DRAWN = ("ablation", "calibration", "coverage", "score")


@pytest.mark.parametrize("key", [key for key in FOUND if key != "version"])
def test_a_part_that_is_absent_or_odd_is_left_out(key: str) -> None:
    for value in ODD:
        odd = changed(**{key: value})
        for made in (tables.scores_table, tables.methods_table, tables.ablation_table, tables.members_table,
                     tables.students_table, tables.skipped_table):  # fmt: skip
            head, rows = made(odd)
            assert all(len(row) == len(head) for row in rows)
        words.summary_rows(odd)
        words.gain_sentences(odd)
        for said in (words.choice_sentence, words.method_sentence, words.reading_sentence,
                     words.soup_sentence, words.calibration_sentence):  # fmt: skip
            assert "None" not in said(odd) and "nan" not in said(odd)
        if key in DRAWN:
            ensemble_figures(odd)


def test_a_file_of_version_1_is_shown() -> None:
    text = ensemble_parts(VERSION_1)
    assert "greedy selection" in text and "0.22" in text and "100.0%" in text and "read once" in text
    labels = [about for about, _ in words.summary_rows(VERSION_1)]
    assert labels == ["best single model", "ensemble"]


def test_hostile_strings_stay_text() -> None:
    def poisoned(value: Any) -> Any:
        if isinstance(value, str):
            return HOSTILE[1]
        if isinstance(value, dict):
            return {key: poisoned(each) if key != "score" else each for key, each in value.items()}
        return [poisoned(each) for each in value] if isinstance(value, list) else value

    bad = poisoned(FOUND)
    bad["other_scores"] = {HOSTILE[1]: {"ensemble": 1.0}}
    text = ensemble_parts(bad)
    assert "<img" not in text and "<script>" not in text
    assert "&lt;" in text


def shown_at_the_end(found: dict[str, Any] | None, width: int) -> str:
    standing = Standing(
        name="s", state="done", message="", metric="accuracy", mode="max", unit="core", phases=(), hours=1.0,
        planned_hours=None, seconds_left=None, waiting={}, agreements=(),
    )  # fmt: skip
    console = Console(file=StringIO(), width=width, color_system=None)
    show_end(console, standing, found, {"coarse": []}, Path("sweeps/s"))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_the_terminal_says_it_in_a_few_lines() -> None:
    text = shown_at_the_end(FOUND, 200)
    lines = [line for line in text.splitlines() if line.strip()]
    assert "held-out test accuracy 0.9550 (0.9400 to 0.9700): 2 of 45 checkpoints, linear blend" in text
    assert "+2.5 points (0.4 to 4.1) over the best single model" in text
    assert "1 checkpoint: see the report" in text
    assert 5 <= len(words.summary_rows(FOUND)) <= 8
    assert len(lines) <= 12


def test_a_narrow_terminal_cuts_nothing() -> None:
    text = shown_at_the_end(FOUND, 60)
    assert all(len(line) <= 60 for line in text.splitlines())
    together = " ".join(text.split())
    for number in ("0.9550", "0.9400", "checkpoints", "(0.4", "4.1)"):
        assert number in together


def test_results_have_the_ensemble_of_either_version(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(6, 3), finals=3)
    compact(sweep)
    directory = SweepDirectory(sweep)
    written = orchestrator.load_results(sweep).ensemble
    assert written is not None and "greedy selection" in ensemble_parts(written)
    write_json(directory.ensemble_result, FOUND)
    results = orchestrator.load_results(sweep)
    assert results.ensemble == read_json(directory.ensemble_result)
    assert "+2.5 points" in page(results, now=0.0)


def test_a_file_of_another_kind_or_a_newer_version_is_refused(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path / "s")
    assert read_ensemble(directory) is None
    write_json(directory.ensemble_result, {"version": 3})
    with pytest.raises(UserError, match="newer"):
        read_ensemble(directory)
    write_json(directory.ensemble_result, [1])
    with pytest.raises(UserError, match="no result of an ensemble"):
        read_ensemble(directory)
    directory.ensemble_result.write_text(json.dumps(FOUND)[:50])
    with pytest.raises(UserError, match="not readable"):
        read_ensemble(directory)


def test_the_plan_says_what_is_kept_and_what_the_ensemble_does(tmp_path: Path) -> None:
    sweep = Path(__file__).parent.parent / "examples" / "digits.yaml"
    shown = orchestrate(
        "plan", sweep, "final.checkpoints=[best,every 5]", "ensemble.student.enabled=true", "--dry-run",
        cwd=tmp_path,
    ).stdout  # fmt: skip
    together = " ".join(shown.split())
    assert "checkpoints kept of each run: best, every 5" in together
    assert "choose, and teaches students; then the test data's labels are read once" in together
