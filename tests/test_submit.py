"""The chain of jobs that drives a sweep, with a SLURM that is only pretended."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from commands import SWEEP, orchestrate, write_user_sweep
from orchestrator.cluster.driver import DriverJob, Wake
from orchestrator.control import drive, submit
from orchestrator.control.decide import DONE, RUNNING, Decision, Freeze
from orchestrator.control.opened import Sweep, open_sweep
from orchestrator.control.submit import MOST_SAFETY_SECONDS, SAFETY_SECONDS, handed_over
from orchestrator.errors import ClusterUnavailable, SubmissionRefused, UserError
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.submissions import Intent, Receipt, write_intent, write_receipt


class Queue:
    """The drivers that SLURM holds; `own` is the job that this process runs in."""

    def __init__(self) -> None:
        self.jobs: dict[str, DriverJob] = {}
        self.wakes: dict[str, Wake] = {}
        self.own = ""
        self.full = self.silent = False
        self.requeued: list[str] = []

    def begin(self, job: str) -> None:
        self.own = job
        self.jobs[job] = replace(self.jobs[job], state="RUNNING")

    def answer(self) -> None:
        if self.silent:
            raise ClusterUnavailable("squeue: timed out")

    def listed(self, token: str) -> tuple[DriverJob, ...]:
        self.answer()
        return tuple(self.jobs.values())

    def send(self, token: str, wake: Wake, *arguments: object) -> str:
        self.answer()
        if self.full:
            raise SubmissionRefused("MaxSubmitJobs")
        job = str(len(self.wakes) + 1)
        self.jobs[job], self.wakes[job] = DriverJob(job, "PENDING", wake.wake), wake
        return job

    def change(self, job: str, wake: Wake) -> bool:
        self.jobs[job], self.wakes[job] = replace(self.jobs[job], wake=wake.wake), wake
        return True

    def end(self, token: str, jobs: list[str]) -> None:
        self.answer()
        for job in jobs:
            del self.jobs[job]


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Queue:
    made = Queue()
    monkeypatch.setattr(submit, "driver_jobs", made.listed)
    monkeypatch.setattr(submit, "send_driver", made.send)
    monkeypatch.setattr(submit, "change_driver", made.change)
    monkeypatch.setattr(submit, "end_drivers", made.end)
    monkeypatch.setattr(submit, "requeue_driver", made.requeued.append)
    for module in (submit, drive):
        monkeypatch.setattr(module, "own_driver_job", lambda token: made.own)
    monkeypatch.setattr(Sweep, "cluster", lambda sweep: None)
    return made


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    write_user_sweep(folder, sweep=SWEEP.replace("slurm: {trials_at_once: 4}\n", ""))
    orchestrate("plan", "sweep.yaml", "slurm=gpu", "stages.fine.close=0.5", cwd=folder)
    return folder / "sweeps" / "mine"


@pytest.fixture
def sweep(planned: Path, tmp_path: Path) -> Iterator[Sweep]:
    directory = tmp_path / "mine"
    directory.mkdir()
    for name in ("plan.json", "sweep.yaml"):
        (directory / name).write_bytes((planned / name).read_bytes())
    yield open_sweep(SweepDirectory(directory))


def start(sweep: Sweep, phase: str, trials: list[str], tasks: list[tuple[str, ...]], array: str) -> None:
    """Write down that a phase has begun and that some tasks of it were submitted as an array."""
    folder = sweep.directory.phase("stage", phase)
    specs = [TrialSpec(trial_id=trial, setting_id="", params={}, seed=0) for trial in trials]
    write_trials(folder.trials, specs)
    intent = Intent(number=1, token=f"t-{phase}", tasks=tuple(tasks), created=0.0, host="")
    write_intent(folder.submissions, intent)
    jobs = tuple(f"{array}_{index}" for index in range(len(tasks)))
    write_receipt(folder.submissions, 1, Receipt(jobs=jobs))


STEPPED = Decision(RUNNING, (Freeze(None),))  # type: ignore[arg-type]


def test_nothing_of_it_happens_to_a_sweep_that_was_not_handed_over(sweep: Sweep, queue: Queue) -> None:
    submit.secure(sweep)
    assert submit.settle(sweep, STEPPED) and not queue.jobs
    assert submit.driver(sweep) is None


def test_one_job_waits_for_the_arrays(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    submit.hand_over(sweep)
    assert list(queue.jobs) == ["1"] and queue.wakes["1"] == Wake("safety 0", (), SAFETY_SECONDS)
    start(sweep, "coarse", ["a", "b"], [("a",), ("b",)], "70")
    assert submit.settle(sweep, STEPPED)
    assert list(queue.jobs) == ["1"], "the first one waits for something else now"
    assert queue.wakes["1"] == Wake("after 70", ("70",), 0)
    assert submit.driver(sweep) == "SLURM: job 1 waits for array 70"
    # It wakes: the next one is there before it does anything, and is what waits after its step.
    queue.begin("1")
    submit.secure(sweep)
    assert queue.wakes["2"] == Wake("safety 0", ("1",), SAFETY_SECONDS)
    assert submit.settle(sweep, STEPPED)
    assert queue.wakes["2"] == Wake("after 70", ("70",), 0)


def test_a_driver_that_woke_for_nothing_does_not_wake_its_successor_at_once(
    sweep: Sweep, queue: Queue
) -> None:
    submit.hand_over(sweep)
    start(sweep, "coarse", ["a"], [("a",)], "70")
    queue.begin("1")
    submit.secure(sweep)
    assert submit.settle(sweep, Decision(RUNNING))
    assert queue.wakes["2"].seconds > 0 and queue.wakes["2"].after == ("70",)


def test_too_many_become_one(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    start(sweep, "coarse", ["a"], [("a",)], "70")
    for wake in ("soon", "after 70", "safety 3"):
        queue.send("", Wake(wake))
    assert submit.settle(sweep, STEPPED)
    assert [job.wake for job in queue.jobs.values()] == ["after 70"]


def test_with_nothing_to_wait_for_it_looks_again_soon(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    assert submit.settle(sweep, STEPPED)
    assert queue.wakes["1"].wake == "soon" and queue.wakes["1"].seconds == submit.SOON_SECONDS


def test_trials_that_found_no_room_wait_for_any_task(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    start(sweep, "coarse", ["a", "b", "c"], [("a",), ("b",)], "70")
    assert submit.settle(sweep, STEPPED)
    assert queue.wakes["1"].after == ("70_0", "70_1") and queue.wakes["1"].seconds > 0


def test_a_stage_that_closes_early_waits_for_any_task(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    start(sweep, "coarse", ["z"], [("z",)], "60")
    start(sweep, "fine", ["a", "b"], [("a",), ("b",)], "70")
    assert submit.settle(sweep, STEPPED)
    assert set(queue.wakes["1"].after) == {"60_0", "70_0", "70_1"}


def test_failing_drivers_come_ever_more_seldom(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    seconds = []
    for number in range(1, 12):
        queue.begin(str(number))
        submit.secure(sweep)
        seconds.append(queue.wakes[str(number + 1)].seconds)
        del queue.jobs[str(number)]
    assert seconds[:3] == [2 * SAFETY_SECONDS, 4 * SAFETY_SECONDS, 8 * SAFETY_SECONDS]
    assert seconds[-1] == MOST_SAFETY_SECONDS


def test_at_rest_the_chain_ends(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    queue.begin("1")
    submit.secure(sweep)
    assert submit.settle(sweep, Decision(DONE))
    assert list(queue.jobs) == ["1"], "but for the job that finds this"
    assert not handed_over(sweep.directory)


def test_a_refused_driver_was_not_handed_over(sweep: Sweep, queue: Queue) -> None:
    queue.full = True
    with pytest.raises(UserError, match="MaxSubmitJobs"):
        submit.hand_over(sweep)
    assert not handed_over(sweep.directory)


def test_a_driver_with_no_room_for_a_successor_goes_on_itself(
    sweep: Sweep, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit.hand_over(sweep)
    queue.begin("1")
    queue.full = True
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr(drive, "advance", lambda *arguments: STEPPED)
    assert drive.advance_once(sweep, lambda action: None) == STEPPED, "the step is taken all the same"
    assert queue.requeued == ["1"]


def test_a_driver_waits_for_a_cluster_that_does_not_answer(
    sweep: Sweep, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit.hand_over(sweep)
    queue.begin("1")
    queue.silent = True
    naps = 0

    def nap(seconds: float) -> None:
        nonlocal naps
        naps += 1
        queue.silent = naps < 3

    monkeypatch.setattr("time.sleep", nap)
    monkeypatch.setattr(drive, "advance", lambda *arguments: STEPPED)
    assert drive.advance_once(sweep, lambda action: None) == STEPPED
    assert naps == 3 and queue.jobs["2"].waits


def test_status_says_what_hinders_a_driver(sweep: Sweep, queue: Queue) -> None:
    submit.hand_over(sweep)
    queue.jobs["1"] = replace(queue.jobs["1"], reason="JobHeldUser")
    assert submit.driver(sweep) == "SLURM: job 1 waits (JobHeldUser)"
    queue.jobs["1"] = replace(queue.jobs["1"], reason="BeginTime", start="2026-01-01T10:00:00")
    assert submit.driver(sweep) == "SLURM: job 1 looks again at 2026-01-01 10:00:00"
    queue.jobs["1"] = replace(queue.jobs["1"], reason="Dependency", wake="any of 9 tasks from 7_0")
    assert submit.driver(sweep) == "SLURM: job 1 waits for any of 9 tasks"
    queue.begin("1")
    assert submit.driver(sweep) == "SLURM: job 1 takes the next step"
    queue.silent = True
    assert "can't be asked" in str(submit.driver(sweep))


def test_this_machine_alone_can_not_be_handed_over(tmp_path: Path) -> None:
    write_user_sweep(tmp_path)
    done = orchestrate("submit", "sweep.yaml", cwd=tmp_path, status=2)
    assert "slurm.executor" in done.stderr and "orchestrate run sweeps/mine" in done.stderr
