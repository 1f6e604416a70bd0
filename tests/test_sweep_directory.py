"""The sweep's folder, and the frozen trials as Parquet."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from orchestrator.sweep.directory import (
    ENSEMBLE,
    FINAL,
    STAGE,
    SweepDirectory,
    TrialSpec,
    read_trials,
    read_waves,
    write_trials,
)

TRIALS = [
    TrialSpec(
        trial_id="coarse-00000",
        setting_id="ab",
        params={"lr": 1e-3, "width": 64, "act": "größe", "flag": True, "none": None},
        seed=2**31 - 1,
    ),
    TrialSpec(trial_id="coarse-00001", setting_id="cd", params={}, seed=0, origin="survivor", parent="x-1"),
]


def test_trials_round_trip_with_types(tmp_path: Path) -> None:
    path = tmp_path / "stages" / "coarse" / "trials.parquet"
    assert read_trials(path) == []
    write_trials(path, TRIALS)
    back = read_trials(path)
    assert back == TRIALS
    assert {name: type(value) for name, value in back[0].params.items()} == {
        "lr": float, "width": int, "act": str, "flag": bool, "none": type(None),
    }  # fmt: skip
    assert [p.name for p in path.parent.iterdir()] == ["trials.parquet"]


def test_no_trials_are_not_the_same_as_no_file(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    write_trials(path, [])
    assert path.exists()
    assert read_trials(path) == []


def test_any_reader_of_parquet_understands_the_trials(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    write_trials(path, TRIALS)
    table = pq.read_table(path)
    assert table.column_names == ["trial_id", "setting_id", "params", "seed", "origin", "parent"]
    assert [str(kind) for kind in table.schema.types] == [
        "string",
        "string",
        "string",
        "int64",
        "string",
        "string",
    ]


@pytest.mark.parametrize("value", [5e-324, 0.1 + 0.2, math.pi * 1e-8, 1e300])
def test_numbers_come_back_to_the_last_bit(tmp_path: Path, value: float) -> None:
    path = tmp_path / "trials.parquet"
    write_trials(path, [TrialSpec(trial_id="a", setting_id="b", params={"x": value}, seed=0)])
    assert read_trials(path)[0].params["x"] == value


def test_where_things_lie(tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path)
    coarse = directory.phase(STAGE, "coarse")
    assert coarse.path == tmp_path / "stages" / "coarse"
    assert coarse.checkpoints("t-1") == coarse.path / "checkpoints" / "t-1"
    assert directory.phase(FINAL, FINAL).path == tmp_path / "final"
    assert directory.phase(ENSEMBLE, ENSEMBLE).path == tmp_path / "ensemble"
    assert coarse.records == coarse.path / "records"
    assert directory.plan == tmp_path / "plan.json"


def test_waves_are_read_in_order_up_to_the_first_that_is_not_there(tmp_path: Path) -> None:
    folder = SweepDirectory(tmp_path).phase(STAGE, "coarse")
    assert read_waves(folder) == []
    assert [folder.wave(number).name for number in (0, 1, 12)] == [
        "trials.parquet", "trials-001.parquet", "trials-012.parquet",
    ]  # fmt: skip
    assert folder.trials == folder.wave(0)
    write_trials(folder.wave(0), TRIALS[:1])
    write_trials(folder.wave(2), TRIALS[1:])
    assert read_waves(folder) == [TRIALS[:1]]
    write_trials(folder.wave(1), [])
    assert read_waves(folder) == [TRIALS[:1], [], TRIALS[1:]]


def test_frozen_trials_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "trials.parquet"
    assert write_trials(path, TRIALS)
    assert not write_trials(path, TRIALS[:1]), "a process that was stalled must not exchange them"
    assert read_trials(path) == TRIALS
    assert [file.name for file in tmp_path.iterdir()] == ["trials.parquet"]
