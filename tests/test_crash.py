"""Crashing: whole sweeps on the simulated cluster, in which anything may die or fail at any operation.

A failure names a seed or shows the steps; `benchmarks/orchestration/crash.py` runs thousands of the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from simulated_faults import ACCIDENTS, FAULTS, PARKS, Fault
from simulated_schedules import run_calm, run_schedule
from simulated_sweeps import World
from simulated_templates import VARIANTS, Template, make_templates

from orchestrator.cluster.simulation.machine import Site

SCHEDULES = 30
# So far apart are the operations at which a lone fault comes.
STRIDE = 293


@pytest.fixture(scope="module")
def templates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Template]:
    return make_templates(tmp_path_factory.mktemp("templates"))


def test_an_undisturbed_sweep_runs_each_trial_once(templates: dict[str, Template]) -> None:
    for template in templates.values():
        ran = run_calm(template, seed=1)
        assert ran.wrong == []
        assert ran.trials == ran.runs, "as many runs as trials"


@pytest.mark.parametrize("name", VARIANTS)
def test_whatever_happens_each_trial_has_one_result(templates: dict[str, Template], name: str) -> None:
    place = list(VARIANTS).index(name)
    for seed in range(place, SCHEDULES, len(VARIANTS)):
        ran = run_schedule(templates[name], seed)
        assert ran.wrong == [], f"seed {seed} of '{name}'"


def test_results_and_report_survive_too(templates: dict[str, Template]) -> None:
    for seed in (3, 4):
        ran = run_schedule(templates["plain"], seed, whole=True)
        assert ran.wrong == [], f"seed {seed}"


@pytest.mark.parametrize("name", ["dies", "dies after", "reply lost"])
def test_one_fault_anywhere_is_survived(templates: dict[str, Template], name: str) -> None:
    """Each time the fault comes at another operation of the same undisturbed run."""
    operations = run_calm(templates["plain"], seed=1).operations
    for at in range(len(name), operations, STRIDE):
        ran = run_calm(templates["plain"], seed=1, faults=[Fault(at, name)])
        assert ran.wrong == [], f"{name} at {at}"


def test_what_a_stalled_owner_sends_after_it_was_given_up_runs_nothing(
    templates: dict[str, Template],
) -> None:
    with World(templates["plain"], seed=2) as world:
        world.machine.site = Site(gpus=4)
        stalled = world.call(0)
        world.park(0, "sbatch")
        assert stalled.process.frozen
        # Its intent is there and nothing of it on the cluster, for longer than an owner may stall.
        world.tick(400)
        world.call(1)
        world.go(0, 1_000_000)
        assert list(world.directory.path.glob("**/0001.abandoned.json"))
        assert not world.workers, "its trials are still to be run"
        stalled.process.frozen = False
        world.park(0, "payloads there")
        world.kill(0)
        world.tick(400)
        assert any(worker.fenced for worker in world.workers), "its tasks did begin"
        assert world.finish() == []


@pytest.mark.parametrize("step", ["sbatch", "sbatch's answer", "payload", "payloads there", "replace"])
def test_who_dies_around_sbatch_leaves_each_trial_to_be_run_once(
    templates: dict[str, Template], step: str
) -> None:
    with World(templates["plain"], seed=1) as world:
        world.machine.site = Site(gpus=2)
        world.call(0)
        world.park(0, "sbatch")
        if step != "sbatch":
            world.controllers[0].process.frozen = False
            world.park(0, step)
        world.kill(0)
        assert list(world.directory.path.glob("**/0001.intent.json"))
        assert not list(world.directory.path.glob("**/0001.receipt.json"))
        assert world.finish() == []
        assert world.begun == 4 + 3 + 2


class Sweeping(RuleBasedStateMachine):
    """Steps in any order; hypothesis looks for the shortest that leave something wrong."""

    templates: dict[str, Template]

    @initialize(name=st.sampled_from(sorted(VARIANTS)), seed=st.integers(0, 1000))
    def begin(self, name: str, seed: int) -> None:
        self.world = World(self.templates[name], seed).__enter__()

    @rule(host=st.integers(0, 1), patient=st.booleans())
    def call(self, host: int, patient: bool) -> None:
        if sum(not one.over for one in self.world.controllers) < 3:
            self.world.call(host, patient)

    @rule(which=st.integers(0, 2), operations=st.integers(1, 400))
    def go(self, which: int, operations: int) -> None:
        self.world.go(which, operations)

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0, 400.0]))
    def tick(self, seconds: float) -> None:
        self.world.tick(seconds)

    @rule(which=st.integers(0, 2))
    def kill(self, which: int) -> None:
        self.world.kill(which)

    @rule(which=st.integers(0, 2))
    def stall(self, which: int) -> None:
        self.world.freeze(which)

    @rule(which=st.integers(0, 2), kind=st.sampled_from(PARKS))
    def park(self, which: int, kind: str) -> None:
        self.world.park(which, kind)

    @rule(kind=st.sampled_from(ACCIDENTS), which=st.integers(0, 3))
    def accident(self, kind: str, which: int) -> None:
        self.world.accident(kind, which)

    @rule(name=st.sampled_from(sorted(FAULTS)), soon=st.integers(0, 200))
    def fault(self, name: str, soon: int) -> None:
        self.world.faults.append(Fault(self.world.operations + soon, name))
        self.world.faults.sort()

    @rule()
    def cancel(self) -> None:
        self.world.cancel()

    @invariant()
    def nothing_is_wrong(self) -> None:
        if hasattr(self, "world"):
            assert self.world.wrong == []

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                assert self.world.finish() == []
            finally:
                self.world.__exit__()


@pytest.fixture
def machine(templates: dict[str, Template]) -> Iterator[type[Sweeping]]:
    Sweeping.templates = templates
    yield Sweeping


def test_no_steps_lead_to_anything_wrong(machine: type[Sweeping]) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(machine, settings=settings(max_examples=20, stateful_step_count=30))
