"""Deciding on stages that are drawn in waves, close before all is in, and leave stragglers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from made_facts import (
    ANY,
    COARSE,
    FINE,
    GONE,
    LAST,
    PLAN,
    TOGETHER,
    UP,
    ended,
    specs,
    states,
    submission,
    whole,
)

from orchestrator.cluster.interface import Capacity, TaskStatus
from orchestrator.control.decide import (
    DONE,
    RUNNING,
    Decision,
    Freeze,
    Limits,
    MarkLost,
    Stop,
    Submit,
    TaskKey,
    decide,
    settled,
)
from orchestrator.sweep.facts import Facts, PhaseFacts, Retry
from orchestrator.sweep.records import DIVERGED, Outcome
from orchestrator.sweep.submissions import Loss, Submission

WAVY = replace(COARSE, trials=10, waves=2, close=0.9, repeats=2)


def wavy(*submissions: Submission, waves: int, outcomes: Mapping[str, Outcome] | None = None) -> PhaseFacts:
    """The stage of 10 trials in two waves and two repeats, with a name of one letter each."""
    names = "abcdefghijkl"[: sum(WAVY.wave_sizes[:waves])]
    return PhaseFacts(
        phase=WAVY, waves=waves, trials=specs(names), submissions=submissions, outcomes=outcomes or {}
    )


def wave_facts(known: PhaseFacts, *more: PhaseFacts) -> Facts:
    plan = replace(PLAN, phases=(WAVY, *PLAN.phases[1:]))
    rest = tuple(PhaseFacts(phase=phase) for phase in plan.phases[1 + len(more) :])
    closed = replace(known, closed=bool(more))
    return Facts(plan=plan, phases=(closed, *more, *rest), checked=True, compacted=99)


def test_each_wave_is_drawn_when_enough_of_those_before_are_in() -> None:
    assert WAVY.wave_sizes == (5, 5, 2)
    assert decide(wave_facts(wavy(waves=0)), {}, ANY).actions == (Freeze(WAVY),)
    running = submission(1, ("a", "b"), ("c", "d"), ("e",))
    four = wavy(running, waves=1, outcomes=ended("abcd"))
    assert decide(wave_facts(four), states(1, GONE, GONE, UP), ANY) == Decision(RUNNING), "90% of 5 are all"
    five = wavy(running, waves=1, outcomes=ended("abcde"))
    assert decide(wave_facts(five), {}, ANY).actions == (Freeze(WAVY, 1),)
    # Nine of ten: the repeats are drawn although one is still running.
    both = (running, submission(2, ("f", "g"), ("h", "i"), ("j",)))
    nine = wavy(*both, waves=2, outcomes=ended("abcdefghi"))
    assert decide(wave_facts(nine), states(2, GONE, GONE, UP), ANY).actions == (Freeze(WAVY, 2),)
    # All waves are drawn: what the last of them needs comes before the next stage.
    drawn = wavy(*both, waves=3, outcomes=ended("abcdefghi"))
    assert decide(wave_facts(drawn), states(2, GONE, GONE, UP), ANY).actions == (
        Submit(WAVY, (("k", "l"),), 3),
    )


def test_an_empty_wave_is_not_drawn_again() -> None:
    known = replace(wavy(waves=1, outcomes=ended("abcde")), waves=3)
    assert decide(wave_facts(known), {}, ANY).actions == (Freeze(FINE),)


def late(free: int | None = None, *, status: TaskStatus = UP, fine: PhaseFacts | None = None) -> Decision:
    """The stage of waves with one straggler, l, in a task of its own."""
    known = wavy(submission(1, ("l",)), waves=3, outcomes=ended("abcdefghijk"))
    return decide(
        wave_facts(known, *((fine,) if fine else ())),
        states(1, status),
        Limits(attempts=3, capacity=Capacity(tasks=free)),
    )


FINE_BEGUN = PhaseFacts(phase=FINE, waves=1, trials=specs("yz"))


def test_the_next_stage_begins_with_the_closing_share_and_gets_the_free_tasks() -> None:
    assert late().actions == (Freeze(FINE),)
    assert late(fine=FINE_BEGUN).actions == (Submit(FINE, (("y", "z"),), 1),)
    # The straggler's task is counted among those that run.
    assert late(free=1, fine=FINE_BEGUN).actions == ()
    assert late(free=2, fine=FINE_BEGUN).actions == (Submit(FINE, (("y", "z"),), 1),)


def test_a_stage_does_not_close_with_a_trial_left_to_submit_or_a_task_to_note() -> None:
    lost = submission(1, ("l",), losses={0: Loss(reason="TIMEOUT", blamed=("l",))})
    waiting = wavy(lost, waves=3, outcomes=ended("abcdefghijk"))
    assert decide(wave_facts(waiting), {}, ANY).actions == (Submit(WAVY, (("l",),), 2),)
    assert decide(wave_facts(waiting), {}, Limits(attempts=3, capacity=Capacity(tasks=0))).actions == ()
    (noted,) = late(status=GONE).actions
    assert isinstance(noted, MarkLost)


def test_a_straggler_of_a_closed_stage_is_noted_when_lost_and_not_submitted_again() -> None:
    notes = late(status=GONE, fine=FINE_BEGUN).actions
    assert [type(action) for action in notes] == [MarkLost, Submit]
    lost = submission(1, ("l",), losses={0: Loss(reason="TIMEOUT", blamed=("l",))})
    known = wavy(lost, waves=3, outcomes=ended("abcdefghijk"))
    assert decide(wave_facts(known, FINE_BEGUN), {}, ANY).actions == (Submit(FINE, (("y", "z"),), 1),)
    closed = replace(known, closed=True)
    assert closed.given_up(3) == {"l": "its stage had closed"}
    assert settled(closed, 3) and not settled(known, 3)
    # A person may want it all the same.
    wish = Retry(phase="coarse", trials=frozenset("l"), submission=1)
    wished = replace(known, retries=(wish,))
    assert decide(wave_facts(wished, FINE_BEGUN), {}, ANY).actions == (
        Submit(WAVY, (("l",),), 2),
        Submit(FINE, (("y", "z"),), 1),
    )


def ending(known: PhaseFacts, tasks: Mapping[TaskKey, TaskStatus]) -> Decision:
    """All other phases have settled."""
    after = (
        replace(FINE_BEGUN, outcomes=ended("yz")),
        PhaseFacts(phase=LAST, waves=1, trials=specs("ij"), outcomes=ended("ij")),
        PhaseFacts(phase=TOGETHER, waves=1, trials=specs("k"), outcomes=ended("k")),
    )
    return decide(wave_facts(known, *after), tasks, ANY)


def test_at_the_end_stragglers_are_stopped_and_the_sweep_is_done_without_them() -> None:
    outcomes = ended("abcdefghijk")
    straggler = wavy(submission(1, ("l",)), waves=3, outcomes=outcomes)
    assert ending(straggler, states(1, UP)) == Decision(RUNNING, (Stop(WAVY, ("1_0",)),))
    (noted,) = ending(straggler, states(1, GONE)).actions
    assert isinstance(noted, MarkLost)
    lost = submission(1, ("l",), losses={0: Loss(reason="cancelled", blamed=("l",))})
    assert ending(wavy(lost, waves=3, outcomes=outcomes), {}) == Decision(DONE)
    # What a person asked for is waited for.
    wish = Retry(phase="coarse", trials=frozenset("l"), submission=1)
    again = wavy(lost, submission(2, ("l",)), waves=3, outcomes=outcomes)
    assert ending(replace(again, retries=(wish,)), states(2, UP)) == Decision(RUNNING)


def test_a_closing_stage_without_any_finite_result_waits_for_its_stragglers() -> None:
    everything = whole()
    stage = replace(FINE, trials=10, close=0.9)
    poor = PhaseFacts(
        phase=stage, waves=1, trials=specs("0123456789"), submissions=(submission(1, ("9",)),),
        outcomes=ended("012345678", DIVERGED, acc=math.nan),
    )  # fmt: skip
    plan = replace(PLAN, phases=(COARSE, stage, *PLAN.phases[2:]))
    rest = tuple(PhaseFacts(phase=phase) for phase in plan.phases[2:])
    known = replace(everything, plan=plan, phases=(replace(everything.phases[0], closed=True), poor, *rest))
    waiting = decide(known, {("fine", 1, 0): UP}, ANY)
    assert waiting.state == RUNNING
    assert Freeze(PLAN.phases[2]) not in waiting.actions
    poor = replace(poor, outcomes=ended("0123456789", DIVERGED, acc=math.nan))
    settled = decide(replace(known, phases=(known.phases[0], poor, *rest)), {}, ANY)
    assert settled == Decision(RUNNING, (Freeze(PLAN.phases[2]),)), "the stage before has some"


@given(
    trials=st.integers(1, 40), waves=st.integers(1, 9), promoted=st.integers(0, 40), repeats=st.integers(0, 3)
)
def test_waves_add_up_and_the_first_holds_what_was_promoted(
    trials: int, waves: int, promoted: int, repeats: int
) -> None:
    phase = replace(COARSE, trials=trials, waves=min(waves, trials), survivors=promoted, repeats=repeats)
    sizes = phase.wave_sizes
    assert sum(sizes) == phase.runs == trials + repeats
    assert len(sizes) == phase.waves + bool(repeats)
    assert sizes[0] >= min(promoted, trials) and min(sizes) >= 0


@given(close=st.integers(1, 100), count=st.integers(1, 60), done=st.integers(0, 60))
def test_a_stage_closes_with_exactly_its_share(close: int, count: int, done: int) -> None:
    names = [f"t{i}" for i in range(count)]
    done = min(done, count)
    stage = replace(COARSE, trials=count, close=close / 100)
    known = PhaseFacts(
        phase=stage, waves=1, trials=specs(names), outcomes=ended(names[:done]),
        submissions=(submission(1, *((name,) for name in names)),),
    )  # fmt: skip
    plan = replace(PLAN, phases=(stage, FINE))
    found = Facts(plan=plan, phases=(known, PhaseFacts(phase=FINE)), checked=True, compacted=99)
    begins = Freeze(FINE) in decide(found, {}, ANY).actions
    assert begins == (100 * done >= close * count)
