"""What the diagnoses of a stage's trials make of the next ranges."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.narrowing.diagnosed import cut_diagnosed
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import CHOICE, FLOAT, Parameter, Value

LR = Parameter(name="lr", kind=FLOAT, low=1e-4, high=1.0, log=True, reason="kept")
WIDTH = Parameter(name="width", kind=CHOICE, values=(8, 16))
WHY = "90% of the trials with lr above 0.3 explode in the first 20 updates"


def trial(objective: float, **params: Value) -> Observation:
    return Observation(params, objective)


def test_what_explodes_is_cut_off_and_the_reason_says_so() -> None:
    lr, width = cut_diagnosed((LR, WIDTH), {"lr": (None, 0.3, WHY)}, [trial(1.0, lr=0.01, width=8)])
    assert (lr.low, lr.high, width) == (1e-4, 0.3, WIDTH)
    assert lr.reason == f"kept; cut where {WHY}"


def test_narrowing_that_went_further_stays() -> None:
    narrow = Parameter(name="lr", kind=FLOAT, low=1e-3, high=0.1, log=True, reason="narrowed")
    assert cut_diagnosed((narrow,), {"lr": (None, 0.3, WHY)}, []) == (narrow,)


@given(
    best=st.floats(1e-4, 1.0),
    low=st.none() | st.floats(1e-6, 10.0),
    high=st.none() | st.floats(1e-6, 10.0),
)
def test_the_best_stays_inside_and_no_range_inverts(
    best: float, low: float | None, high: float | None
) -> None:
    (lr,) = cut_diagnosed((LR,), {"lr": (low, high, WHY)}, [trial(1.0, lr=best)])
    assert LR.low <= lr.low <= best <= lr.high <= LR.high


def test_the_best_is_one_that_ran_to_its_end_and_has_the_parameter() -> None:
    ruled = {"lr": (None, 0.1, WHY)}
    early = replace(trial(0.95, lr=0.01), settled=False)
    assert cut_diagnosed((LR,), ruled, [early, trial(0.9, lr=0.5)]) == (LR,)
    # The best of all lacks it: the best of those that have it stays all the same.
    assert cut_diagnosed((LR,), ruled, [trial(0.99, width=8), trial(0.9, lr=0.5)]) == (LR,)
    equal = [trial(0.9, lr=0.5), trial(0.9, lr=0.01)]
    assert cut_diagnosed((LR,), ruled, equal) == cut_diagnosed((LR,), ruled, equal[::-1])
