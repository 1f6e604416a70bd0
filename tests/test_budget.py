"""Budgets: how they are read, what a plan costs in their unit, and a plan that costs more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.errors import UserError
from orchestrator.planning.budget import (
    CORE_HOURS,
    GPU_HOURS,
    SAMPLES,
    TRAININGS,
    Budget,
    check_unit,
    parse_budget,
    planned_cost,
    run_cost,
    show_amount,
)
from orchestrator.sweep.budgets import read_budget, write_budget
from orchestrator.sweep.directory import SweepDirectory

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("40 gpu-hours", 40, GPU_HOURS),
        ("40 GPU-hours", 40, GPU_HOURS),
        ("1 gpu-hour", 1, GPU_HOURS),
        ("40gpu-hours", 40, GPU_HOURS),
        ("2 gpu-days", 48, GPU_HOURS),
        ("12 core-hours", 12, CORE_HOURS),
        ("12 core hours", 12, CORE_HOURS),
        ("0.5 core_days", 12, CORE_HOURS),
        ("3e8 samples", 3e8, SAMPLES),
        ("3e8samples", 3e8, SAMPLES),
        ("3e+08 samples", 3e8, SAMPLES),
        ("300_000_000 samples", 3e8, SAMPLES),
        ("300,000,000 samples", 3e8, SAMPLES),
        ("  20   trainings ", 20, TRAININGS),
        (".5 trainings", 0.5, TRAININGS),
        ("1 training", 1, TRAININGS),
    ],
)
def test_what_a_person_writes(text: str, amount: float, unit: str) -> None:
    assert parse_budget(text) == Budget(amount=amount, unit=unit)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "'' is no amount"),
        ("20", "20 has no unit"),
        ("0 trainings", "'0' is no amount"),
        ("-3 trainings", "'-3' is no amount"),
        ("nan trainings", "'nan' is no amount"),
        ("inf trainings", "'inf' is no amount"),
        ("1e999 trainings", "'1e999' is no amount"),
        ("1,5 trainings", "'1,5' is no amount"),
        ("1.2.3 trainings", "'1.2.3' is no amount"),
        ("twenty trainings", "'twenty' is no amount"),
        ("gpu-hours", "'gpu-hours' is no amount"),
        ("20 trainigs", "Did you mean 'trainings'?"),
        ("20 gpu-hurs", "Did you mean 'gpu-hours'?"),
        ("20 epochs", "'epochs' is no unit of a budget"),
    ],
)
def test_what_is_no_budget(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_budget(text, file="sweep.yaml")
    assert words in str(caught.value)
    assert (caught.value.file, caught.value.key) == ("sweep.yaml", "budget")


@given(st.floats(1e-9, 1e15), st.sampled_from([TRAININGS, SAMPLES, GPU_HOURS, CORE_HOURS]))
def test_what_is_shown_can_be_read_again(amount: float, unit: str) -> None:
    again = parse_budget(Budget(amount=amount, unit=unit).show())
    assert again.unit == unit
    assert again.amount == pytest.approx(amount, rel=0.01)


@given(st.text(max_size=20))
def test_any_text_is_a_budget_or_an_error_in_words(text: str) -> None:
    try:
        assert parse_budget(text).amount > 0
    except UserError as error:
        assert error.hint


def test_hours_are_of_what_the_tasks_hold() -> None:
    for unit, good, bad in (("GPU", GPU_HOURS, CORE_HOURS), ("core", CORE_HOURS, GPU_HOURS)):
        check_unit(Budget(amount=1, unit=good), unit, "sweep.yaml")
        check_unit(Budget(amount=1, unit=TRAININGS), unit, "sweep.yaml")
        with pytest.raises(UserError):
            check_unit(Budget(amount=1, unit=bad), unit, "sweep.yaml")


def test_a_plan_in_every_unit(here: Path) -> None:
    plan = work_out(DIGITS, []).plan
    trained = plan.total.trained_samples
    assert trained == 739_500
    assert planned_cost(plan.phases, Budget(amount=1, unit=SAMPLES)) == pytest.approx(trained)
    assert planned_cost(plan.phases, Budget(amount=1, unit=TRAININGS)) == pytest.approx(trained / (1079 * 60))
    assert planned_cost(plan.phases, Budget(amount=1, unit=CORE_HOURS)) == pytest.approx(plan.total.hours)
    assert [phase.share for phase in plan.phases[1:5]] == [
        pytest.approx(21 * 3 / (1079 * 60)), pytest.approx(162 * 6 / (1079 * 60)), pytest.approx(1 / 6), 1.0,
    ]  # fmt: skip


def test_repeats_cost_what_trials_do(here: Path) -> None:
    plan = work_out(DIGITS, ["stages.fine.repeats=3"]).plan
    fine = plan.stages[-1]
    unit = Budget(amount=1, unit=TRAININGS)
    assert run_cost(fine, unit) == pytest.approx(1 / 6)
    assert planned_cost([fine], unit) == pytest.approx(15 / 6)


def test_an_explicit_plan_within_its_budget_is_planned_as_it_stands(here: Path) -> None:
    free, capped = work_out(DIGITS, []).plan, work_out(DIGITS, ["budget=739500 samples"]).plan
    assert replace(free, uid="", created=0.0) == replace(capped, uid="", created=0.0, budget="")


@pytest.mark.parametrize("unit", ["trainings", "samples", "core-hours"])
@pytest.mark.parametrize("part", [0.999, 0.7, 0.3])
def test_the_counts_that_would_fit_do_fit(here: Path, unit: str, part: float) -> None:
    whole = planned_cost(work_out(DIGITS, []).plan.phases, parse_budget(f"1 {unit}"))
    assert whole is not None
    budget = f"budget={whole * part:.6f} {unit}"
    with pytest.raises(UserError) as caught:
        work_out(DIGITS, [budget])
    assert "This would fit: " in caught.value.hint
    changes = caught.value.hint.removeprefix("This would fit: ").partition(";")[0].split()
    assert work_out(DIGITS, [budget, *changes]).plan.stages


def test_a_budget_that_no_counts_fit_says_the_least(here: Path) -> None:
    with pytest.raises(UserError, match="two trials of each stage and one final run cost"):
        work_out(DIGITS, ["budget=1 trainings"])


def test_a_stage_dearer_than_the_next_is_warned_of(here: Path) -> None:
    plan = work_out(DIGITS, ["stages.coarse.data=1.0", "stages.coarse.classes=null"]).plan
    assert [text for text in plan.warnings if "cheap" in text] == [
        "stages.coarse: one of its trials trains 3.3 times what one of 'medium' does; a ladder goes from "
        "cheap stages to dear ones, so put the cheaper one first"
    ]
    assert not work_out(DIGITS, ["final.epochs=10"]).plan.warnings
    # The final runs come last, whatever they cost.
    short = work_out(DIGITS, ["final.epochs=1"]).plan.warnings[-1]
    assert short.startswith("stages.fine: ") and "what one of 'final' does" in short
    assert short.endswith("dear ones, so give it less data or fewer epochs")


def test_the_last_budget_that_was_written_holds(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    assert read_budget(directory, "") == ""
    assert read_budget(directory, "20 trainings") == "20 trainings"
    for number in range(11):
        write_budget(directory, f"{30 + number} trainings")
    assert read_budget(directory, "20 trainings") == "40 trainings"


def test_the_command_shows_and_changes_the_budget_of_a_frozen_sweep(here: Path) -> None:
    freeze_plan(work_out(DIGITS, ["budget=20 trainings"]))
    directory = here / "sweeps" / "digits"

    def call(*arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["budget", str(directory), *arguments])
        return result.exit_code, result.output

    assert call() == (0, "spent 0 of a budget of 20 trainings\n")
    status, output = call("30 trainings")
    assert status == 0
    assert output.startswith("spent 0 of a budget of 30 trainings (planned with 20 trainings)\n")
    assert call()[1].startswith("spent 0 of a budget of 30 trainings")
    for wrong in ("30 trainigs", "30 gpu-hours", "0 trainings"):
        before = sorted(directory.rglob("*"))
        assert call(wrong)[0] == 2
        assert sorted(directory.rglob("*")) == before


def test_amounts_for_a_person() -> None:
    assert [show_amount(value) for value in (0.0, 1.0, 4.667, 0.03333, 12.0, 1234.5, 3e8)] == [
        "0", "1", "4.67", "0.0333", "12", "1,234", "300,000,000",
    ]  # fmt: skip
