"""Promotion: survivors, controls, a stage's trials and the final runs."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.promotion import (
    CONTROL,
    SAMPLED,
    SURVIVOR,
    Finished,
    controls,
    final_trials,
    rank,
    stage_trials,
    survivors,
)
from orchestrator.space import Value, parse_space, setting_id
from orchestrator.sweep.directory import FINAL, STAGE, TrialSpec

SPACE = parse_space({"lr": "tag(log, interval(1e-4, 1))", "act": "choice(relu, tanh)"}, {}, "sweep.yaml")


def finished(trial: str, objective: float, setting: str = "") -> Finished:
    params: dict[str, Value] = {"lr": 0.01, "act": setting or trial}
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


def test_the_best_survive_and_controls_come_from_all_over_the_rest() -> None:
    best = survivors(BEFORE, 4)
    assert [item.objective for item in best] == [19, 18, 17, 16]
    rest = controls(BEFORE, 4, best)
    assert [item.objective for item in rest] == [13, 9, 5, 1]


def test_a_setting_counts_once_with_its_best_result() -> None:
    twice = [finished("a", 1.0, "same"), finished("b", 3.0, "same"), finished("c", 2.0)]
    assert [item.spec.trial_id for item in rank(twice)] == ["b", "c"]
    assert len(survivors(twice, 5)) == 2
    assert controls(twice, 5, survivors(twice, 2)) == []


def test_diverged_trials_are_never_promoted() -> None:
    before = [finished("a", 1.0), finished("b", -math.inf), finished("c", math.nan), finished("d", 0.5)]
    assert [item.spec.trial_id for item in survivors(before, 4)] == ["a", "d"]
    assert [item.spec.trial_id for item in controls(before, 4, survivors(before, 1))] == ["d"]
    assert survivors([finished("a", -math.inf)], 3) == []
    assert controls([], 3, []) == []


def test_a_stage_has_survivors_controls_and_new_settings() -> None:
    trials = stage_trials(stage(12, 3, 2), SPACE, 7, BEFORE, [])
    assert [t.origin for t in trials] == [SURVIVOR] * 3 + [CONTROL] * 2 + [SAMPLED] * 7
    assert [t.trial_id for t in trials] == [f"medium-{index:05d}" for index in range(12)]
    assert [t.parent for t in trials[:3]] == ["coarse-00019", "coarse-00018", "coarse-00017"]
    assert all(t.parent for t in trials[:5])
    assert not any(t.parent for t in trials[5:])
    by_parent = {item.spec.trial_id: item.spec for item in BEFORE}
    for trial in trials[:5]:
        assert trial.params == by_parent[trial.parent].params
        assert trial.setting_id == by_parent[trial.parent].setting_id
    assert len({t.setting_id for t in trials}) == 12
    assert len({t.seed for t in trials}) == 12
    for trial in trials[5:]:
        assert all(p.contains(trial.params[p.name]) for p in SPACE)
        assert trial.setting_id == setting_id(trial.params)


def test_places_without_a_survivor_go_to_new_settings() -> None:
    trials = stage_trials(stage(8, 4, 4), SPACE, 7, BEFORE[:3], [])
    assert [t.origin for t in trials] == [SURVIVOR] * 3 + [SAMPLED] * 5
    first = stage_trials(stage(8, 4, 4), SPACE, 7, [], [])
    assert [t.origin for t in first] == [SAMPLED] * 8


def test_the_same_facts_give_the_same_trials() -> None:
    mixed = list(BEFORE)
    random.Random(3).shuffle(mixed)
    again = stage_trials(stage(12, 3, 2, "tpe"), SPACE, 7, mixed, [])
    assert again == stage_trials(stage(12, 3, 2, "tpe"), SPACE, 7, BEFORE, [])
    other = stage_trials(stage(12, 3, 2, "tpe"), SPACE, 8, BEFORE, [])
    assert [t.setting_id for t in other[5:]] != [t.setting_id for t in again[5:]]
    assert [t.setting_id for t in other[:5]] == [t.setting_id for t in again[:5]]


def test_final_runs_are_the_best_settings_times_the_seeds() -> None:
    phase = Phase(kind=FINAL, name=FINAL, trials=6, scale=Scale(), survivors=3)
    trials = final_trials(phase, 2, 40, BEFORE)
    assert [t.trial_id for t in trials] == [f"final-{index:05d}" for index in range(6)]
    # Every setting's first seed comes first.
    assert [t.seed for t in trials] == [40, 40, 40, 41, 41, 41]
    assert [t.parent for t in trials] == ["coarse-00019", "coarse-00018", "coarse-00017"] * 2
    assert len({(t.setting_id, t.seed) for t in trials}) == 6
    assert [t.trial_id for t in final_trials(phase, 2, 0, BEFORE[:1])] == ["final-00000", "final-00001"]
    assert final_trials(phase, 2, 0, [finished("a", -math.inf)]) == []


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
    best = survivors(before, survive)
    others = controls(before, control, best)
    promoted = [*best, *others]
    ids = [item.spec.setting_id for item in promoted]
    assert len(set(ids)) == len(ids)
    assert all(math.isfinite(item.objective) for item in promoted)
    settings = {item.spec.setting_id for item in before if math.isfinite(item.objective)}
    assert len(best) == min(survive, len(settings))
    assert len(others) == min(control, len(settings) - len(best))
    if best and others:
        assert min(item.objective for item in best) >= max(item.objective for item in others)
    shuffle.shuffle(before)
    assert survivors(before, survive) == best
    assert controls(before, control, best) == others
