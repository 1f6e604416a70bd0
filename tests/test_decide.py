"""Deciding, on facts made by hand: no file and no cluster."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_facts import (
    ANY,
    COARSE,
    FINE,
    FULL,
    GONE,
    PLAN,
    TRIALS,
    UP,
    WAITING,
    coarse,
    ended,
    facts,
    outcome,
    specs,
    states,
    submission,
    whole,
)

from orchestrator.cluster.interface import ALIVE, Capacity, TaskStatus
from orchestrator.control.decide import (
    CANCELLED,
    DONE,
    PAUSED,
    RUNNING,
    STUCK,
    CheckJob,
    Compact,
    Decision,
    Freeze,
    Limits,
    MarkLost,
    Reconcile,
    Stop,
    Submit,
    TaskKey,
    decide,
    in_question,
    settled,
)
from orchestrator.sweep.facts import PhaseFacts, Retry
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, STATES, Outcome
from orchestrator.sweep.submissions import Loss, Submission


def test_a_fresh_sweep_freezes_its_first_stage() -> None:
    assert decide(facts(), {}, ANY) == Decision(RUNNING, (Freeze(COARSE),))


def test_a_frozen_stage_checks_the_job_once_and_submits_in_batches() -> None:
    assert decide(facts(coarse(), checked=False), {}, ANY) == Decision(RUNNING, (CheckJob(),))
    assert decide(facts(coarse()), {}, ANY) == Decision(RUNNING, (Submit(COARSE, FULL, 1),))


def test_an_odd_batch_comes_last() -> None:
    known = coarse(outcomes=ended("c"))
    assert decide(facts(known), {}, ANY).actions == (Submit(COARSE, (("a", "b"), ("d", "e"), ("f",)), 1),)


@pytest.mark.parametrize(
    ("free", "submitted"),
    [(0, 0), (1, 0), (2, 1), (3, 2), (9, 2), (None, 2)],
)
def test_free_places_are_respected(free: int | None, submitted: int) -> None:
    # One task is up, two more batches wait for a place.
    decision = decide(
        facts(coarse(submission(1, ("a", "b")))),
        states(1, UP),
        Limits(attempts=3, capacity=Capacity(tasks=free)),
    )
    tasks = [task for action in decision.actions if isinstance(action, Submit) for task in action.tasks]
    assert tasks == [("c", "d"), ("e", "f")][:submitted]
    assert decision.state == RUNNING


def test_nothing_to_do_while_all_of_it_runs() -> None:
    known = coarse(submission(1, *FULL))
    assert decide(facts(known), states(1, UP, WAITING, UP), ANY) == Decision(RUNNING)
    # A receipt that came after the cluster was asked: alive.
    assert decide(facts(known), {}, ANY) == Decision(RUNNING)


def test_an_intent_without_a_receipt_is_looked_up_and_not_submitted_again() -> None:
    unclear = submission(1, ("a", "b"), ("c",), receipt=False)
    assert decide(facts(coarse(unclear)), {}, ANY).actions == (
        Reconcile(COARSE, unclear),
        Submit(COARSE, (("d", "e"), ("f",)), 2),
    )


def test_an_abandoned_submission_is_as_if_it_never_was() -> None:
    known = coarse(submission(1, *FULL, receipt=False, abandoned=True))
    assert decide(facts(known), {}, ANY).actions == (Submit(COARSE, FULL, 2),)
    assert in_question(known) == []


def test_an_ended_task_is_marked_lost_and_its_trials_run_again_afterwards() -> None:
    first = submission(1, *FULL)
    known = coarse(first, outcomes=ended("a"))
    assert decide(facts(known), states(1, GONE, UP, UP), ANY).actions == (
        MarkLost(COARSE, first, 0, "NODE_FAIL", "", ("b",), frozenset()),
    )
    lost = submission(1, *FULL, losses={0: Loss(reason="NODE_FAIL", blamed=("b",))})
    after = coarse(lost, outcomes=ended("a"))
    assert decide(facts(after), states(1, GONE, UP, UP), ANY).actions == (Submit(COARSE, (("b",),), 2),)


def test_an_ended_task_that_left_all_outcomes_is_no_loss() -> None:
    known = coarse(submission(1, *FULL), outcomes=ended("ab"))
    assert decide(facts(known), states(1, GONE, UP, UP), ANY) == Decision(RUNNING)
    assert [index for _, index in in_question(known)] == [1, 2]


def losing(trial: str, times: int) -> tuple[Submission, ...]:
    loss = {0: Loss(reason="TIMEOUT", blamed=(trial,))}
    return tuple(submission(number, (trial,), losses=loss) for number in range(1, times + 1))


def test_a_trial_that_the_cluster_ended_too_often_is_given_up() -> None:
    twice = coarse(*losing("a", 2), outcomes=ended("bcdef"))
    assert decide(facts(twice), {}, ANY).actions == (Submit(COARSE, (("a",),), 3),)
    thrice = coarse(*losing("a", 3), outcomes=ended("bcdef"))
    assert settled(thrice, 3)
    assert decide(facts(thrice), {}, ANY) == Decision(RUNNING, (Freeze(FINE),))
    forgiven = replace(thrice, retries=(Retry(phase="coarse", trials=frozenset("a"), submission=3),))
    assert decide(facts(forgiven), {}, ANY).actions == (Submit(COARSE, (("a",),), 4),)


def test_a_forgiven_failure_runs_again_though_its_old_task_is_listed() -> None:
    retries = (Retry(phase="coarse", trials=frozenset("a"), submission=1),)
    known = coarse(submission(1, *FULL), outcomes=ended("bcdef"), retries=retries)
    assert in_question(known) == []
    assert decide(facts(known), {}, ANY).actions == (Submit(COARSE, (("a",),), 2),)


ERROR = "Traceback\n  line 3\nValueError: no file /tmp/{}"


def test_the_same_error_in_most_trials_pauses_and_stops_the_rest() -> None:
    failures = {name: outcome(name, FAILED, ERROR.format(i)) for i, name in enumerate("abcdef")}
    known = coarse(submission(1, *FULL, ("g", "h")), outcomes=failures)
    known = replace(known, trials=specs("abcdefgh"))
    decision = decide(facts(known), states(1, GONE, GONE, GONE, UP), ANY)
    assert decision.state == PAUSED
    assert decision.actions == (Stop(COARSE, ("1_3",)),)
    assert decision.message.startswith(
        "6 of 6 trials of 'coarse' failed in the same way; here is one of them (a)"
    )
    assert "ValueError: no file /tmp/0" in decision.message
    assert decision.message.count("Traceback") == 1, "once"


@pytest.mark.parametrize(
    "outcomes",
    [
        ended("abcde", FAILED, "ValueError"),  # too few to tell
        {**ended("abcdef", FAILED, "ValueError"), **ended("ghi")},  # a third are well
        {**ended("ab", FAILED, "ValueError"), **ended("cd", FAILED, "KeyError")},  # of different kinds
        {**ended("abcdef", FAILED, "ValueError"), **ended("ghijkl", FAILED, "KeyError")},
        ended("abcdef", DIVERGED),  # a result
    ],
)
def test_what_does_not_pause(outcomes: dict[str, Outcome]) -> None:
    assert (
        decide(facts(coarse(submission(1, *FULL), outcomes=outcomes)), states(1, UP, UP, UP), ANY).state
        == RUNNING
    )


def test_a_stage_of_few_trials_that_all_fail_alike_pauses() -> None:
    known = replace(coarse(outcomes=ended("ab", FAILED, "ValueError")), trials=specs("ab"))
    assert decide(facts(known), {}, ANY).state == PAUSED


def test_cancelled_stops_what_runs_and_settles_what_is_unclear() -> None:
    unclear = submission(2, ("e",), receipt=False)
    known = coarse(submission(1, ("a", "b"), ("c", "d")), unclear)
    decision = decide(facts(known, cancelled=True), states(1, UP, GONE), ANY)
    assert decision == Decision(CANCELLED, (Reconcile(COARSE, unclear), Stop(COARSE, ("1_0",))), "cancelled")
    assert decide(facts(coarse(), cancelled=True), {}, ANY) == Decision(CANCELLED, (), "cancelled")


def test_the_end_is_compacted_and_done() -> None:
    assert decide(whole(compacted=10), {}, ANY) == Decision(DONE, (Compact(11),))
    assert decide(whole(compacted=11), {}, ANY) == Decision(DONE)


def test_results_of_earlier_stages_are_compacted_while_a_later_one_runs() -> None:
    fine = PhaseFacts(
        phase=FINE,
        waves=1,
        trials=specs("gh"),
        submissions=(submission(1, ("g", "h")),),
        outcomes=ended("g"),
    )
    known = facts(coarse(outcomes=ended(TRIALS)), fine, compacted=0)
    assert decide(known, {}, ANY) == Decision(RUNNING, (Compact(6),))
    assert decide(replace(known, compacted=6), {}, ANY) == Decision(RUNNING)
    # Not again and again where stages are short; the end is told at once.
    just_now = replace(ANY, now=1000.0)
    assert decide(replace(known, compacted_at=990.0), {}, just_now) == Decision(RUNNING)
    assert decide(replace(known, compacted_at=980.0), {}, just_now) == Decision(RUNNING, (Compact(6),))
    assert decide(replace(known, compacted_at=9000.0), {}, just_now) == Decision(RUNNING, (Compact(6),))
    assert decide(replace(whole(compacted=10), compacted_at=999.0), {}, just_now).actions == (Compact(11),)


def test_each_phase_freezes_when_the_one_before_has_settled() -> None:
    everything = whole()
    for index in range(1, 4):
        known = replace(
            everything,
            phases=(*everything.phases[:index], *(PhaseFacts(phase=p) for p in PLAN.phases[index:])),
        )
        assert decide(known, {}, ANY) == Decision(RUNNING, (Freeze(PLAN.phases[index]),))


@pytest.mark.parametrize(("acc", "state"), [(math.nan, COMPLETED), (math.inf, DIVERGED), (0.5, FAILED)])
def test_final_runs_without_any_finite_result_are_stuck(acc: float, state: str) -> None:
    everything = whole(acc=acc, state=state)
    before, fine = coarse(outcomes=ended(TRIALS, DIVERGED, acc=math.nan)), everything.phases[1]
    if state == FAILED:
        # Of different kinds, so that it is not paused before.
        fine = replace(fine, outcomes={"g": outcome("g", FAILED, "A"), "h": outcome("h", FAILED, "B")})
    known = facts(before, fine, compacted=0)
    decision = decide(known, {}, ANY)
    assert decision.state == STUCK
    assert decision.message == (
        "no trial of 'coarse' or 'fine' gave a finite acc, so there is no setting for the final runs"
    )
    assert decision.actions == (Compact(8),)


def test_final_runs_follow_a_last_stage_without_a_result_when_an_earlier_one_has_some() -> None:
    everything = whole()
    fine = replace(everything.phases[1], outcomes=ended("gh", DIVERGED, acc=math.nan))
    known = facts(everything.phases[0], fine, compacted=0)
    assert decide(known, {}, ANY) == Decision(RUNNING, (Freeze(PLAN.phases[2]),))


def test_errors_that_differ_in_a_number_are_the_same() -> None:
    texts = ("loss -18.25", "loss 3", "loss 1e-07", "loss -2.5E+10", "loss 0.5", "loss 12345")
    failures = {name: outcome(name, FAILED, text) for name, text in zip("abcdef", texts, strict=True)}
    decision = decide(facts(coarse(submission(1, *FULL), outcomes=failures)), states(1, UP, UP, UP), ANY)
    assert decision.state == PAUSED


@st.composite
def any_facts(draw: st.DrawFn) -> tuple[PhaseFacts, dict[TaskKey, TaskStatus], Limits]:
    """Submissions of one stage as they can come to be: each of trials that were free at its time."""
    outcomes: dict[str, Outcome] = {}
    made: list[Submission] = []
    tasks: dict[TaskKey, TaskStatus] = {}
    free = set(TRIALS)
    for number in range(1, draw(st.integers(0, 5)) + 1):
        chosen = sorted(draw(st.sets(st.sampled_from(sorted(free)))) if free else ())
        if not chosen:
            continue
        batches = [tuple(chosen[i : i + 2]) for i in range(0, len(chosen), 2)]
        fate = draw(st.sampled_from(("receipt", "receipt", "intent", "abandoned")))
        losses: dict[int, Loss] = {}
        for index, batch in enumerate(batches if fate == "receipt" else []):
            for trial in draw(st.sets(st.sampled_from(batch))):
                outcomes[trial] = outcome(trial, draw(st.sampled_from(STATES)), draw(st.sampled_from("xy")))
            if draw(st.booleans()):
                left = [trial for trial in batch if trial not in outcomes]
                losses[index] = Loss(reason="TIMEOUT", blamed=tuple(left[: draw(st.integers(0, 2))]))
            elif draw(st.booleans()):
                tasks["coarse", number, index] = draw(st.sampled_from((UP, WAITING, GONE)))
        free -= {trial for index, batch in enumerate(batches) for trial in batch if index not in losses}
        if fate == "abandoned":
            free |= set(chosen)
        free -= set(outcomes)
        made.append(
            submission(
                number, *batches, receipt=fate == "receipt", abandoned=fate == "abandoned", losses=losses
            )
        )
    limits = Limits(
        attempts=draw(st.integers(1, 3)), capacity=Capacity(tasks=draw(st.sampled_from((None, 0, 1, 2, 9))))
    )
    return coarse(*made, outcomes=outcomes), tasks, limits


@given(any_facts(), st.booleans())
def test_what_is_submitted_is_submitted_once(
    drawn: tuple[PhaseFacts, dict[TaskKey, TaskStatus], Limits], cancelled: bool
) -> None:
    known, tasks, limits = drawn
    decision = decide(facts(known, cancelled=cancelled), tasks, limits)
    submits = [action for action in decision.actions if isinstance(action, Submit)]
    submitted = [trial for action in submits for task in action.tasks for trial in task]
    assert len(set(submitted)) == len(submitted)
    assert set(submitted) <= set(TRIALS)
    assert not set(submitted) & set(known.outcomes)
    assert not set(submitted) & set(known.given_up(limits.attempts))
    assert len(submits) <= 1
    alive = 0
    for item in known.submissions:
        for index, batch in enumerate(item.intent.tasks):
            if item.abandoned or index in item.losses:
                continue
            assert not set(submitted) & (set(batch) - set(known.outcomes)), "it may still be on the cluster"
            status = tasks.get(("coarse", item.number, index), WAITING)
            alive += (
                item.receipt is not None and status.state in ALIVE and not set(batch) <= set(known.outcomes)
            )
    for action in submits:
        assert all(1 <= len(task) <= COARSE.batch for task in action.tasks)
        assert limits.capacity.tasks is None or alive + len(action.tasks) <= limits.capacity.tasks
    if cancelled or decision.state == PAUSED:
        assert not submits


@given(any_facts())
def test_a_sweep_is_never_left_waiting_for_nothing(
    drawn: tuple[PhaseFacts, dict[TaskKey, TaskStatus], Limits],
) -> None:
    known, tasks, limits = drawn
    decision = decide(facts(known), tasks, replace(limits, capacity=Capacity()))
    waits = any(
        tasks.get(("coarse", item.number, index), WAITING).state in ALIVE
        for item, index in in_question(known)
    )
    assert decision.actions or decision.state != RUNNING or waits
    # The same facts give the same decision.
    assert (
        decide(facts(known), dict(reversed(list(tasks.items()))), replace(limits, capacity=Capacity()))
        == decision
    )
