"""What is done about a full cluster, about lack of memory, and about tasks that wait or end in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_facts import PLAN, outcome

from orchestrator.cluster.interface import (
    ACTIVE,
    BY_HAND,
    FAILED,
    NODE,
    PENDING,
    PREEMPTED,
    TIME_LIMIT,
    Capacity,
    TaskStatus,
)
from orchestrator.control.act import _blamed
from orchestrator.control.decide import PAUSED, RUNNING, Limits, Submit, TaskKey, decide
from orchestrator.control.memory import with_larger_requests
from orchestrator.control.room import MOST_WAIT_SECONDS, WAIT_SECONDS, learned
from orchestrator.schema import SlurmConfig
from orchestrator.sweep import records
from orchestrator.sweep.directory import TrialSpec
from orchestrator.sweep.facts import Facts, PhaseFacts, Retry
from orchestrator.sweep.records import COMPLETED, Outcome
from orchestrator.sweep.submissions import Intent, Loss, Receipt, Refusal, Submission

STAGE_OF_TEN = replace(PLAN.phases[0], trials=10, batch=1)
TEN = tuple("abcdefghij")
LARGER = SlurmConfig(on_out_of_memory={"mem_gb": 64.0})


def sent(
    number: int, *trials: str, taken: bool = True, refusal: Refusal | None = None,
    losses: Mapping[int, Loss] | None = None, larger: bool = False,
) -> Submission:  # fmt: skip
    """A submission with one trial in each task, sent at the second of its number."""
    tasks = tuple((trial,) for trial in trials)
    return Submission(
        intent=Intent(
            number=number, token=f"t{number}", tasks=tasks, created=float(number), host="h", larger=larger
        ),
        receipt=Receipt(jobs=tuple(f"{number}_{i}" for i in range(len(tasks)))) if taken else None,
        refusal=refusal,
        losses=losses or {},
    )


def full(number: int, *trials: str, time: float = 100.0) -> Submission:
    return sent(number, *trials, taken=False, refusal=Refusal("QOSMaxSubmit", time, refused=True, full=True))


def stage(*submissions: Submission, outcomes: Mapping[str, Outcome] | None = None) -> PhaseFacts:
    trials = tuple(TrialSpec(trial_id=name, setting_id=name, params={}, seed=0) for name in TEN)
    return PhaseFacts(
        phase=STAGE_OF_TEN, waves=1, trials=trials, outcomes=outcomes or {}, submissions=submissions
    )


def facts(known: PhaseFacts, resources: SlurmConfig | None = None) -> Facts:
    rest = tuple(PhaseFacts(phase=phase) for phase in PLAN.phases[1:])
    found = Facts(plan=PLAN, phases=(known, *rest), checked=True, compacted=99)
    return with_larger_requests(found, resources or SlurmConfig())


def submits(
    known: PhaseFacts, tasks: Mapping[TaskKey, TaskStatus] | None = None, *, capacity: Capacity | None = None,
    now: float = 1000.0, resources: SlurmConfig | None = None,
) -> list[Submit]:  # fmt: skip
    limits = Limits(attempts=3, capacity=capacity or Capacity(), now=now)
    actions = decide(facts(known, resources), tasks or {}, limits).actions
    return [action for action in actions if isinstance(action, Submit)]


def sizes(found: Sequence[Submit]) -> list[int]:
    return [len(action.tasks) for action in found]


def test_a_wave_is_cut_into_arrays_that_the_cluster_takes() -> None:
    found = submits(stage(), capacity=Capacity(array=4))
    assert sizes(found) == [4, 4, 2]
    assert [action.number for action in found] == [1, 2, 3]
    assert [trial for action in found for task in action.tasks for trial in task] == list(TEN)


def test_no_more_is_sent_than_the_queue_holds() -> None:
    running = sent(1, "a", "b")
    up = {("coarse", 1, index): TaskStatus(ACTIVE) for index in range(2)}
    assert sizes(submits(stage(running), up, capacity=Capacity(tasks=5, array=2))) == [2, 1]


def test_a_refused_wave_is_halved_until_it_is_taken_and_doubled_from_then_on() -> None:
    assert sizes(submits(stage(full(1, *TEN)))) == [5]
    assert sizes(submits(stage(full(1, *TEN), full(2, *"abcde")))) == [2]
    taken = (full(1, *TEN), full(2, *"abcde"), sent(3, "a", "b"))
    up = {("coarse", 3, index): TaskStatus(ACTIVE) for index in range(2)}
    assert sizes(submits(stage(*taken), up)) == [4], "one wave of twice the size, and what comes of it"
    assert submits(stage(*taken), up)[0].number == 4


def test_where_not_one_task_has_room_the_next_try_waits_longer_each_time() -> None:
    once = [full(1, "a", time=100.0)]
    assert learned(once, 100.0 + WAIT_SECONDS - 1) == 0
    assert learned(once, 100.0 + WAIT_SECONDS) == 1
    twice = [*once, full(2, "a", time=200.0)]
    assert learned(twice, 200.0 + WAIT_SECONDS) == 0
    assert learned(twice, 200.0 + 2 * WAIT_SECONDS) == 1
    assert learned([*twice, sent(3, "a")], 201.0) == 2
    # A refusal from the future, by a clock that was wrong, holds nothing up for long.
    assert learned([full(1, "a", time=1e12)], 100.0) == 1


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 50), st.floats(0, 5000)), max_size=12),
    st.floats(0, 9000),
)
def test_a_full_cluster_is_always_asked_again_in_the_end(
    history: list[tuple[bool, int, float]], now: float
) -> None:
    submissions = [
        full(number, *map(str, range(size)), time=time) if refused else sent(number, *map(str, range(size)))
        for number, (refused, size, time) in enumerate(history, start=1)
    ]
    most = learned(submissions, now)
    assert most is None or most >= 0
    assert learned(submissions, max([now, *(time for *_, time in history)]) + MOST_WAIT_SECONDS) != 0


MEMORY_LOSS = Loss(reason="OUT_OF_MEMORY", blamed=("a",), cause="memory")


def out_of_memory(trial: str, submission: int) -> Outcome:
    failed = outcome(trial, records.FAILED, "CUDA out of memory")
    return replace(failed, cause=records.MEMORY, submission=submission)


def test_a_trial_out_of_memory_runs_again_once_with_the_larger_request() -> None:
    done = {name: outcome(name, COMPLETED) for name in TEN[1:]}
    first = sent(1, *TEN)
    short = stage(first, outcomes={**done, "a": out_of_memory("a", 1)})
    assert submits(short) == [], "nothing larger is declared, so the failure is the result"
    (again,) = submits(short, resources=LARGER)
    assert (again.tasks, again.larger) == ((("a",),), True)
    second = sent(2, "a", larger=True)
    up = {("coarse", 2, 0): TaskStatus(ACTIVE)}
    assert submits(stage(first, second, outcomes=short.outcomes), up, resources=LARGER) == []
    failed = stage(first, second, outcomes={**done, "a": out_of_memory("a", 2)})
    assert submits(failed, resources=LARGER) == []
    assert facts(failed, LARGER).phases[0].outcomes["a"].state == records.FAILED


def test_a_task_out_of_memory_is_not_sent_again_as_it_was() -> None:
    done = {name: outcome(name, COMPLETED) for name in TEN[1:]}
    lost = stage(sent(1, *TEN, losses={0: MEMORY_LOSS}), outcomes=done)
    assert submits(lost) == []
    assert "slurm.on_out_of_memory" in facts(lost).phases[0].given_up(3)["a"]
    (again,) = submits(lost, resources=LARGER)
    assert again.larger
    both = (sent(1, *TEN, losses={0: MEMORY_LOSS}), sent(2, "a", larger=True, losses={0: MEMORY_LOSS}))
    assert submits(stage(*both, outcomes=done), resources=LARGER) == []
    # The larger one may be lost for other reasons, as often as any.
    node = Loss(reason="NODE_FAIL", blamed=("a",), cause=NODE)
    lost_again = [sent(n, "a", larger=True, losses={0: node}) for n in (2, 3, 4)]
    (third,) = submits(stage(both[0], *lost_again[:2], outcomes=done), resources=LARGER)
    assert third.larger
    assert submits(stage(both[0], *lost_again, outcomes=done), resources=LARGER) == []


@pytest.mark.parametrize(
    ("cause", "started", "blamed"),
    [
        (NODE, "ab", "ab"), (NODE, "", ""), (PREEMPTED, "ab", ""), (PREEMPTED, "", ""),
        (TIME_LIMIT, "ab", ""), (TIME_LIMIT, "", "abc"), (FAILED, "a", "a"), (BY_HAND, "a", "a"),
        ("", "", "abc"),
    ],
)  # fmt: skip
def test_what_counts_against_a_trial_depends_on_why_its_task_ended(
    cause: str, started: str, blamed: str
) -> None:
    assert _blamed(tuple("abc"), frozenset(started), cause) == tuple(blamed)


def never_began(cause: str = FAILED) -> PhaseFacts:
    losses = {
        index: Loss(reason=f"{cause}: no module named submitit", blamed=(trial,), cause=cause)
        for index, trial in enumerate(TEN[:3])
    }
    return stage(sent(1, *TEN, losses=losses))


def test_tasks_that_end_before_they_begin_pause_the_sweep_until_a_person_asks_for_more() -> None:
    decision = decide(facts(never_began()), {}, Limits(attempts=3))
    assert decision.state == PAUSED
    assert "no module named submitit" in decision.message
    assert decide(facts(never_began(NODE)), {}, Limits(attempts=3)).state == RUNNING
    begun = replace(never_began(), started={(1, 5): frozenset("f")})
    assert decide(facts(begun), {}, Limits(attempts=3)).state == RUNNING
    wish = Retry(phase="coarse", trials=frozenset("abc"), submission=1)
    assert decide(facts(replace(never_began(), retries=(wish,))), {}, Limits(attempts=3)).state == RUNNING
    earlier = replace(wish, submission=0)
    assert decide(facts(replace(never_began(), retries=(earlier,))), {}, Limits(attempts=3)).state == PAUSED


def test_tasks_that_wait_in_vain_are_told() -> None:
    statuses = {
        ("coarse", 1, 0): TaskStatus(PENDING, "JobHeldUser", stuck=True),
        ("coarse", 1, 1): TaskStatus(PENDING, "Priority"),
        ("coarse", 1, 2): TaskStatus(PENDING, "Priority"),
        ("coarse", 1, 3): TaskStatus(ACTIVE),
    }
    decision = decide(facts(stage(sent(1, *TEN))), statuses, Limits(attempts=3))
    assert (decision.state, decision.waiting) == (RUNNING, {"Priority": 2, "JobHeldUser": 1})
    assert "1 task waits for a reason that does not clear by itself: JobHeldUser" in decision.message


def test_a_full_cluster_is_told() -> None:
    decision = decide(facts(stage(full(1, "a", time=1000.0))), {}, Limits(attempts=3, now=1000.0))
    assert "has no room now: QOSMaxSubmit" in decision.message
    assert decide(facts(stage(full(1, "a"), sent(2, *TEN))), {}, Limits(attempts=3)).message == ""
