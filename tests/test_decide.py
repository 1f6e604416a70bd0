"""Deciding, on facts made by hand: no file and no cluster."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.cluster.interface import ACTIVE, ALIVE, ENDED, PENDING, Capacity, TaskStatus
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
from orchestrator.planning.plan import Cost, Phase, Plan, Scale
from orchestrator.sweep.directory import ENSEMBLE, FINAL, STAGE, TrialSpec
from orchestrator.sweep.facts import Facts, PhaseFacts, Retry
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, STATES, Outcome
from orchestrator.sweep.submissions import Intent, Loss, Receipt, Refusal, Submission

COARSE = Phase(kind=STAGE, name="coarse", trials=6, scale=Scale(), batch=2, tasks=3)
FINE = Phase(kind=STAGE, name="fine", trials=2, scale=Scale(), batch=2)
LAST = Phase(kind=FINAL, name=FINAL, trials=2, survivors=1, scale=Scale())
TOGETHER = Phase(kind=ENSEMBLE, name=ENSEMBLE, trials=1, scale=Scale())
PLAN = Plan(
    uid="ab", name="tiny", metric="acc", mode="max", created=0.0, folder="/x", unit="core",
    phases=(COARSE, FINE, LAST, TOGETHER), total=Cost(), full_scale_share=None,
)  # fmt: skip
TRIALS = ("a", "b", "c", "d", "e", "f")
ANY = Limits(attempts=3)


def specs(names: Iterable[str]) -> tuple[TrialSpec, ...]:
    return tuple(TrialSpec(trial_id=name, setting_id=name, params={}, seed=0) for name in names)


def outcome(trial: str, state: str = COMPLETED, error: str = "", acc: float = 0.5) -> Outcome:
    return Outcome(trial=trial, state=state, metrics={"acc": acc}, seconds=1.0, error=error, submission=1)


def ended(
    names: Iterable[str], state: str = COMPLETED, error: str = "", acc: float = 0.5
) -> dict[str, Outcome]:
    return {name: outcome(name, state, error, acc) for name in names}


def submission(
    number: int,
    *tasks: tuple[str, ...],
    receipt: bool = True,
    abandoned: bool = False,
    losses: Mapping[int, Loss] | None = None,
) -> Submission:
    return Submission(
        intent=Intent(number=number, token=f"t{number}", tasks=tasks, created=0.0, host="h"),
        receipt=Receipt(jobs=tuple(f"{number}_{i}" for i in range(len(tasks)))) if receipt else None,
        refusal=Refusal("nothing of it is left") if abandoned else None,
        losses=losses or {},
    )


def coarse(
    *submissions: Submission, outcomes: Mapping[str, Outcome] | None = None, **more: object
) -> PhaseFacts:
    known = PhaseFacts(
        phase=COARSE, waves=1, trials=specs(TRIALS), outcomes=outcomes or {}, submissions=submissions
    )
    return replace(known, **more)  # type: ignore[arg-type]


def facts(*phases: PhaseFacts, checked: bool = True, cancelled: bool = False, compacted: int = 99) -> Facts:
    rest = tuple(PhaseFacts(phase=phase) for phase in PLAN.phases[len(phases) :])
    return Facts(
        plan=PLAN, phases=(*phases, *rest), checked=checked, cancelled=cancelled, compacted=compacted
    )


def states(number: int, *of: TaskStatus) -> dict[TaskKey, TaskStatus]:
    return {("coarse", number, index): status for index, status in enumerate(of)}


UP, WAITING, GONE = TaskStatus(ACTIVE), TaskStatus(PENDING), TaskStatus(ENDED, "NODE_FAIL")
FULL = (("a", "b"), ("c", "d"), ("e", "f"))


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


def whole(*, compacted: int = 99, acc: float = 0.5, state: str = COMPLETED) -> Facts:
    fine = PhaseFacts(phase=FINE, waves=1, trials=specs("gh"), outcomes=ended("gh", state, acc=acc))
    last = PhaseFacts(phase=LAST, waves=1, trials=specs("ij"), outcomes=ended("ij"))
    together = PhaseFacts(phase=TOGETHER, waves=1, trials=specs("k"), outcomes=ended("k"))
    return facts(coarse(outcomes=ended(TRIALS)), fine, last, together, compacted=compacted)


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
    fine = everything.phases[1]
    if state == FAILED:
        # Of different kinds, so that it is not paused before.
        fine = replace(fine, outcomes={"g": outcome("g", FAILED, "A"), "h": outcome("h", FAILED, "B")})
    known = facts(everything.phases[0], fine, compacted=0)
    decision = decide(known, {}, ANY)
    assert decision.state == STUCK
    assert decision.message == (
        "no trial of 'fine' gave a finite acc, so there is no setting for the final runs"
    )
    assert decision.actions == (Compact(8),)


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
    assert decide(known, {("fine", 1, 0): UP}, ANY).state == RUNNING
    poor = replace(poor, outcomes=ended("0123456789", DIVERGED, acc=math.nan))
    assert decide(replace(known, phases=(known.phases[0], poor, *rest)), {}, ANY).state == STUCK


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
