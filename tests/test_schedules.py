"""Schedules: their curves, that they keep the ratios of rates, and that they are taken up exactly."""

from __future__ import annotations

import copy
import io
import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.schedules import SCHEDULES, Schedule, build_schedule
from orchestrator.training.settings import OptimizerSettings, ScheduleSettings

EPOCHS, UPDATES = 10, 4
SGD = OptimizerSettings(name="sgd", lr=1.0)


class Course:
    """An optimizer of two groups, one at a tenth of the other's rate, and its schedule."""

    def __init__(self, optimizer: OptimizerSettings = SGD, **changes: Any) -> None:
        rates = (optimizer.lr, optimizer.lr / 10)
        groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in rates]
        self.optimizer = build_optimizer(groups, optimizer)
        self.schedule = build_schedule(
            self.optimizer,
            ScheduleSettings(**changes),
            epochs=EPOCHS,
            epoch_updates=UPDATES,
            momentum=optimizer,
        )
        self.updates = 0

    def update(self, loss: float = 1.0) -> tuple[float, float, float]:
        """Return both rates and the momentum of the next update, and do it."""
        one, two = self.optimizer.param_groups
        momentum = one["betas"][0] if "betas" in one else one.get("momentum", 0.0)
        now = one["lr"], two["lr"], momentum
        self.optimizer.step()
        self.updates += 1
        if self.schedule is not None:
            self.schedule.step()
            if self.updates % UPDATES == 0:
                self.schedule.epoch_end(loss)
        return now

    def rates(self, count: int = EPOCHS * UPDATES) -> list[float]:
        return [self.update()[0] for _ in range(count)]


def test_without_a_schedule_nothing_moves() -> None:
    assert Course().schedule is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"name": "step", "step_epochs": 4.0, "step_factor": 0.1}, {15: 1, 16: 0.1, 31: 0.1, 32: 0.01}),
        ({"name": "exponential", "final_ratio": 0.01}, {0: 1, 20: 0.1, 40: 0.01}),
        ({"name": "inverse_time", "decay": 0.5}, {0: 1, 4: 1 / 1.5, 8: 0.5, 40: 1 / 6}),
        ({"name": "cosine", "final_ratio": 0.2}, {0: 1, 20: 0.6, 40: 0.2}),
        ({"name": "cyclical", "cycle_ratio": 0.2}, {0: 0.2, 4: 0.6, 8: 1, 12: 0.6, 16: 0.2, 24: 1}),
        ({"name": "one_cycle", "cycle_ratio": 0.2}, {0: 0.2, 11: 1.0, 40: 0.2e-4}),
        ({"name": "plateau", "plateau_epochs": 3}, {0: 1, 15: 1, 16: 0.5, 27: 0.5, 28: 0.25, 40: 0.125}),
        ({"name": "none", "warmup_epochs": 1.0}, {0: 0.01, 2: 0.505, 4: 1, 40: 1}),
        ({"name": "inverse_time", "decay": 0.5, "warmup_epochs": 1.0}, {0: 0.01, 4: 1, 8: 1 / 1.5}),
        ({"name": "cosine", "warmup_epochs": 5.0}, {0: 0.01, 20: 1, 30: 0.5005, 40: 0.001}),
        ({"name": "cyclical", "warmup_epochs": 1.0}, {0: 0.001, 4: 0.1, 12: 1, 20: 0.1}),
        ({"name": "one_cycle", "warmup_epochs": 1.0}, {0: 0.001, 4: 0.1, 40: 0.1e-4}),
        ({"name": "plateau", "warmup_epochs": 2.0}, {0: 0.01, 8: 1, 19: 1, 20: 0.5}),
    ],
)
def test_the_curves(changes: dict[str, Any], expected: dict[int, float]) -> None:
    rates = Course(**changes).rates(EPOCHS * UPDATES + 1)
    for update, rate in expected.items():
        assert rates[update] == pytest.approx(rate, rel=0.02), update


def test_one_cycle_peaks_once() -> None:
    rates = Course(name="one_cycle").rates()
    top = rates.index(max(rates))
    assert rates[top] == pytest.approx(1.0, rel=0.01) and 10 <= top <= 13
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_a_better_loss_puts_the_cut_off() -> None:
    course = Course(name="plateau")
    falling = [course.update(1 / epoch)[0] for epoch in range(1, 11) for _ in range(UPDATES)]
    assert set(falling) == {1.0}
    assert {course.update(math.nan)[0] for _ in range(4 * UPDATES)} == {1.0, 0.5}


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("warmup", [0.0, 1.5])
def test_groups_keep_the_ratio_of_their_rates(name: str, warmup: float) -> None:
    course = Course(name=name, warmup_epochs=warmup)
    for _ in range(EPOCHS * UPDATES + 3):
        one, two, _ = course.update()
        assert two == pytest.approx(one / 10)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("warmup", [0.0, 1.0])
def test_rates_stay_after_the_planned_end(name: str, warmup: float) -> None:
    course = Course(name=name, warmup_epochs=warmup)
    course.rates()
    if name != "plateau":
        assert len(set(course.rates(20))) == 1


@pytest.mark.parametrize("name", ["cyclical", "one_cycle"])
@pytest.mark.parametrize("warmup", [0.0, 1.0])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_momentum_moves_against_the_rate(name: str, warmup: float, optimizer: str) -> None:
    chosen = OptimizerSettings(name=optimizer, lr=1.0, momentum=0.95, beta1=0.95)
    course = Course(chosen, name=name, warmup_epochs=warmup, cycle_momentum_low=0.8)
    seen = [course.update() for _ in range(EPOCHS * UPDATES)]
    highest, lowest = max(seen), min(seen)
    assert highest[2] == pytest.approx(0.8, abs=0.01)
    assert lowest[2] == pytest.approx(0.95, abs=0.01)
    for (before, _, old), (rate, _, new) in itertools.pairwise(seen):
        assert (rate - before) * (new - old) <= 1e-12


@pytest.mark.parametrize("name", ["cyclical", "one_cycle"])
def test_momentum_stays_where_it_is_not_wanted_or_not_there(name: str) -> None:
    course = Course(name=name, cycle_momentum=False)
    assert {course.update()[2] for _ in range(30)} == {0.9}
    for optimizer in ("rmsprop", "adagrad", "adadelta"):
        course = Course(OptimizerSettings(name=optimizer, lr=1.0), name=name)
        assert {course.update()[2] for _ in range(30)} == {0.0}
    low = Course(OptimizerSettings(name="sgd", lr=1.0, momentum=0.5), name=name)
    assert {low.update()[2] for _ in range(30)} == {0.5}  # below the low end already


def test_momentum_grows() -> None:
    grows = OptimizerSettings(name="sgd", lr=1.0, momentum=0.99, momentum_start=0.5, momentum_epochs=2.0)
    for changes in ({}, {"name": "cosine"}, {"name": "cyclical", "cycle_momentum": False}):
        course = Course(grows, **changes)
        seen = [course.update()[2] for _ in range(12)]
        assert seen[0] == 0.5 and seen[4] == pytest.approx(0.745)
        assert seen[8:] == [pytest.approx(0.99)] * 4


def taken_up(course: Course, fresh: Course) -> None:
    """Let a fresh course go on where another one is, through a file."""
    file = io.BytesIO()
    assert course.schedule is not None and fresh.schedule is not None
    torch.save([course.optimizer.state_dict(), course.schedule.state_dict()], file)
    file.seek(0)
    optimizer, schedule = torch.load(file, weights_only=True)
    fresh.optimizer.load_state_dict(optimizer)
    fresh.schedule.load_state_dict(schedule)
    fresh.updates = course.updates


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from([name for name in SCHEDULES if name != "none"]),
    warmup=st.sampled_from([0.0, 0.6, 2.0]),
    grows=st.booleans(),
    stop=st.integers(0, 45),
)
def test_a_schedule_is_taken_up_at_any_update(name: str, warmup: float, grows: bool, stop: int) -> None:
    optimizer = OptimizerSettings(name="sgd", lr=0.3, momentum_start=0.5 if grows else None)
    changes = {"name": name, "warmup_epochs": warmup, "cycle_momentum": not grows}
    whole, part, fresh = (Course(optimizer, **changes) for _ in range(3))
    expected = [whole.update() for _ in range(48)]
    for _ in range(stop):
        part.update()
    taken_up(part, fresh)
    assert [fresh.update() for _ in range(48 - stop)] == expected[stop:]


def test_a_state_is_not_changed_by_loading_it() -> None:
    course, fresh = Course(name="cyclical"), Course(name="cyclical")
    course.rates(5)
    assert isinstance(course.schedule, Schedule) and isinstance(fresh.schedule, Schedule)
    state = course.schedule.state_dict()
    before = copy.deepcopy(state)
    fresh.schedule.load_state_dict(state)
    assert state == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "cosin"}, "schedule.name: .* Did you mean 'cosine'"),
        ({"step_factor": 0.0}, "schedule.step_factor"),
        ({"final_ratio": math.nan}, "schedule.final_ratio"),
        ({"cycle_epochs": 0.0}, "schedule.cycle_epochs: 0.0 is not above 0"),
        ({"cycle_ratio": 2.0}, "schedule.cycle_ratio"),
        ({"cycle_momentum_low": 1.0}, "schedule.cycle_momentum_low"),
        ({"warmup_epochs": -1.0}, "schedule.warmup_epochs: -1.0 is negative"),
        ({"decay": -0.1}, "schedule.decay"),
        ({"plateau_epochs": 0}, "schedule.plateau_epochs: 0 is below 1"),
        ({"name": "plateau", "step_factor": 1.0}, "1.0 is no cut"),
    ],
)
def test_numbers_out_of_range(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Course(**changes)


def test_two_that_would_move_the_momentum() -> None:
    with pytest.raises(UserError, match="which the cyclical schedule moves too"):
        Course(OptimizerSettings(name="sgd", momentum_start=0.5), name="cyclical")
