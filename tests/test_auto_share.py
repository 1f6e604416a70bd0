"""`stages: auto` where a share of the budget, or no final run at all, was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_job import OWN_AUTO, own

from orchestrator.config import load_sweep
from orchestrator.data.size import DatasetSize
from orchestrator.errors import UserError
from orchestrator.planning.auto import MOST_TRIALS, AutoLadder, BudgetTooSmall, auto_stages, trial_cost
from orchestrator.planning.expand import expand

DIGITS = Path(__file__).parent.parent / "examples" / "digits.yaml"


def notes(text: str, *overrides: str) -> tuple[str, ...]:
    return own(text, *overrides).plan.notes


def counts(ladder: AutoLadder) -> list[int]:
    return [stage.trials + stage.repeats for stage in ladder.stages]


@given(
    budget=st.floats(1, 1e4),
    epochs=st.none() | st.integers(1, 100),
    overhead=st.floats(0, 0.95),
    top=st.none() | st.integers(1, 12),
    seeds=st.none() | st.integers(1, 5),
    share=st.floats(0.01, 0.99),
)
def test_an_asked_share_is_spent(
    budget: float, epochs: int | None, overhead: float, top: int | None, seeds: int | None, share: float
) -> None:
    try:
        ladder = auto_stages(budget, 50_000, epochs, overhead=overhead, top=top, seeds=seeds, share=share)
    except BudgetTooSmall:
        return
    assert ladder.cost <= budget * (1 + 1e-6)
    if max(counts(ladder)) < MOST_TRIALS:
        # Of a small budget, what is too little for a single trial may be more.
        rest = max(0.15 * budget, trial_cost(ladder.stages[0].rung, overhead))
        assert ladder.cost >= budget - rest


def test_a_share_of_more_settings_than_a_stage_can_try_is_spent_on_seeds_or_on_the_search() -> None:
    # 18 runs leave 2: six trials at 1/9, which cost 0.29 each.
    free = auto_stages(20, 50_000, 30, 10, overhead=0.2, share=0.9)
    assert (free.top, free.seeds, counts(free)) == (6, 3, [6])
    # One seed each: fifteen runs, and the search has what is left.
    one = auto_stages(20, 50_000, 30, 10, overhead=0.2, share=0.9, seeds=1)
    assert (one.top, one.seeds, counts(one)) == (15, 1, [17])
    assert 19.5 < one.cost <= 20


@pytest.mark.parametrize("counts", [(17, 12, 21, 7, 18, 7, 19, 11, 7, 7), (100,) * 10])
def test_whole_samples_leave_the_last_stage_as_many_trials_as_final_runs(counts: tuple[int, ...]) -> None:
    size = DatasetSize(samples=sum(counts), classes=10, counts=counts)
    for budget in (71.34, 40, 20, 7):
        overrides = ["stages=auto", f"budget={budget} trainings", "final.share=0.9013046524587003"]
        config = load_sweep(DIGITS, [*overrides, "final.top=null", "final.seeds=1", "checks.enabled=false"])
        fitted = expand(config, size, "sweep.yaml").config
        assert list(fitted.stages.values())[-1].trials >= (fitted.final.top or 0) > 0


def test_a_large_part_that_stays_unspent_is_told(here: Path) -> None:
    text = OWN_AUTO.replace("{data: fraction, epochs: epochs}", "{epochs: epochs}").replace(
        "epochs: 10", "epochs: 1"
    )
    left = notes(text, "budget=5.9 trainings")
    assert "0.9 of 5.9 trainings (15%) stay unspent: they pay for no further trial." in left
    assert not any("unspent" in note for note in notes(text, "budget=5.1 trainings"))


def test_without_final_runs_the_last_stage_is_at_what_the_budget_pays_for(here: Path) -> None:
    small = notes(OWN_AUTO, "budget=1 trainings", "final.top=0")
    assert "There are no final runs (final.top is 0), and the last stage is at 1/9 of full scale." in small
    assert small[-1] == "There is no stage at full scale: it would have too few trials to choose from."
    large = notes(OWN_AUTO, "budget=30 trainings", "final.top=0")
    assert "There are no final runs (final.top is 0), and the last stage is at full scale." in large
    with pytest.raises(UserError) as caught:
        notes(OWN_AUTO, "budget=0.14 trainings", "final.top=0")
    assert "0.14 trainings can't pay for a first stage of 4 trials; it would buy 3 trials at 1/27 of" in str(
        caught.value
    )
    assert caught.value.hint == "The smallest that works is 0.148 trainings."
