"""What every cluster does, shown on the simulated one, on this machine and on the real SLURM alike."""

from __future__ import annotations

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from commands import write_user_sweep
from orchestrator.cluster.interface import (
    ACTIVE,
    ALIVE,
    BY_HAND,
    COMPLETED,
    ENDED,
    PENDING,
    UNTOLD,
    Cluster,
    Request,
)
from orchestrator.cluster.local import LocalCluster
from orchestrator.cluster.simulation.cluster import SimulatedCluster
from orchestrator.cluster.simulation.machine import Machine, Site
from orchestrator.cluster.simulation.steps import Pause, as_steps
from orchestrator.cluster.slurm import SlurmCluster
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.errors import ClusterUnavailable, SubmissionRefused, UserError
from orchestrator.planning.plan import Phase
from orchestrator.schema import SweepConfig
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.submissions import (
    Intent,
    Receipt,
    Refusal,
    is_abandoned,
    write_abandoned,
    write_intent,
)
from orchestrator.worker.assigned import Batch, RecordWriter
from orchestrator.worker.batch import run_batch
from orchestrator.worker.task import Task, tasks_of

SIMULATED, LOCAL, SLURM = "simulated", "local", "slurm"

# A trial ends when there is a file beside the sweep, so that a test says how long it takes.
TRAIN = """
import time
from pathlib import Path

def train(config, trial):
    gate, until = Path(config.gate), time.monotonic() + 120
    while not gate.exists() and time.monotonic() < until:
        time.sleep(0.05)
    return {"score": config.lr}
"""
SWEEP = """
name: contract
metric: {name: score, mode: max}
space: {lr: "tag(log, interval(1e-5, 1.0))"}
stages: {only: {trials: 4}}
final: {top: 0}
jobs:
  _target_: my_train.train
  config: {lr: 0.1, gate: %s}
slurm: {executor: %s, cpus_per_task: 1, tasks_at_once: 4, timeout_min: 5}
"""


@dataclass(kw_only=True)
class Side:
    """One of the three clusters, with a sweep to run on it."""

    name: str
    cluster: Cluster
    directory: SweepDirectory
    phase: Phase
    config: SweepConfig
    trials: tuple[str, ...]
    gate: Path
    machine: Machine | None = None
    sent: list[Receipt] = field(default_factory=list)
    number: int = 0

    def request(self, tasks: Sequence[Sequence[str]] | None = None, **resources: object) -> Request:
        """Write an intent (default: two tasks of two trials each) and return the request for it."""
        self.number += 1
        chosen = tuple(map(tuple, tasks)) if tasks else (self.trials[:2], self.trials[2:])
        token = f"contract-{self.directory.path.parent.parent.name}-{self.number:04d}"
        intent = Intent(
            number=self.number, token=token, tasks=chosen, created=time.time(), host=socket.gethostname()
        )
        assert write_intent(self.directory.phase(self.phase.kind, self.phase.name).submissions, intent)
        return Request(
            intent=intent,
            tasks=tasks_of(self.directory.path, self.phase.kind, self.phase.name, intent),
            resources=replace(self.config.slurm, **resources),  # type: ignore[arg-type]
            logs=self.directory.logs / token,
        )

    def submit(self, request: Request) -> Receipt:
        receipt = self.cluster.submit(request)
        self.sent.append(receipt)
        return receipt

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Let the cluster's time pass until something is so."""
        deadline = time.monotonic() + 120
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen"
            if self.machine is not None:
                self.machine.run_until(self.machine.now + 1)
            else:
                time.sleep(0.1)

    def states(self, jobs: Sequence[str]) -> list[str]:
        told = self.cluster.poll(jobs)
        return [told[job].state for job in jobs]

    def wait_until_at_work(self, tasks: int) -> None:
        """Wait until so many tasks have begun a trial; before that a signal may go by one on this machine."""
        folder = self.directory.phase(self.phase.kind, self.phase.name).records

        def begun() -> bool:
            files = records.read_directory(folder)
            return sum(any(line["kind"] == "start" for line in file.lines) for file in files) >= tasks

        self.wait(begun, "the begin of its trials")

    def outcomes(self) -> dict[str, tuple[int, int]]:
        """Return the submission and task in which each trial has come to an end."""
        folder = self.directory.phase(self.phase.kind, self.phase.name).records
        return {
            outcome.trial: (int(file.header["submission"]), int(file.header["task"]))
            for file in records.read_directory(folder)
            for outcome in records.outcomes(file)
        }


@pytest.fixture(params=[SIMULATED, LOCAL, pytest.param(SLURM, marks=pytest.mark.slurm)])
def side(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Side]:
    if request.param == SLURM:
        request.getfixturevalue("slurm")
    executor = LOCAL if request.param == LOCAL else SLURM
    gate = tmp_path / "gate"
    file = write_user_sweep(tmp_path, train=TRAIN, sweep=SWEEP % (gate, executor))
    planned = work_out(file, [f"dir={tmp_path / 'sweeps' / 'contract'}"])
    freeze_plan(planned)
    (phase,) = planned.plan.phases
    freeze(planned.directory, planned.plan, planned.config, phase, 0)
    machine = Machine(site=Site(gpus=4, array=1000), work=lambda task, job: waiting(task, gate))
    clusters: dict[str, Callable[[], Cluster]] = {
        SIMULATED: lambda: SimulatedCluster(machine, socket.gethostname(), time.time),
        LOCAL: lambda: LocalCluster(planned.config.slurm),
        SLURM: lambda: SlurmCluster(planned.config.slurm),
    }
    side = Side(
        name=request.param,
        cluster=clusters[request.param](),
        directory=planned.directory,
        phase=phase,
        config=planned.config,
        trials=tuple(f"only-{number:05d}" for number in range(4)),
        gate=gate,
        machine=machine if request.param == SIMULATED else None,
    )
    yield side
    # Whatever still runs ends by itself, or is ended.
    gate.touch()
    for receipt in side.sent:
        side.cluster.cancel(receipt.jobs)
    if machine.alive():
        machine.run_until(1e6)


def waiting(task: Task, gate: Path) -> Iterator[float]:
    """Do what `TRAIN` does, on the simulated cluster."""

    def body(pause: Pause) -> None:
        def run(batch: Batch, writer: RecordWriter) -> dict[str, int]:
            for spec in batch.todo:
                writer.write({"kind": "start", "trial": spec.trial_id})
                while not gate.exists():
                    pause(1)
                line = {"kind": "outcome", "trial": spec.trial_id, "state": "completed"}
                writer.write({**line, "metrics": {"score": 1.0}, "seconds": 1.0, "time": 1.0})
            return {}

        run_batch(SweepDirectory(Path(task.sweep)), task.phase, task.submission, task.index, run)

    return as_steps(body)


def test_each_task_has_a_job_in_the_order_of_the_tasks_and_runs_to_its_end(side: Side) -> None:
    receipt = side.submit(side.request())
    assert len(set(receipt.jobs)) == 2
    assert set(side.states(receipt.jobs)) <= set(ALIVE)
    side.wait(lambda: side.states(receipt.jobs) == [ACTIVE, ACTIVE], "its tasks' begin")
    side.gate.touch()
    side.wait(lambda: side.states(receipt.jobs) == [ENDED, ENDED], "its end")
    assert side.outcomes() == {trial: (1, place // 2) for place, trial in enumerate(side.trials)}
    causes = {status.cause for status in side.cluster.poll(receipt.jobs).values()}
    assert causes <= {COMPLETED, UNTOLD}, "accounting may be late, and this machine keeps none"
    if side.name == SIMULATED:
        assert causes == {COMPLETED}


def test_a_job_ends_and_the_other_of_its_array_goes_on(side: Side) -> None:
    receipt = side.submit(side.request())
    side.wait_until_at_work(2)
    side.cluster.cancel([receipt.jobs[0]])
    side.wait(lambda: side.states(receipt.jobs)[0] == ENDED, "the end of one task")
    assert side.states(receipt.jobs)[1] == ACTIVE
    if side.name != LOCAL:
        side.wait(
            lambda: side.cluster.poll(receipt.jobs)[receipt.jobs[0]].cause == BY_HAND, "what became of it"
        )
    side.gate.touch()
    side.wait(lambda: side.states(receipt.jobs) == [ENDED, ENDED], "the end of the other")
    # Job and task have the same place: the one that was cancelled left nothing.
    assert set(side.outcomes()) == set(side.trials[2:])


def test_a_single_task_is_a_job_too(side: Side) -> None:
    side.gate.touch()
    receipt = side.submit(side.request([side.trials]))
    assert len(receipt.jobs) == 1
    side.wait(lambda: side.states(receipt.jobs) == [ENDED], "its end")
    assert set(side.outcomes()) == set(side.trials)


def test_a_job_that_the_cluster_does_not_know_has_ended(side: Side) -> None:
    unknown = {SIMULATED: "77_1", LOCAL: f"1@1.00@{socket.gethostname()}", SLURM: "99999999_1"}[side.name]
    (status,) = side.cluster.poll([unknown]).values()
    assert (status.state, status.cause) == (ENDED, UNTOLD)
    side.cluster.cancel([unknown])
    assert side.cluster.poll([]) == {}


def test_what_was_sent_is_found_by_its_token_as_long_as_it_lives(side: Side) -> None:
    request, other = side.request(), side.request()
    assert side.cluster.find(request.intent, request.logs) == ()
    receipt = side.submit(request)
    side.wait(lambda: side.states(receipt.jobs) == [ACTIVE, ACTIVE], "its tasks' begin")
    side.wait_until_at_work(2)
    found = side.cluster.find(request.intent, request.logs)
    assert found
    if side.name != LOCAL:
        assert sorted(found) == sorted(receipt.jobs)
    assert side.cluster.find(other.intent, other.logs) == (), "it is another one's"
    side.cluster.cancel(found)
    side.wait(lambda: side.cluster.find(request.intent, request.logs) == (), "its end")
    # A process that is about to be gone has lost its environment, and the token in it, already.
    side.wait(lambda: side.states(receipt.jobs) == [ENDED, ENDED], "the end of all that it started")


def test_what_is_whole_on_the_cluster_is_adopted_as_it_was_submitted(side: Side) -> None:
    request = side.request()
    assert side.cluster.adopt(request.intent, request.logs) is None
    receipt = side.submit(request)
    adopted = side.cluster.adopt(request.intent, request.logs)
    if side.name == LOCAL:
        # Whoever lived to submit all of it has written the receipt.
        assert adopted is None
    else:
        assert adopted is not None and adopted.jobs == receipt.jobs
        lose_payload(side, request, receipt.jobs[1])
        assert side.cluster.adopt(request.intent, request.logs) is None


def lose_payload(side: Side, request: Request, job: str) -> None:
    if side.machine is not None:
        side.machine.jobs[job].payload = None
        return
    (payload,) = (side.directory.path.parent).glob(f"**/{job}_submitted.pkl")
    payload.unlink()


def test_cancelling_ends_its_own_jobs_once_and_for_all(side: Side) -> None:
    mine, other = side.submit(side.request()), side.submit(side.request())
    side.wait_until_at_work(4)
    assert side.states([*mine.jobs, *other.jobs]) == [ACTIVE] * 4
    side.cluster.cancel(mine.jobs)
    side.wait(lambda: side.states(mine.jobs) == [ENDED, ENDED], "the end of one submission")
    side.cluster.cancel(mine.jobs)
    side.cluster.cancel([])
    assert side.states(mine.jobs) == [ENDED, ENDED]
    assert side.states(other.jobs) == [ACTIVE, ACTIVE]


def test_a_job_can_be_cancelled_before_it_begins(side: Side) -> None:
    if side.name == LOCAL:
        pytest.skip("there is no queue on this machine")
    receipt = side.submit(side.request(tasks_at_once=1))
    side.wait(lambda: sorted(side.states(receipt.jobs)) == [ACTIVE, PENDING], "the begin of one alone")
    waits = receipt.jobs[side.states(receipt.jobs).index(PENDING)]
    side.cluster.cancel([waits])
    side.wait(lambda: sorted(side.states(receipt.jobs)) == [ACTIVE, ENDED], "the end of the other")


def test_what_is_refused_leaves_nothing(side: Side) -> None:
    if side.name == LOCAL:
        request = side.request()
        side.directory.config.rename(side.directory.config.with_suffix(".away"))
    else:
        # One task more than an array may have.
        request = side.request([side.trials] * (1 + (side.cluster.capacity().array or 0)))
    with pytest.raises(SubmissionRefused) as refused:
        side.submit(request)
    assert str(refused.value)
    assert refused.value.later == (side.name != LOCAL), "fewer of them would be taken"
    assert side.cluster.find(request.intent, request.logs) == ()
    assert side.cluster.adopt(request.intent, request.logs) is None


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
@pytest.mark.parametrize("side", [SLURM], indirect=True)
def test_what_can_never_be_taken_is_not_for_later(side: Side) -> None:
    with pytest.raises(SubmissionRefused) as refused:
        side.submit(side.request(partition="nowhere"))
    assert not refused.value.later


def test_a_cluster_that_cannot_be_asked_says_nothing(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    receipt = side.submit(side.request())
    request = side.request()
    cluster, problem = out_of_reach(side, receipt, monkeypatch)
    with pytest.raises(problem):
        cluster.poll(receipt.jobs if side.name != LOCAL else [f"{receipt.jobs[0]}x"])
    if side.name != LOCAL:
        with pytest.raises(problem):
            cluster.find(request.intent, request.logs)
    monkeypatch.undo()
    assert set(side.states(receipt.jobs)) <= set(ALIVE), "nothing became of it"


def out_of_reach(
    side: Side, receipt: Receipt, monkeypatch: pytest.MonkeyPatch
) -> tuple[Cluster, type[Exception]]:
    """Return the side's cluster as it is when it can't be asked, and what it raises then."""
    if side.machine is not None:

        def down(step: str) -> None:
            raise ClusterUnavailable(step)

        return SimulatedCluster(side.machine, at=down), ClusterUnavailable
    if side.name == SLURM:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True)
        (conf,) = re.findall(r"^SLURM_CONF\s*=\s*(.+)$", shown.stdout, re.MULTILINE)
        nowhere = side.directory.path / "slurm.conf"
        # Nobody answers at that port. What is said last holds.
        nowhere.write_text(Path(conf.strip()).read_text() + "\nSlurmctldPort=1\nMessageTimeout=2\n")
        monkeypatch.setenv("SLURM_CONF", str(nowhere))
        return side.cluster, ClusterUnavailable
    # What runs on another machine can't be seen from here.
    return side.cluster, UserError


def test_a_task_of_an_abandoned_submission_runs_nothing(side: Side) -> None:
    side.gate.touch()
    request = side.request()
    folder = side.directory.phase(side.phase.kind, side.phase.name).submissions
    write_abandoned(folder, request.intent.number, Refusal("interrupted"))
    assert is_abandoned(folder, request.intent.number)
    receipt = side.submit(request)
    side.wait(lambda: side.states(receipt.jobs) == [ENDED, ENDED], "its end")
    assert side.outcomes() == {}


def test_what_the_cluster_takes(side: Side) -> None:
    capacity = side.cluster.capacity()
    assert capacity.tasks is None or capacity.tasks > 0
    if side.name == LOCAL:
        assert capacity.tasks == 4
    elif side.name == SIMULATED:
        assert capacity.array == 1000
    else:
        shown = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, check=True)
        assert f"= {capacity.array}\n" in shown.stdout
