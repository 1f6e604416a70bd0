"""The ladder that a budget pays for: its shape, its bounds, and `stages: auto` from the file to the plan."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from own_job import OWN_AUTO, own

from orchestrator.cli import main
from orchestrator.config import load_frozen, load_sweep
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.data.size import DatasetSize
from orchestrator.errors import UserError
from orchestrator.planning.auto import (
    ETA,
    LEAST_FIRST,
    LEAST_STEP,
    LEAST_TRIALS,
    MEASURED_TRIALS,
    AutoLadder,
    BudgetTooSmall,
    auto_stages,
    trial_cost,
)
from orchestrator.planning.budget import parse_budget, planned_cost
from orchestrator.planning.expand import expand
from orchestrator.planning.narrowing.trust import TOO_FEW
from orchestrator.planning.plan import Plan

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"
FREE = ("final.top=null", "final.seeds=null")


def counts(ladder: AutoLadder) -> list[int]:
    return [stage.trials + stage.repeats for stage in ladder.stages]


def in_budget(plan: Plan) -> float:
    cost = planned_cost(plan.phases, parse_budget(plan.budget))
    assert cost is not None
    return cost / parse_budget(plan.budget).amount


def test_twenty_trainings_by_hand() -> None:
    ladder = auto_stages(20, 27_000, 9, 10)
    # Half of 20 are ten runs: ten settings before any has a second seed. 10 are left, 10/3 for each stage.
    assert (ladder.top, ladder.seeds, ladder.final_waves, ladder.exploration) == (10, 1, 4, 10)
    assert counts(ladder) == [90, 30, 10]
    # Three settings from two seeds leave 14.
    ladder = auto_stages(20, 27_000, 9, 10, top=3, seeds=2)
    assert (ladder.final_waves, ladder.exploration) == (1, 14)
    assert [stage.rung.data for stage in ladder.stages] == [0.037, 0.111, 0.333]
    assert [stage.rung.epochs for stage in ladder.stages] == [9, 9, 9]
    assert counts(ladder) == [126, 42, 14]
    assert [stage.name for stage in ladder.stages] == ["coarse", "medium", "fine"]
    # The last stage's best are measured again: 0.15 of its fourteen runs, rounded down.
    assert [stage.repeats for stage in ladder.stages] == [0, 0, 2]
    assert ladder.cost == pytest.approx(126 * 0.037 + 42 * 0.111 + 14 * 0.333 + 6)


def test_two_trainings_are_one_final_run_and_one_of_exploration() -> None:
    ladder = auto_stages(2, 27_000, 9)
    assert (ladder.top, ladder.seeds, ladder.exploration) == (1, 1, 1)
    assert counts(ladder) == [15, 4]
    assert 1.9 < ladder.cost <= 2
    assert ladder.left_out == ((0.333, "too few trials"),)


def test_a_large_dataset_has_a_smaller_scale_and_no_final_runs_a_full_one() -> None:
    ladder = auto_stages(50, 1_200_000, 90, 1000)
    assert [stage.rung.data for stage in ladder.stages] == [0.0123, 0.037, 0.111, 0.333]
    assert auto_stages(50, 1_000_000, 90, 1000).stages[0].rung.data == 0.037
    without = auto_stages(50, 27_000, 9, top=0)
    assert (without.top, without.exploration) == (0, 50)
    assert without.stages[-1].rung.scale == 1.0
    assert without.stages[-1].repeats == 0


def test_data_shrink_first_and_epochs_where_they_are_too_few() -> None:
    # 54 of 540 samples are a tenth; a ninth is 60, and a third of that is reached by a third of the epochs.
    small = auto_stages(20, 540, 60, 3)
    assert [(s.rung.data, s.rung.epochs) for s in small.stages] == [(0.0926, 24), (0.111, 60), (0.333, 60)]
    assert small.stages[0].rung.scale == pytest.approx(1 / 27, rel=0.01)
    tiny = auto_stages(20, 90, 60, 3)
    assert [(s.rung.data, s.rung.epochs) for s in tiny.stages] == [(0.556, 12), (0.556, 36)]
    assert [why for _, why in tiny.left_out] == ["too few samples"]
    # 2 samples of each of a thousand classes
    assert auto_stages(20, 27_000, None, 1000).stages[0].rung.data == 0.111


def test_where_a_job_can_set_one_thing_alone_the_scale_is_that() -> None:
    epochs = auto_stages(20, None, 52, data=False)
    assert [(s.rung.data, s.rung.epochs) for s in epochs.stages] == [(1.0, 2), (1.0, 6), (1.0, 17)]
    data = auto_stages(20, None, None)
    assert [(s.rung.data, s.rung.epochs) for s in data.stages] == [
        (0.037, None),
        (0.111, None),
        (0.333, None),
    ]
    # One epoch can't be divided: all that is left is the search at full scale.
    assert [s.rung.scale for s in auto_stages(20, None, 1, data=False).stages] == [1.0]


def test_a_startup_that_outweighs_the_training_leaves_small_scales_out() -> None:
    free, heavy = auto_stages(20, 27_000, 9), auto_stages(20, 27_000, 9, overhead=0.5)
    assert len(free.stages) == 3
    assert [s.rung.data for s in heavy.stages] == [0.333]
    assert {why for _, why in heavy.left_out} == {"hardly cheaper"}
    assert heavy.cost <= 20


def test_the_asked_share_and_counts_are_what_the_final_runs_get() -> None:
    assert auto_stages(20, 27_000, 9, share=0.3).exploration == 14
    half = auto_stages(60, 27_000, 9, share=0.5)
    assert (half.top, half.seeds) == (10, 3)
    assert auto_stages(20, 27_000, 9, top=2, seeds=1).exploration == 18
    assert auto_stages(20, 27_000, 9, top=2).seeds == 3
    assert (auto_stages(20, 27_000, 9, seeds=3).top, auto_stages(20, 27_000, 9, seeds=6).top) == (3, 1)
    # Where nobody says, the final runs stop at ten settings from three seeds, and the search gets the rest.
    assert auto_stages(1000, 27_000, 9).exploration == 970


@pytest.mark.parametrize(
    ("budget", "top", "seeds", "waves"),
    [
        (5, 1, 1, 1),
        (10, 3, 1, 2),
        (12, 3, 1, 2),
        (16, 6, 1, 3),
        (20, 10, 1, 4),
        (40, 10, 2, 4),
        (60, 10, 3, 4),
    ],
)
def test_a_larger_budget_leaves_a_larger_share_for_more_final_runs_in_waves(
    budget: float, top: int, seeds: int, waves: int
) -> None:
    ladder = auto_stages(budget, 27_000, 9)
    assert (ladder.top, ladder.seeds, ladder.final_waves) == (top, seeds, waves)


def test_waves_of_final_runs_keep_busy_what_runs_side_by_side() -> None:
    waves = [auto_stages(20, 27_000, 9, at_once=count).final_waves for count in (1, 2, 3, 4, 5, 9, 10, 64)]
    # No more of them than ten runs take one after another.
    assert waves == [4, 4, 4, 3, 2, 2, 1, 1]
    assert auto_stages(60, 27_000, 9, at_once=9).final_waves == 4
    assert auto_stages(20, 27_000, 9, top=10).final_waves == 1


def test_the_largest_scale_below_is_kept_for_fewer_final_runs() -> None:
    # A startup makes its trials dearer: ten settings can't be chosen from what half the budget pays there.
    ladder = auto_stages(20, 27_000, 9, overhead=0.05)
    assert [stage.rung.data for stage in ladder.stages] == [0.037, 0.111, 0.333]
    assert (counts(ladder)[-1], ladder.top) == (10, 9)
    assert 0.98 * 20 < ladder.cost <= 20
    # Three are the least that it is worth, and all that was asked for comes first.
    assert len(auto_stages(20, 27_000, 9, overhead=0.05, top=10, seeds=1).stages) == 2
    asked = auto_stages(20, 27_000, 9, overhead=0.05, share=0.5)
    assert (asked.top, len(asked.stages)) == (10, 2)


def test_a_budget_too_small_says_what_it_buys_and_what_is_the_least() -> None:
    with pytest.raises(BudgetTooSmall) as caught:
        auto_stages(1, 27_000, 9)
    assert caught.value.least == pytest.approx(1 + LEAST_FIRST * 0.037)
    assert caught.value.trials == 27
    auto_stages(caught.value.least, 27_000, 9)
    with pytest.raises(BudgetTooSmall):
        auto_stages(caught.value.least * 0.999, 27_000, 9)
    with pytest.raises(BudgetTooSmall) as caught:
        auto_stages(9, 27_000, 9, top=3, seeds=3)
    assert caught.value.least == pytest.approx(9 + LEAST_FIRST * 0.037)
    # The last stage has at least the settings of the final runs.
    with pytest.raises(BudgetTooSmall) as caught:
        auto_stages(8, 27_000, 9, top=8, seeds=1)
    assert caught.value.least == pytest.approx(8 + 8 * 0.037)


@given(
    budget=st.floats(0.1, 1e5),
    samples=st.none() | st.integers(20, 10_000_000),
    epochs=st.none() | st.integers(1, 500),
    classes=st.none() | st.integers(2, 1000),
    data=st.booleans(),
    overhead=st.floats(0, 0.99),
    top=st.none() | st.integers(0, 12),
    seeds=st.none() | st.integers(1, 5),
    share=st.none() | st.floats(0.01, 0.99),
)
def test_any_ladder_keeps_its_budget_and_climbs(
    budget: float,
    samples: int | None,
    epochs: int | None,
    classes: int | None,
    data: bool,
    overhead: float,
    top: int | None,
    seeds: int | None,
    share: float | None,
) -> None:
    try:
        ladder = auto_stages(
            budget, samples, epochs, classes, data=data, overhead=overhead, top=top, seeds=seeds, share=share
        )
    except BudgetTooSmall as small:
        assert small.least > budget
        return
    assert 0 < ladder.cost <= budget * (1 + 1e-6)
    assert 1 <= len(ladder.stages) <= 5
    assert counts(ladder)[0] >= LEAST_FIRST
    assert all(count >= LEAST_TRIALS for count in counts(ladder))
    assert ladder.stages[-1].trials >= ladder.top
    if top is not None:
        assert ladder.top == top
    if top and seeds:
        assert ladder.seeds == seeds
    for stage in ladder.stages:
        assert 0 < stage.rung.scale <= 1
        assert 0 < stage.rung.data <= 1
        assert stage.rung.epochs is None or 1 <= stage.rung.epochs <= (epochs or 0)
        assert 1 <= stage.waves <= stage.trials
        assert stage.survivors + stage.controls <= math.ceil(stage.trials / stage.waves)
    for low, high in pairwise(ladder.stages):
        assert trial_cost(high.rung, overhead) >= LEAST_STEP * trial_cost(low.rung, overhead) * (1 - 1e-9)
        assert low.trials + low.repeats >= high.trials + high.repeats


@pytest.mark.parametrize("budget", range(2, 80))
def test_enough_settings_run_at_both_scales_to_measure_the_ranking(budget: int) -> None:
    for stage in auto_stages(budget, 1_000_000, 9).stages[1:]:
        assert stage.trials < MEASURED_TRIALS or stage.survivors + stage.controls > TOO_FEW


@given(budget=st.floats(2, 1000))
def test_stages_cost_the_same_to_a_trial_of_the_dearest(budget: float) -> None:
    ladder = auto_stages(budget, 1_000_000, 9)
    costs = [stage.cost for stage in ladder.stages]
    assert max(costs) - min(costs) <= 3 * trial_cost(ladder.stages[-1].rung, 0.0)
    ratios = [high.rung.scale / low.rung.scale for low, high in pairwise(ladder.stages)]
    assert all(math.isclose(ratio, ETA, rel_tol=0.01) for ratio in ratios)


@pytest.mark.parametrize(
    "budget",
    ["20 trainings", "2 trainings", "1.16 trainings", "1e6 samples", "0.02 core-hours", "3e5 samples"],
)
def test_the_plan_keeps_the_budget_and_spends_most_of_it(here: Path, budget: str) -> None:
    plan = work_out(DIGITS, [f"budget={budget}", "stages=auto", *FREE]).plan
    assert plan.auto
    assert 0.9 < in_budget(plan) <= 1.0
    assert plan.final is not None
    assert any("full scale" in note for note in plan.notes)


def test_the_file_and_the_command_line_say_auto_alike_and_the_frozen_file_says_what_it_became(
    here: Path,
) -> None:
    text = DIGITS.read_text()
    begin, end = text.index("stages:"), text.index("final:")
    Path("auto.yaml").write_text(text[:begin] + "budget: 20 trainings\nstages: auto\n" + text[end:])
    planned = work_out(Path("auto.yaml"), [])
    other = work_out(DIGITS, ["stages=auto", "budget=20 trainings"])
    omitted = work_out(Path("auto.yaml"), ["stages=auto", "budget='20 trainings'"])
    assert planned.config.stages == other.config.stages == omitted.config.stages
    assert [phase.trials for phase in planned.plan.phases] == [phase.trials for phase in other.plan.phases]
    freeze_plan(planned)
    frozen = load_frozen(planned.directory.config)
    assert frozen == planned.config
    assert list(frozen.stages) == ["coarse", "medium", "fine"]
    assert work_out(Path("auto.yaml"), []).existing


def test_a_users_own_job_without_a_dataset_gets_shares(here: Path) -> None:
    planned = own(OWN_AUTO)
    assert [phase.scale.data for phase in planned.plan.stages] == [0.037, 0.111, 0.333]
    assert [phase.share for phase in planned.plan.phases] == [0.037, 0.111, 0.333, 1.0]
    assert in_budget(planned.plan) == pytest.approx(0.999, abs=0.001)
    epochs_alone = own(OWN_AUTO.replace("data: fraction, ", ""))
    assert [phase.scale.epochs for phase in epochs_alone.plan.stages] == [1, 3]


def test_hours_whose_price_is_not_known_are_explained_not_refused(here: Path) -> None:
    plan = own(OWN_AUTO, "slurm=gpu", "budget=40 gpu-hours").plan
    assert plan.total.hours is None
    assert "Until the first trials are timed it is taken to pay for 20 trainings" in plan.notes[0]
    assert "the first wave of 'coarse' measures it" in plan.notes[-1]
    declared = work_out(DIGITS, ["slurm=gpu", "stages=auto", "budget=0.01 gpu-hours", *FREE]).plan
    assert "jobs.cost was not measured on this GPU" in declared.notes[-1]
    on_cores = work_out(DIGITS, ["stages=auto", "budget=0.01 core-hours", *FREE]).plan
    assert "jobs.cost may be wrong on these cores, so the first wave of 'coarse'" in on_cores.notes[-1]
    assert not any("measures" in note for note in own(OWN_AUTO).plan.notes)
    # One wave could measure nothing in time, so there are two.
    explicit = work_out(DIGITS, ["slurm=gpu", "budget=1 gpu-hours"]).plan
    assert [phase.waves for phase in explicit.stages] == [2, 1, 1]


def test_expanding_changes_nothing_in_the_config_that_it_is_given() -> None:
    config = load_sweep(DIGITS, ["stages=auto", "budget=20 trainings"])
    size = DatasetSize(samples=1000, classes=10, counts=(100,) * 10)
    expanded = expand(config, size, "sweep.yaml")
    assert config.stages == {}
    assert list(expanded.config.stages) == ["coarse", "medium", "fine"]
    assert expand(expanded.config, size, "sweep.yaml").auto is False


@pytest.mark.parametrize(
    ("overrides", "key", "words"),
    [
        (["stages=auto"], "stages", "auto needs a budget"),
        (["stages=auto", "budget=null"], "stages", "auto needs a budget"),
        (["stages=atuo"], "stages", "Did you mean 'auto'?"),
        (["stages=auto", "budget=5 trainings", "stages.a.trials=3"], "stages.a.trials", "be changed"),
        (["stages=auto", "budget=1 trainings", *FREE], "budget", "it would buy 26 trials at 1/27 of"),
        (["stages=auto", "budget=1 trainings", *FREE], "budget", "The smallest that works is 1.15 trainings"),
        (["stages=auto", "budget=5 trainings"], "budget", "can't pay for 9 full-scale runs"),
        (["stages=auto", "budget=1e-9 core-hours", *FREE], "budget", "it would buy 0 trials"),
        (["stages=auto", "budget=1 trainings", *FREE], "budget", "and no final run. The smallest"),
        (["stages=auto", "budget=20 trainings", "final.share=0.5"], "final.share", "that there are 9"),
        (["stages=auto", "budget=20 trainings", "final.share=1.5"], "final.share", "is no share"),
        (["stages=auto", "budget=20 trainings", "final.share=nan"], "final.share", "is no share"),
        (["final.share=0.5"], "final.share", "there is no budget to share"),
        (["stages=auto", "budget=20 trainings", "final.top=-1"], "final.top", "the least is 0"),
        (["stages=auto", "budget=20 trainings", "final.epochs=0"], "final.epochs", "the least is 1"),
        (["stages=auto", "budget=20 trainings", "final.waves=0"], "final.waves", "the least is 1"),
        (["stages=auto", "budget=5 trainings", "final.waves=2", *FREE], "final.waves", "final.waves=1"),
        (["stages=auto", "budget=40 gpu-hours"], "budget", "gpus_per_task is 0"),
        (["stages=auto", "budget=40 core-hours", "slurm=gpu"], "budget", "the tasks hold GPUs"),
        (["stages.coarse.trials=many", "budget=40 trainings"], "stages.coarse.trials", "a whole number"),
        (["budget=8 trainings"], "budget", "3.42 (43%) more than the budget of 8 trainings"),
    ],
)  # fmt: skip
def test_what_is_refused(here: Path, overrides: list[str], key: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        work_out(DIGITS, overrides)
    assert caught.value.key == key
    assert caught.value.file == "command line"
    assert words in str(caught.value)


def test_stages_on_the_command_line_take_the_place_of_the_files_auto(here: Path) -> None:
    written = "stages={small: {trials: 8, data: 0.1}, large: {trials: 4}}"
    plan = own(OWN_AUTO, written, "stages.small.trials=9", "budget=null").plan
    assert [(stage.name, stage.trials) for stage in plan.stages] == [("small", 9), ("large", 4)]
    assert not plan.auto
    for wrong, words in [
        ("{small: {trails: 8}}", "Did you mean 'trials'"),
        ("{small: {trials: 8", "no override"),
    ]:
        with pytest.raises(UserError, match=words):
            own(OWN_AUTO, f"stages={wrong}")


def test_a_job_without_a_place_for_scales_has_no_cheap_trials(here: Path) -> None:
    with pytest.raises(UserError, match="no trial is cheaper than a full-scale one"):
        own(OWN_AUTO.replace("{data: fraction, epochs: epochs}", "{}"))


def test_the_files_waves_come_before_the_budgets(here: Path) -> None:
    def waves(*overrides: str) -> int:
        final = work_out(DIGITS, ["stages=auto", "budget=20 trainings", *overrides]).plan.final
        assert final is not None and sum(final.wave_sizes) == final.trials
        return len(final.wave_sizes)

    assert (waves(*FREE), waves(*FREE, "final.waves=2"), waves(*FREE, "final.waves=1")) == (4, 2, 1)
    # Where the file says how many settings there are, they are the best of the last stage.
    assert (waves(), waves("final.waves=3")) == (1, 3)


def test_samples_can_not_be_counted_without_a_dataset(here: Path) -> None:
    with pytest.raises(UserError, match="the dataset's size is not known"):
        own(OWN_AUTO, "budget=1e6 samples")


def test_plan_prints_the_reasons(here: Path) -> None:
    (here / "digits.yaml").write_text(DIGITS.read_text())
    arguments = ["plan", "digits.yaml", "stages=auto", "budget=20 trainings", *FREE]
    shown = CliRunner().invoke(main, arguments, env={"COLUMNS": "400"})
    assert shown.exit_code == 0, shown.output
    assert (
        "The final runs get 10 of 20 trainings (50%): each of the best 10 settings from 1 seed, chosen in 4 "
        "waves, each by what full scale gave until then." in shown.output
    )
    assert "final: the best 10 settings from 1 seed, chosen in 4 waves, 5 checkpoints" in shown.output
    assert "'coarse' 89 trials at 1/27 of full scale (4.6% of the data, 48 epochs)" in shown.output
    assert "of a budget of 20 trainings" in shown.output
    content = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert content["auto"] is True
    assert len(content["notes"]) == 3
