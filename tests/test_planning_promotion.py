"""Promotion: merit, survivors, controls, repeats, a stage's waves and the final runs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.finished import Finished
from orchestrator.planning.merit import merits
from orchestrator.planning.narrowing.trust import Agreement
from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.promotion import (
    CONTROL,
    REPEAT,
    SAMPLED,
    START,
    SURVIVOR,
    Known,
    came_late,
    final_trials,
    promoted,
    wave_trials,
)
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import Value, parse_space, setting_id
from orchestrator.sweep.directory import FINAL, STAGE, TrialSpec

SPACE = parse_space({"lr": "tag(log, interval(1e-4, 1))", "act": "choice(relu, tanh)"}, {}, "sweep.yaml")
NO_TRUST = Agreement(low="a", high="b", settings=20, correlation=-0.05, interval=(-0.3, 0.15))


def finished(trial: str, objective: float, setting: str = "", *, lr: float = 0.01) -> Finished:
    params: dict[str, Value] = {"lr": lr, "act": setting or trial}
    spec = TrialSpec(trial_id=trial, setting_id=setting_id(params), params=params, seed=0)
    return Finished(spec=spec, objective=objective)


def stage(trials: int, survive: int, control: int, sampler: str = "sobol") -> Phase:
    return Phase(
        kind=STAGE,
        name="medium",
        trials=trials,
        scale=Scale(),
        survivors=survive,
        controls=control,
        sampler=sampler,
    )


BEFORE = [finished(f"coarse-{index:05d}", float(index)) for index in range(20)]
KNOWN = Known(before=BEFORE)


def so_far(own: Sequence[Finished]) -> Known:
    return Known(before=BEFORE, own=own, drawn=[item.spec for item in own])


def test_a_stage_has_survivors_controls_and_new_settings() -> None:
    trials = wave_trials(stage(12, 3, 4), 0, SPACE, 7, KNOWN)
    assert [t.origin for t in trials] == [SURVIVOR] * 3 + [CONTROL] * 4 + [SAMPLED] * 5
    assert [t.trial_id for t in trials] == [f"medium-{index:05d}" for index in range(12)]
    assert [t.parent for t in trials[:3]] == ["coarse-00019", "coarse-00018", "coarse-00017"]
    # The controls come from all over the rest of the ranking.
    assert [t.parent for t in trials[3:7]] == [f"coarse-{n:05d}" for n in (14, 10, 6, 2)]
    assert not any(t.parent for t in trials[7:])
    by_parent = {item.spec.trial_id: item.spec for item in BEFORE}
    for trial in trials[:7]:
        assert trial.params == by_parent[trial.parent].params
        assert trial.setting_id == by_parent[trial.parent].setting_id
    assert len({t.setting_id for t in trials}) == 12
    assert len({t.seed for t in trials}) == 12
    for trial in trials[7:]:
        assert all(p.contains(trial.params[p.name]) for p in SPACE)
        assert trial.setting_id == setting_id(trial.params)


def test_places_without_a_survivor_go_to_new_settings() -> None:
    trials = wave_trials(stage(8, 4, 4), 0, SPACE, 7, Known(before=BEFORE[:3]))
    assert [t.origin for t in trials] == [SURVIVOR] * 3 + [SAMPLED] * 5
    first = wave_trials(stage(8, 4, 4), 0, SPACE, 7, Known())
    assert [t.origin for t in first] == [SAMPLED] * 8


def test_settings_to_start_from_come_first_and_only_in_the_first_stage() -> None:
    paper = [{"lr": 0.1, "act": "relu"}, {"lr": 0.003, "act": "tanh"}]
    trials = wave_trials(stage(8, 2, 0), 0, SPACE, 7, Known(start=paper))
    assert [t.params for t in trials[:2]] == paper
    assert [t.origin for t in trials] == [START] * 2 + [SAMPLED] * 6
    later = wave_trials(stage(8, 2, 0), 0, SPACE, 7, Known(before=BEFORE, start=paper))
    assert START not in [t.origin for t in later]


def test_where_rankings_do_not_carry_over_survivors_come_from_all_over_with_the_best() -> None:
    trials = wave_trials(stage(12, 4, 0), 0, SPACE, 7, Known(before=BEFORE, trust=NO_TRUST))
    parents = [int(t.parent[-2:]) for t in trials if t.origin == SURVIVOR]
    assert parents[0] == 19
    assert min(parents) < 6


def test_the_best_of_a_stage_that_came_in_late_goes_on_with_the_next_one() -> None:
    first = [finished(f"coarse-{n}", float(n), f"c{n}") for n in range(8)]
    went_on = {item.spec.setting_id for item in first[4:7]}
    ran = [finished(f"medium-{n}", float(n), f"c{n}") for n in range(4, 7)]
    late = came_late([first, ran], [{item.spec.setting_id for item in first}, went_on])
    assert [merit.params["act"] for merit in late] == ["c7"]
    trials = wave_trials(stage(8, 2, 1), 0, SPACE, 1, Known(before=ran, late=late))
    survivors = [spec for spec in trials if spec.origin == SURVIVOR]
    assert [spec.parent for spec in survivors] == ["coarse-7", "medium-6", "medium-5"]
    assert len(trials) == 8
    # It has gone on by now, and while nothing is late nothing is.
    again = finished("fine-0", 1.0, "c7")
    drawn = [{item.spec.setting_id for item in first}, went_on, {again.spec.setting_id}]
    assert came_late([first, ran, [again]], drawn) == []
    assert came_late([first], [set()]) == came_late([], []) == []


def test_later_waves_count_on_and_repeat_nothing_of_the_stage() -> None:
    phase = replace(stage(12, 3, 1), waves=3, repeats=2)
    own: list[Finished] = []
    names: list[str] = []
    for wave in range(3):
        specs = wave_trials(phase, wave, SPACE, 7, so_far(own))
        own += [Finished(spec=spec, objective=float(spec.params["lr"])) for spec in specs]
        names += [spec.trial_id for spec in specs]
    assert names == [f"medium-{index:05d}" for index in range(12)]
    assert len({item.spec.setting_id for item in own}) == 12
    repeats = wave_trials(phase, 3, SPACE, 7, so_far(own))
    assert [t.origin for t in repeats] == [REPEAT] * 2
    assert [t.trial_id for t in repeats] == ["medium-00012", "medium-00013"]
    by_id = {item.spec.trial_id: item for item in own}
    best = sorted(own, key=lambda item: -item.objective)[:2]
    assert [by_id[t.parent] for t in repeats] == best
    # The same settings from other seeds.
    assert all(t.setting_id == by_id[t.parent].spec.setting_id for t in repeats)
    assert all(t.seed != by_id[t.parent].spec.seed for t in repeats)


def test_the_same_facts_give_the_same_trials() -> None:
    mixed = list(BEFORE)
    random.Random(3).shuffle(mixed)
    for sampler in ("tpe", "model"):
        phase = stage(12, 3, 2, sampler)
        again = wave_trials(phase, 0, SPACE, 7, Known(before=mixed))
        assert again == wave_trials(phase, 0, SPACE, 7, KNOWN)
        other = wave_trials(phase, 0, SPACE, 8, KNOWN)
        assert [t.setting_id for t in other[5:]] != [t.setting_id for t in again[5:]]
        assert [t.setting_id for t in other[:5]] == [t.setting_id for t in again[:5]]


def test_the_model_takes_settings_of_the_stage_before_as_well_as_new_ones() -> None:
    space = parse_space({"lr": "choice(1e-4, 1e-3, 1e-2, 0.1)", "act": "choice(relu, tanh)"}, {}, "s")
    values = [10.0**n for n in range(-4, 0)]
    before = [
        finished(f"{act}{n}", -abs(n - 2.0) - (act == "tanh"), act, lr=values[n])
        for n in range(4)
        for act in ("relu", "tanh")
        if (n, act) != (2, "relu")
    ]
    seen = [Observation(item.spec.params, item.objective, 0.1) for item in before]
    trials = wave_trials(stage(3, 0, 0, "model"), 0, space, 7, Known(before=before, history=seen))
    # The setting that nobody tried is the best guess, and of those that ran only good ones run again.
    assert {t.origin for t in trials} == {SURVIVOR, SAMPLED}
    assert next(t.params for t in trials if t.origin == SAMPLED) == {"lr": 0.01, "act": "relu"}
    by_id = {item.spec.trial_id: item for item in before}
    for trial in trials:
        if trial.origin == SURVIVOR:
            assert by_id[trial.parent].spec.setting_id == trial.setting_id
            assert by_id[trial.parent].objective >= -2


def test_final_runs_are_the_best_settings_times_the_seeds() -> None:
    phase = Phase(kind=FINAL, name=FINAL, trials=6, scale=Scale(), survivors=3)
    trials = final_trials(phase, 2, 40, SPACE, "sobol", KNOWN)
    assert [t.trial_id for t in trials] == [f"final-{index:05d}" for index in range(6)]
    # Every setting's first seed comes first.
    assert [t.seed for t in trials] == [40, 40, 40, 41, 41, 41]
    assert [t.parent for t in trials] == ["coarse-00019", "coarse-00018", "coarse-00017"] * 2
    assert len({(t.setting_id, t.seed) for t in trials}) == 6
    few = final_trials(phase, 2, 0, SPACE, "sobol", Known(before=BEFORE[:1]))
    assert [t.trial_id for t in few] == ["final-00000", "final-00001"]
    assert final_trials(phase, 2, 0, SPACE, "sobol", Known(before=[finished("a", -math.inf)])) == []


def finals(top: int, seeds: int, waves: int) -> Phase:
    return Phase(
        kind=FINAL, name=FINAL, trials=top * seeds, scale=Scale(), survivors=top, waves=waves
    )  # fmt: skip


def drawn_in_waves(phase: Phase, seeds: int, sampler: str, known: Known) -> list[list[TrialSpec]]:
    """Return the waves of final runs, each known to the next ones by results that are best at lr = 1."""
    waves: list[list[TrialSpec]] = []
    for wave in range(len(phase.wave_sizes)):
        drawn = [spec for specs in waves for spec in specs]
        own = [Finished(spec=spec, objective=math.log10(float(spec.params["lr"]))) for spec in drawn]
        seen = [Observation(item.spec.params, item.objective, 1.0) for item in own]
        now = replace(known, own=own, drawn=drawn, history=[*known.history, *seen])
        waves.append(final_trials(phase, seeds, 40, SPACE, sampler, now, wave))
    return waves


def test_waves_of_final_runs_are_whole_settings() -> None:
    assert finals(10, 1, 4).wave_sizes == (3, 3, 2, 2)
    assert finals(10, 3, 4).wave_sizes == (9, 9, 6, 6)
    assert finals(3, 3, 1).wave_sizes == (9,)
    assert finals(1, 2, 3).wave_sizes == (2, 0, 0)


def test_later_waves_of_final_runs_go_on_with_the_next_best_and_count_on() -> None:
    waves = drawn_in_waves(finals(5, 2, 2), 2, "sobol", KNOWN)
    assert [len(wave) for wave in waves] == [6, 4]
    both = [spec for wave in waves for spec in wave]
    assert [spec.trial_id for spec in both] == [f"final-{index:05d}" for index in range(10)]
    assert [spec.seed for spec in both] == [40] * 3 + [41] * 3 + [40] * 2 + [41] * 2
    assert [spec.parent[-2:] for spec in both] == ["19", "18", "17"] * 2 + ["16", "15"] * 2
    assert {spec.origin for spec in both} == {SURVIVOR}


def ran_small() -> Known:
    """Return what a stage found whose small scale likes a lower learning rate."""
    before = [
        finished(f"coarse-{n:05d}", -abs(rate + 2), "relu", lr=10**rate)
        for n, rate in enumerate((-4, -3.5, -3, -2.5, -2, -1.5, -1))
    ]
    return Known(before=before, history=[Observation(i.spec.params, i.objective, 0.1) for i in before])


def test_with_the_model_later_waves_follow_what_full_scale_gave() -> None:
    known = ran_small()
    first, *later = drawn_in_waves(finals(6, 1, 3), 1, "model", known)
    assert 10**-2 in [spec.params["lr"] for spec in first]
    last = later[-1]
    assert max(float(spec.params["lr"]) for spec in last) > 0.1
    assert SAMPLED in {spec.origin for wave in later for spec in wave}
    by_id = {item.spec.trial_id: item.spec for item in known.before}
    for spec in (spec for wave in later for spec in wave):
        assert (spec.origin == SURVIVOR) == bool(spec.parent)
        assert not spec.parent or by_id[spec.parent].setting_id == spec.setting_id
    every = [spec for wave in (first, *later) for spec in wave]
    assert len({spec.setting_id for spec in every}) == len(every) == 6
    assert drawn_in_waves(finals(6, 1, 3), 1, "model", known) == [first, *later]


def test_a_setting_whose_final_run_failed_is_not_drawn_again() -> None:
    known = ran_small()
    first = final_trials(finals(4, 1, 2), 1, 40, SPACE, "model", known)
    again = final_trials(finals(4, 1, 2), 1, 40, SPACE, "model", replace(known, drawn=first), 1)
    assert [spec.trial_id for spec in again] == ["final-00002", "final-00003"]
    assert not {spec.setting_id for spec in first} & {spec.setting_id for spec in again}


def test_a_setting_that_failed_in_a_stage_is_not_drawn_again() -> None:
    space = parse_space({"act": "choice(a, b, c, d, e, f, g, h)"}, {}, "sweep.yaml")
    seen = [Observation({"act": value}, float(n), 0.1) for n, value in enumerate("abcdefgh")]
    phase = replace(stage(8, 0, 0, "model"), waves=2)
    first = wave_trials(phase, 0, space, 7, Known(history=seen))
    again = wave_trials(phase, 1, space, 7, Known(history=seen, drawn=first))
    assert len({spec.setting_id for spec in (*first, *again)}) == 8


def test_a_lucky_single_result_loses_to_repeated_good_ones() -> None:
    """The winner's curse: with the noise known from repeats, one high value is not the best bet."""
    noisy = [finished(f"lucky-{n}", value, "lucky") for n, value in enumerate((10.0,))]
    noisy += [finished(f"steady-{n}", value, "steady") for n, value in enumerate((8.9, 9.4, 9.0, 9.1))]
    noisy += [finished(f"wild-{n}", value, "wild") for n, value in enumerate((2.0, 9.0, 5.5))]
    noisy += [finished(f"poor-{n}", value, f"poor{n}") for n, value in enumerate((4.0, 5.0, 6.0))]
    best = promoted("sobol", SPACE, noisy, 1, [])
    assert best[0].params["act"] == "steady"
    assert best[0].runs == 4
    # Without repeats there is no noise to know, and the best result is the best guess.
    once = [item for item in noisy if item.spec.trial_id.endswith("-0")]
    assert promoted("sobol", SPACE, once, 1, [])[0].params["act"] == "lucky"


def test_promoted_settings_differ_while_there_are_others() -> None:
    crowd = [finished(f"c{n}", 9.0 + n / 100, "relu", lr=0.1 * (1 + n / 100)) for n in range(4)]
    others = [finished("d", 8.0, "relu", lr=0.001), finished("e", 7.0, "tanh", lr=0.1)]
    assert [m.trial_id for m in promoted("sobol", SPACE, [*crowd, *others], 3, [])] == ["c3", "d", "e"]
    # When nothing else is left, the alike ones follow in their order.
    assert [m.trial_id for m in promoted("sobol", SPACE, [*crowd, *others], 4, [])] == ["c3", "d", "e", "c2"]


def test_a_setting_that_diverges_once_is_not_promoted_and_stopped_ones_come_last() -> None:
    shaky = [finished("a", 9.0, "x"), finished("b", -math.inf, "x"), finished("c", 1.0, "y")]
    stopped = replace(finished("d", 99.0, "z"), settled=False, step=3)
    further = replace(finished("e", 2.0, "w"), settled=False, step=9)
    ranked = promoted("sobol", SPACE, [*shaky, stopped, further], 5, [])
    assert [merit.trial_id for merit in ranked] == ["c", "e", "d"]


results = st.lists(
    st.tuples(
        st.one_of(st.floats(-5, 5), st.sampled_from((1.0, -math.inf, math.nan))), st.sampled_from("abcdefgh")
    ),
    max_size=25,
)


@given(results, st.integers(0, 10), st.integers(0, 10), st.randoms(use_true_random=False))
def test_what_holds_for_any_results(
    given_results: list[tuple[float, str]], survive: int, control: int, shuffle: random.Random
) -> None:
    before = [finished(f"t{i:03d}", value, setting) for i, (value, setting) in enumerate(given_results)]
    ranked = merits(before)
    assert len({setting_id(merit.params) for merit in ranked}) == len(ranked)
    assert len(ranked) == len({item.spec.setting_id for item in before})
    good = [merit for merit in ranked if math.isfinite(merit.mean)]
    assert good == ranked[: len(good)]
    best = promoted("sobol", SPACE, before, survive, [])
    assert len(best) == min(survive, len(good))
    if good and survive:
        # The best of all is always there.
        assert best[0] == good[0]
    trials = wave_trials(stage(12, survive, control), 0, SPACE, 7, Known(before=before))
    assert len(trials) == 12
    assert len({t.setting_id for t in trials}) == 12
    shuffle.shuffle(before)
    assert wave_trials(stage(12, survive, control), 0, SPACE, 7, Known(before=before)) == trials
