"""The simulated cluster: what it alone can be made to do."""

from __future__ import annotations

import pytest

from orchestrator.cluster.interface import ACTIVE, COMPLETED, ENDED, PENDING, UNTOLD
from orchestrator.cluster.simulation.cluster import SimulatedCluster
from orchestrator.cluster.simulation.machine import Job, Machine, Site
from orchestrator.errors import SubmissionRefused
from orchestrator.worker.task import Task


def job_on(machine: Machine, token: str = "t", **options: object) -> Job:
    (job,) = machine.accept(token, 1, throttle=1, **options)  # type: ignore[arg-type]
    return machine.jobs[job]


def machine_of(seconds: float = 10.0, **site: object) -> Machine:
    return Machine(site=Site(**site), work=lambda task, job: iter([seconds]))  # type: ignore[arg-type]


TASK = Task("nowhere", "stage", "only", 1, 0)


def test_simulated_tasks_without_their_payload_fail() -> None:
    machine = machine_of(payload_seconds=60)
    job = job_on(machine)
    machine.run_until(59)
    assert job.state == ACTIVE
    machine.run_until(61)
    assert (job.state, job.cause) == (ENDED, "failed")


def test_simulated_tasks_wait_for_gpus_and_their_arrays_turn() -> None:
    machine = machine_of(gpus=3)
    ids = machine.accept("a", 4, throttle=2) + machine.accept("b", 2, throttle=2)
    for job in ids:
        machine.deliver(job, TASK)
    machine.run_until(1)
    assert [machine.jobs[job].state for job in ids] == [ACTIVE, ACTIVE, PENDING, PENDING, ACTIVE, PENDING]
    machine.run_until(21)
    assert {machine.jobs[job].state for job in ids} == {ENDED}


def test_simulated_accounting_is_late_or_missing() -> None:
    for late, told in ((None, UNTOLD), (50.0, UNTOLD), (5.0, COMPLETED)):
        machine = machine_of(remembered_seconds=5, accounting_seconds=late)
        job = job_on(machine)
        machine.deliver(job.id, TASK)
        machine.run_until(30)
        (status,) = SimulatedCluster(machine).poll([job.id]).values()
        assert (status.state, status.cause) == (ENDED, told)


def test_a_simulated_preemption_is_the_same_job_again() -> None:
    machine = machine_of()
    job = job_on(machine)
    machine.deliver(job.id, TASK)
    machine.run_until(5)
    machine.requeue(job, wait=10)
    assert job.state == PENDING
    machine.run_until(16)
    assert (job.state, job.legs) == (ACTIVE, 2)
    machine.run_until(26)
    assert (job.state, job.cause) == (ENDED, COMPLETED)


def test_a_simulated_time_limit_ends_a_task_or_puts_it_back() -> None:
    for legs, expected in ((True, PENDING), (False, ENDED)):
        machine = machine_of(seconds=100, limit_seconds=60, legs=legs, queue_seconds=1000)
        job = job_on(machine)
        machine.deliver(job.id, TASK)
        while job.state == PENDING:
            machine.run_to_next()
        machine.run_until(machine.now + 60)
        assert job.state == expected


def test_a_simulated_queue_is_full() -> None:
    machine = machine_of(tasks=2)
    machine.accept("a", 2, throttle=2)
    with pytest.raises(SubmissionRefused) as refused:
        machine.accept("b", 1, throttle=1)
    assert refused.value.later


def test_a_submission_that_arrives_late_is_seen_late() -> None:
    machine = machine_of()
    machine.accept("t", 2, throttle=2, delay=30)
    assert machine.listed("t") == {}
    machine.run_until(31)
    assert len(machine.listed("t")) == 2


def test_the_same_seed_gives_the_same_waits() -> None:
    def begins(seed: int) -> list[float]:
        site = Site(gpus=2, queue_seconds=30)
        machine = Machine(site=site, work=lambda task, job: iter([5.0]), seed=seed)
        for job in machine.accept("t", 6, throttle=6):
            machine.deliver(job, TASK)
        while machine.run_to_next():
            pass
        return [job.ended for job in machine.jobs.values()]

    assert begins(1) == begins(1) != begins(2)
