"""Re-pricing: forecasts from what was measured, and a budget that nothing exceeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config import load_sweep
from orchestrator.control.create import work_out
from orchestrator.planning.budget import CALIBRATION_TRIALS, Budget, parse_budget, planned_cost
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Phase, Plan, plan_from_json, plan_to_json
from orchestrator.planning.reprice import MOST_GROWTH, Repriced, reprice, within_budget
from orchestrator.planning.spending import Spent, run_costs, spent, used_so_far
from orchestrator.sweep.digest import digest_of
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE, TrialSpec
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import Outcome, encode
from orchestrator.sweep.timing import startup_seconds

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"
FREE = ("final.top=null", "final.seeds=null")
UNKNOWN = ("jobs.cost.startup_seconds=null", "jobs.cost.sample_seconds=null")
CORE = Price(startup_seconds=None, sample_seconds=None, unit="core", share=1.0)
DECLARED = replace(Price.of(load_sweep(DIGITS)), share=1.0)
Seconds = Callable[[Phase], float]


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Plan]:
    folder = tmp_path_factory.mktemp("plans")

    def plan(*overrides: str) -> Plan:
        return work_out(
            DIGITS, [f"dir={folder}/none", "slurm.cpus_per_task=1", "checks.enabled=false", *overrides]
        ).plan

    return {
        "trainings": plan("stages=auto", "budget=20 trainings", "final.top=3", "final.seeds=2"),
        "waves": plan("stages=auto", "budget=20 trainings", *FREE),
        "seeds": plan("stages=auto", "budget=60 trainings", *FREE),
        "priced": plan("stages=auto", "budget=0.01 core-hours", *FREE),
        "unpriced": plan("stages=auto", "budget=1 core-hours", *FREE, *UNKNOWN),
        "explicit": plan("budget=0.01 core-hours"),
    }


def price_of(plan: Plan) -> Price:
    return CORE if plan.phases[0].cost.seconds is None else DECLARED


def ran(phase: Phase, trials: int, seconds: float, waves: int = 0, startup: float | None = None) -> Spent:
    seeds = phase.trials // phase.survivors if phase.kind == FINAL else 1
    return Spent(
        drawn=trials, settings=trials // seeds, waves=waves or len(phase.wave_sizes), whole=trials,
        whole_seconds=trials * seconds, startup_seconds=startup,
    )  # fmt: skip


def drive(plan: Plan, budget: Budget, seconds: Seconds) -> tuple[dict[str, Spent], Repriced]:
    """Play a sweep: draw what is allowed, wave after wave, each trial lasting what `seconds` says."""
    measured: dict[str, Spent] = {}
    price = price_of(plan)
    for _ in range(100):
        fitted = reprice(plan, measured, budget, price)
        following = next(
            (p for p in fitted.plan.phases if p.kind != ENSEMBLE and not drawn(p, measured)), None
        )
        if fitted.stop or following is None:
            return measured, fitted
        past = measured.get(following.name, Spent())
        count = following.wave_sizes[past.waves] if past.waves < len(following.wave_sizes) else 0
        measured[following.name] = ran(
            following, past.drawn + count, seconds(following), past.waves + 1, startup=None
        )
    raise AssertionError("it never comes to rest")


def drawn(phase: Phase, measured: Mapping[str, Spent]) -> bool:
    return phase.name in measured and measured[phase.name].waves >= len(phase.wave_sizes)


def hours(measured: Mapping[str, Spent]) -> float:
    return sum(past.whole_seconds for past in measured.values()) / 3600


def test_nothing_spent_and_nothing_amiss_is_the_plan_as_it_was(plans: dict[str, Plan]) -> None:
    for name in ("trainings", "priced", "explicit"):
        plan = plans[name]
        fitted = reprice(plan, {}, parse_budget(plan.budget), price_of(plan))
        assert fitted == Repriced(plan=fitted.plan)
        before = [(p.trials, p.repeats, sum(p.wave_sizes)) for p in plan.phases]
        after = [(p.trials, p.repeats, sum(p.wave_sizes)) for p in fitted.plan.phases]
        if name == "explicit":
            assert after == before
        else:
            # What the plan left over of the budget is given to the stages, a trial here and there.
            assert all(
                0 <= now[0] - then[0] <= 0.1 * then[0] + 1 for now, then in zip(after, before, strict=True)
            )


def test_the_same_length_as_declared_is_forecast_as_declared(plans: dict[str, Plan]) -> None:
    plan = plans["priced"]
    coarse = plan.phases[0]
    assert coarse.cost.seconds is not None
    one = coarse.cost.seconds / coarse.runs
    costs = run_costs(plan, {"coarse": ran(coarse, 10, 3 * one, 1)}, parse_budget(plan.budget), CORE)
    for phase in plan.phases[:-1]:
        assert phase.cost.hours is not None
        assert costs[phase.name] == pytest.approx(3 * phase.cost.hours / phase.runs)
    assert costs["ensemble"] == 0


def test_startup_and_rate_are_told_apart(plans: dict[str, Plan]) -> None:
    plan, budget = plans["unpriced"], parse_budget("1 core-hours")
    coarse, medium = plan.stages[:2]
    final = plan.final
    assert final is not None
    assert coarse.share is not None and medium.share is not None

    def seconds(share: float) -> float:
        return 10 + 100 * share

    def forecast(measured: Mapping[str, Spent]) -> float:
        return (run_costs(plan, measured, budget, CORE)["final"] or 0.0) * 3600

    # From the trials' own reports, from two scales, and without either: rather too dear than too cheap.
    assert forecast({"coarse": ran(coarse, 8, seconds(coarse.share), 1, startup=10)}) == pytest.approx(110)
    two = {
        "coarse": ran(coarse, 8, seconds(coarse.share)),
        "medium": ran(medium, 8, seconds(medium.share), 1),
    }
    assert forecast(two) == pytest.approx(110)
    blind = forecast({"coarse": ran(coarse, 8, seconds(coarse.share), 1)})
    assert blind == pytest.approx(seconds(coarse.share) / coarse.share)
    # A stage that is faster than the cheaper one before it says that all is startup, no less.
    odd = {"coarse": ran(coarse, 8, 50), "medium": ran(medium, 8, 20, 1)}
    assert forecast(odd) == pytest.approx(20)
    assert forecast({"coarse": ran(coarse, 8, 5, 1, startup=9)}) == pytest.approx(5)
    assert run_costs(plan, {}, budget, CORE)["final"] is None


def test_the_first_wave_is_small_where_nothing_says_what_it_takes(plans: dict[str, Plan]) -> None:
    plan = plans["unpriced"]
    fitted = reprice(plan, {}, parse_budget(plan.budget), CORE)
    coarse = fitted.plan.phases[0]
    assert coarse.wave_sizes[0] == CALIBRATION_TRIALS
    assert sum(coarse.wave_sizes) == coarse.trials == plan.phases[0].trials
    gpu = replace(CORE, startup_seconds=1.0, sample_seconds=1e-6, unit="GPU")
    budget = Budget(amount=1.0, unit="GPU-hours")
    assert reprice(plans["priced"], {}, budget, gpu).plan.phases[0].wave_sizes[0] == CALIBRATION_TRIALS
    on_cores = reprice(plans["priced"], {}, parse_budget(plan.budget), price_of(plans["priced"]))
    assert on_cores.plan.phases[0].wave_sizes[0] == CALIBRATION_TRIALS, "declared somewhere else, perhaps"


def test_the_checks_before_are_no_calibration(tmp_path: Path) -> None:
    plan = work_out(DIGITS, [f"dir={tmp_path}/none", "stages=auto", "budget=0.01 core-hours", *FREE]).plan
    assert plan.phases[0].kind == CHECKS
    checked = {plan.phases[0].name: Spent(drawn=2, settings=1, waves=1, whole=2, whole_seconds=1.0)}
    fitted = reprice(plan, checked, parse_budget(plan.budget), DECLARED)
    assert fitted.plan.stages[0].wave_sizes[0] == CALIBRATION_TRIALS


@pytest.mark.parametrize("name", ["priced", "unpriced", "explicit"])
@pytest.mark.parametrize("slower", [0.2, 1.0, 2.0, 3.0])
def test_a_whole_sweep_keeps_its_hours_however_long_a_trial_takes(
    plans: dict[str, Plan], name: str, slower: float
) -> None:
    plan = plans[name]
    budget = parse_budget(plan.budget)
    training = (10.0 if name == "unpriced" else 1.12) * slower
    measured, end = drive(plan, budget, lambda phase: 0.13 * training + 0.87 * training * (phase.share or 0))
    assert hours(measured) <= budget.amount * (1 + 1e-6)
    if not end.stop:
        assert measured["final"].drawn >= 1
    if name == "explicit":
        assert all(measured[p.name].drawn <= p.runs for p in plan.phases if p.name in measured)
    if name == "unpriced":
        # An hour pays for many trainings of some seconds: more than was assumed, and they are used.
        assert not end.stop
        assert hours(measured) > 0.7 * budget.amount


@given(
    st.lists(st.floats(0.01, 100), min_size=4, max_size=4),
    st.floats(0.05, 20),
    st.sampled_from(["priced", "explicit", "unpriced"]),
)
def test_no_stage_begins_that_the_budget_does_not_pay_for_by_what_is_known(
    plans: dict[str, Plan], lengths: list[float], factor: float, name: str
) -> None:
    plan = plans[name]
    budget = replace(parse_budget(plan.budget), amount=parse_budget(plan.budget).amount * factor)
    price = price_of(plan)
    names = [phase.name for phase in plan.phases if phase.kind != ENSEMBLE]
    seconds = dict(zip(names, lengths, strict=False))
    measured: dict[str, Spent] = {}
    for _ in range(100):
        fitted = reprice(plan, measured, budget, price)
        following = next(
            (p for p in fitted.plan.phases if p.kind != ENSEMBLE and not drawn(p, measured)), None
        )
        if fitted.stop or following is None:
            break
        past = measured.get(following.name, Spent())
        count = following.wave_sizes[past.waves]
        assert count >= 0
        if not past.waves and following.kind == STAGE:
            assert following.survivors + following.controls <= following.trials
        cost = run_costs(plan, measured, budget, price)[following.name]
        if cost is not None and following.trials > 0:
            assert used_so_far(plan, measured, budget, price) + count * cost <= budget.amount * (
                1 + 1e-6
            ) or (count == 0)
        measured[following.name] = ran(following, past.drawn + count, seconds[following.name], past.waves + 1)
    else:
        raise AssertionError("it never comes to rest")


def test_trials_that_were_stopped_leave_room_for_more(plans: dict[str, Plan]) -> None:
    plan = plans["trainings"]
    budget = parse_budget(plan.budget)
    coarse = plan.phases[0]
    size = coarse.wave_sizes[0]
    whole = {"coarse": ran(coarse, size, 1.0, 1)}
    pruned = {
        "coarse": Spent(
            drawn=size, waves=1, whole=size // 2, whole_seconds=size // 2,
            partial=size - size // 2, partial_seconds=(size - size // 2) * 0.1,
        )
    }  # fmt: skip
    kept, more = reprice(plan, whole, budget, CORE), reprice(plan, pruned, budget, CORE)
    assert more.used < kept.used
    assert sum(p.trials for p in more.plan.stages) > sum(p.trials for p in kept.plan.stages)
    # Those that run now are taken to run to their end, and before the first one ended nothing is known.
    running = {"coarse": Spent(drawn=size, waves=1)}
    assert reprice(plan, running, budget, CORE).used == pytest.approx(kept.used)


def test_cheaper_trials_mean_more_of_them_where_the_counts_came_from_the_budget(
    plans: dict[str, Plan],
) -> None:
    for name, most in (("priced", MOST_GROWTH), ("explicit", 1.0)):
        plan = plans[name]
        coarse = plan.phases[0]
        assert coarse.cost.seconds is not None
        one = coarse.cost.seconds / coarse.runs
        cheap = {"coarse": ran(coarse, sum(coarse.wave_sizes), one / 100)}
        medium = reprice(plan, cheap, parse_budget(plan.budget), price_of(plan)).plan.phases[1]
        assert medium.trials == math.floor(plan.phases[1].trials * most)
        assert sum(medium.wave_sizes) == medium.runs


def test_a_stage_that_can_not_be_paid_for_stops_with_the_figures(plans: dict[str, Plan]) -> None:
    plan = replace(plans["trainings"], auto=False)
    coarse, medium = plan.stages[:2]
    measured = {"coarse": ran(coarse, coarse.runs, 1.0)}
    fitted = reprice(plan, measured, Budget(amount=10.7, unit="trainings"), CORE, "sweeps/digits")
    assert fitted.stop == (
        "of the budget of 10.7 trainings, 0.0661 are left besides the 6 kept for the final runs; "
        "'medium' needs 0.222 at the least (2 trials), and all that is planned 9.34. "
        'Allow more: orchestrate budget sweeps/digits "20 trainings"'
    ), fitted.stop
    allowed = reprice(plan, measured, Budget(amount=20, unit="trainings"), CORE)
    assert not allowed.stop
    assert allowed.plan.phases[1].trials == medium.trials


def test_a_stage_of_the_tools_own_that_can_not_be_paid_for_is_left_out(plans: dict[str, Plan]) -> None:
    plan = plans["trainings"]
    coarse, medium, fine = plan.stages
    measured = {"coarse": ran(coarse, coarse.runs, 1.0)}
    fitted = reprice(plan, measured, Budget(amount=10.7, unit="trainings"), CORE)
    assert not fitted.stop
    assert fitted.note == (
        "of the budget of 10.7 trainings, 0.0661 are left besides the 6 kept for the final runs; "
        "'medium' needs 0.222 at the least (2 trials), so it is left out"
    )
    assert fitted.plan.phases[1].trials == sum(fitted.plan.phases[1].wave_sizes) == 0
    measured |= {medium.name: ran(medium, 0, 1.0), fine.name: ran(fine, 0, 1.0)}
    final = reprice(plan, measured, Budget(amount=10.7, unit="trainings"), CORE).plan.final
    assert final is not None
    assert final.trials == 6


@pytest.mark.parametrize("trainings", [3, 5, 8, 10, 15, 20, 50])
@pytest.mark.parametrize("startup", [0.0, 0.05])
def test_a_small_budget_in_hours_of_unknown_price_ends_with_final_runs(
    plans: dict[str, Plan], trainings: int, startup: float
) -> None:
    training = 100.0
    budget = Budget(amount=trainings * training / 3600, unit="core-hours")
    measured, end = drive(
        plans["unpriced"], budget, lambda phase: training * (startup + (1 - startup) * (phase.share or 0))
    )
    assert not end.stop
    assert measured["final"].drawn >= 1
    assert 0.85 * budget.amount < hours(measured) <= budget.amount * (1 + 1e-6)


@pytest.mark.parametrize("name", ["priced", "unpriced"])
def test_trials_that_all_diverge_are_paid_as_well(plans: dict[str, Plan], name: str) -> None:
    plan = plans[name]
    budget = parse_budget(plan.budget)
    first = reprice(plan, {}, budget, price_of(plan)).plan.phases[0].wave_sizes[0]
    each = budget.amount * 3600 / first
    spent_all = {"coarse": Spent(drawn=first, waves=1, partial=first, partial_seconds=first * each)}
    fitted = reprice(plan, spent_all, budget, price_of(plan))
    assert fitted.used == pytest.approx(budget.amount)
    assert sum(fitted.plan.phases[0].wave_sizes[1:]) == 0


def test_final_runs_are_cut_to_what_is_left_seeds_first(plans: dict[str, Plan]) -> None:
    plan = plans["trainings"]
    measured = {stage.name: ran(stage, stage.runs, 1.0) for stage in plan.stages}
    used = used_so_far(plan, measured, parse_budget(plan.budget), CORE)

    def final(left: float) -> tuple[int, int, str]:
        fitted = reprice(plan, measured, Budget(amount=used + left, unit="trainings"), CORE)
        phase = fitted.plan.final
        assert phase is not None
        return phase.trials, phase.survivors, fitted.stop or fitted.note

    assert final(6) == (6, 3, "")
    assert final(5.9)[:2] == (3, 3)
    assert final(2.5)[:2] == (2, 2)
    assert "3 of the 6 final runs" in final(4)[2]
    assert "a final run" in final(0.5)[2].replace("one final run", "a final run")
    assert final(0.5)[:2] == (6, 3)


def finals_after(plan: Plan, past: Spent, left: float) -> tuple[Phase, str]:
    """Return the final runs, and why there are no more, when so many trainings are left after `past`."""
    measured = {stage.name: ran(stage, stage.runs, 1.0) for stage in plan.stages} | {FINAL: past}
    used = used_so_far(plan, measured, parse_budget(plan.budget), CORE)
    fitted = reprice(plan, measured, Budget(amount=used + left, unit="trainings"), CORE)
    assert fitted.plan.final is not None and not fitted.stop
    return fitted.plan.final, fitted.note


def test_final_runs_that_are_drawn_are_paid_and_the_waves_ahead_share_what_is_left(
    plans: dict[str, Plan],
) -> None:
    plan = plans["waves"]
    assert plan.final is not None and plan.final.wave_sizes == (3, 3, 2, 2)
    one = Spent(drawn=3, settings=3, waves=1, whole=3, whole_seconds=3.0)
    assert finals_after(plan, one, 7.1)[0].wave_sizes == (3, 3, 2, 2)
    some, note = finals_after(plan, one, 4.1)
    assert (some.trials, some.survivors, some.wave_sizes) == (7, 7, (3, 2, 1, 1))
    assert note.startswith("7 of the 10 final runs: of the budget of ")
    none, _ = finals_after(plan, one, 0.5)
    assert (none.trials, none.survivors, none.wave_sizes) == (3, 3, (3, 0, 0, 0))
    # An earlier wave that was small for want of a budget is made up for, once there is one.
    small = Spent(drawn=1, settings=1, waves=1, whole=1, whole_seconds=1.0)
    assert finals_after(plan, small, 9.1)[0].wave_sizes == (1, 3, 3, 3)


def test_later_final_runs_have_as_many_seeds_as_the_first_ones(plans: dict[str, Plan]) -> None:
    plan = plans["seeds"]
    assert plan.final is not None and plan.final.wave_sizes == (9, 9, 6, 6)
    whole = Spent(drawn=9, settings=3, waves=1, whole=9, whole_seconds=9.0)
    assert finals_after(plan, whole, 21.1)[0].wave_sizes == (9, 9, 6, 6)
    cut, note = finals_after(plan, whole, 8.1)
    assert (cut.trials, cut.survivors, cut.wave_sizes) == (15, 5, (9, 3, 3, 0))
    assert note.startswith("15 of the 30 final runs")
    single, note = finals_after(plan, Spent(drawn=3, settings=3, waves=1, whole=3, whole_seconds=3.0), 27.1)
    assert (single.trials, single.survivors, single.wave_sizes, note) == (10, 10, (3, 3, 2, 2), "")


@given(st.sampled_from(["waves", "seeds", "trainings"]), st.lists(st.floats(1, 40), min_size=4, max_size=4))
def test_no_wave_of_final_runs_is_more_than_is_paid_for(
    plans: dict[str, Plan], name: str, lefts: list[float]
) -> None:
    plan, past = plans[name], Spent()
    assert plan.final is not None
    for left in lefts[: plan.final.waves]:
        fitted, _ = finals_after(plan, past, left)
        count, seeds = fitted.wave_sizes[past.waves], fitted.trials // fitted.survivors
        assert fitted.wave_sizes[past.waves] <= left + 0.1
        assert len(fitted.wave_sizes) == plan.final.waves
        assert count % seeds == 0
        past = Spent(
            drawn=past.drawn + count, settings=past.settings + count // seeds, waves=past.waves + 1,
            whole=past.drawn + count, whole_seconds=1.0 * (past.drawn + count),
        )  # fmt: skip
        assert past.drawn <= plan.final.trials and past.settings <= plan.final.survivors


def test_a_raised_budget_in_another_unit_counts_the_same_sweep(plans: dict[str, Plan]) -> None:
    plan = plans["trainings"]
    measured = {"coarse": ran(plan.phases[0], plan.phases[0].runs, 1.0)}
    samples = Budget(amount=20 * 1079 * 60, unit="samples")
    by_trainings = reprice(plan, measured, parse_budget("20 trainings"), CORE)
    by_samples = reprice(plan, measured, samples, CORE)
    assert by_samples.plan == by_trainings.plan
    assert by_samples.used == pytest.approx(by_trainings.used * 1079 * 60)


def test_from_facts_to_facts(plans: dict[str, Plan]) -> None:
    plan = plans["trainings"]
    coarse = plan.phases[0]
    specs = tuple(
        TrialSpec(trial_id=f"coarse-{n:05d}", setting_id=str(n), params={}, seed=0) for n in range(5)
    )

    def outcome(number: int, state: str, seconds: float) -> Outcome:
        return Outcome(trial=f"coarse-{number:05d}", state=state, metrics={}, seconds=seconds)

    outcomes = [outcome(0, "completed", 4.0), outcome(1, "completed", 6.0), outcome(2, "pruned", 2.5)]
    outcomes.append(outcome(3, "failed", math.nan))
    known = PhaseFacts(
        phase=coarse, waves=1, trials=specs, outcomes={o.trial: o for o in outcomes}, startup_seconds=1.5
    )
    assert spent(known, CORE) == Spent(
        drawn=5, settings=5, waves=1, whole=2, whole_seconds=10.0, partial=2, partial_seconds=2.5,
        startup_seconds=1.5,
    )  # fmt: skip
    # Two whole ones, one that runs, and half of one; the failure took no time that is known.
    assert spent(known, CORE).trials == 3.5
    rest = tuple(PhaseFacts(phase=phase) for phase in plan.phases[1:])
    facts = Facts(plan=plan, phases=(known, *rest))
    assert within_budget(facts, CORE) == facts
    fitted = within_budget(replace(facts, budget="12 trainings"), CORE)
    used = reprice(plan, {"coarse": spent(known, CORE)}, parse_budget("12 trainings"), CORE).used
    assert used == pytest.approx(3.5 * (coarse.share or 0))
    assert fitted.phases[0].trials == specs
    assert [known.phase for known in fitted.phases] == list(fitted.plan.phases)
    assert fitted.phases[0].planned < facts.phases[0].planned
    cost = planned_cost(fitted.plan.phases, parse_budget("12 trainings"))
    assert cost is not None
    assert cost <= 12


def test_a_repriced_plan_survives_json(plans: dict[str, Plan]) -> None:
    plan = reprice(plans["unpriced"], {}, parse_budget("1 core-hours"), CORE).plan
    assert plan.phases[0].sizes
    assert plan_from_json(plan_to_json(plan)) == plan


def test_startup_is_what_the_steps_leave_of_a_trial() -> None:
    def trial(
        name: str, seconds: object, times: list[object], state: str = "completed"
    ) -> list[dict[str, object]]:
        reports = [{"kind": "report", "trial": name, "time": time} for time in times]
        end = {"kind": "outcome", "trial": name, "state": state, "seconds": seconds}
        return [{"kind": "start", "trial": name}, *reports, end]

    def startups(*lines: dict[str, object]) -> list[float]:
        return digest_of("".join(encode(line) for line in lines).encode()).startups

    # Steps of two seconds, four of them, in eleven: three of startup.
    clear = trial("a", 11.0, [5.0, 7.0, 9.0, 11.0])
    assert startup_seconds(startups(*clear)) == pytest.approx(3.0)
    assert startup_seconds(startups(*clear, *trial("b", 9.0, [5.0, 7.0, 9.0, 11.0]))) == pytest.approx(2.0)
    for nothing in (
        trial("a", 11.0, []),
        trial("a", 11.0, [5.0]),
        trial("a", "NaN", [5.0, 7.0]),
        trial("a", 11.0, ["NaN", 7.0]),
        trial("a", 11.0, [5.0, 7.0], state="pruned"),
    ):
        assert startup_seconds(startups(*nothing)) is None
    assert startup_seconds(startups(*trial("a", 1.0, [5.0, 7.0]))) == 0.0
    assert startup_seconds([]) is None
