"""The best trials: `orchestrate results`, which does without pandas, and `Results.best` name the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.report import selecting
from orchestrator.report.selecting import Wish, select
from orchestrator.results import load
from orchestrator.sweep.records import STATES

STAGES = ("coarse", "fine", "final")
# Few values, so that many are equal.
objectives = st.sampled_from(
    [0.1, 0.5, 0.5000001, -2.0, 0.0, -0.0, 1e300, math.inf, -math.inf, math.nan, None]
)
trials = st.lists(st.tuples(st.sampled_from(STAGES), st.sampled_from(STATES), objectives), max_size=12)


def both(rows: list[tuple[str, str, float | None]], mode: str) -> tuple[selecting.Results, load.Results]:
    """The same trials, as the command has them and as notebooks do."""
    rows = sorted(rows, key=lambda row: STAGES.index(row[0]))
    columns: dict[str, list[Any]] = {
        "stage": [row[0] for row in rows],
        "trial_id": [f"t{number}" for number in range(len(rows))],
        "state": [row[1] for row in rows],
        "objective": [row[2] for row in rows],
    }
    kinds = pa.schema([(name, pa.float64() if name == "objective" else pa.string()) for name in columns])
    frame = pd.DataFrame(columns).astype({"objective": float})
    frame["stage"] = pd.Categorical(frame["stage"], STAGES, ordered=True)
    empty: dict[str, Any] = {"curves": pd.DataFrame(), "spaces": {}, "plan": {}, "ensemble": None}
    return (
        selecting.Results(
            trials=pa.table(columns, schema=kinds), curves=pa.table({}), stages=STAGES, mode=mode
        ),
        load.Results(
            path=Path(), name="s", metric="m", mode=mode, stages=list(STAGES), trials=frame, **empty
        ),
    )


@settings(max_examples=30)
@given(trials, st.sampled_from(["max", "min"]), st.integers(1, 12))
def test_the_command_and_the_notebook_agree_on_the_best(
    rows: list[tuple[str, str, float | None]], mode: str, count: int
) -> None:
    shown, loaded = both(rows, mode)
    for stage in (None, *STAGES):
        best = loaded.best(count, stage)["trial_id"].tolist()
        wish = Wish(stages=(stage,) if stage else (), top=count)
        # The command goes on, where there are no more, with what can't be compared, and with earlier stages.
        assert select(shown, wish).rows["trial_id"].to_pylist()[: len(best)] == best
