"""The curves of results are made into a frame when they are first asked for, as they were when loaded."""

from __future__ import annotations

import copy
import json
import pickle
import re
import shutil
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_damage import append, record_file, report
from test_old_sweep import told, unpacked

from made_sweep import make_sweep
from orchestrator import Results, load_results
from orchestrator.results import load, tables
from orchestrator.results.compact import compact, stage_files
from orchestrator.results.tables import DamagedTable
from orchestrator.sweep.directory import SweepDirectory

COLUMNS = {"stage": "category", "trial_id": "str", "step": "int64", "metric": "str", "value": "float64"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    made = make_sweep(tmp_path / "s", trials=(8, 4), finals=2, hostile=True)
    compact(made)
    return made


def damaged_middle(path: Path) -> None:
    """Its footer stays sound, so it is not seen to be damaged before it is read."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 400 + content[404:])


def on_disk(sweep: Path) -> pd.DataFrame:
    """Return the curves as pandas reads them by itself."""
    stages = load_results(sweep).stages
    files = {stage: stage_files(SweepDirectory(sweep), stage)[1] for stage in stages}
    frames = [
        pd.read_parquet(path, partitioning=None).assign(stage=stage)
        for stage, path in files.items()
        if path.exists()
    ]
    whole = pd.concat(frames, ignore_index=True)
    whole["stage"] = pd.Categorical(whole["stage"], stages, ordered=True)
    return whole[["stage", *whole.columns.drop("stage")]]


def test_the_frame_is_what_pandas_reads_and_may_be_written_to(sweep: Path) -> None:
    results = load_results(sweep)
    pd.testing.assert_frame_equal(results.curves, on_disk(sweep))
    kinds = {str(name): str(kind) for name, kind in results.curves.dtypes.items()}
    assert kinds == {**COLUMNS, "time": "float64"}
    for frame, column in ((results.curves, "value"), (results.trials, "objective")):
        frame.loc[0, column] = -7.0
        assert frame[column].iloc[0] == -7.0


def test_the_curves_are_of_the_moment_of_loading(sweep: Path) -> None:
    whole, early = load_results(sweep).curves, load_results(sweep)
    records = record_file(sweep)
    trial = json.loads(records.read_text().splitlines()[-1])["trial"]
    append(records, report(trial, step=999, time=0.1))
    compact(sweep)
    later = load_results(sweep)
    shutil.rmtree(sweep)
    pd.testing.assert_frame_equal(early.curves, whole)
    assert later.curves["step"].max() == 999


def test_they_are_made_once_and_only_when_asked_for(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[pd.DataFrame] = []

    def frame(*arguments: Any) -> pd.DataFrame:
        made.append(_frame(*arguments))
        return made[-1]

    _frame = load._frame
    monkeypatch.setattr(load, "_frame", frame)
    results = load_results(sweep)
    assert "coarse 8" in repr(results)
    assert len(results.best(2)) == 2
    assert len(made) == 1
    assert results.curves is results.curves
    assert len(made) == 2
    assert made[1] is results.curves


def test_results_are_replaced_copied_and_pickled_as_if_they_had_them(sweep: Path) -> None:
    results = load_results(sweep)
    others = [pickle.loads(pickle.dumps(results)), copy.deepcopy(results), copy.copy(results)]
    shutil.rmtree(sweep)
    others += [replace(results, name="other"), pickle.loads(pickle.dumps(results))]
    for other in others:
        pd.testing.assert_frame_equal(other.curves, results.curves)
        pd.testing.assert_frame_equal(other.trials, results.trials)
    assert replace(results, curves=results.curves.head(0)).curves.empty
    assert "curves" in dir(results)
    with pytest.raises(FrozenInstanceError):
        results.curves = results.curves.head(0)  # type: ignore[misc]
    everything = {name: getattr(results, name) for name in results.__dataclass_fields__}
    assert Results(**everything).curves is results.curves
    del everything["curves"]
    with pytest.raises(TypeError, match="curves"):
        Results(**everything)


def test_a_file_of_curves_that_is_not_there_yet_or_gone_at_once_has_no_rows(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _, curves in (stage_files(SweepDirectory(sweep), stage) for stage in load_results(sweep).stages):
        curves.unlink(missing_ok=True)
    results = load_results(sweep)
    assert results.curves.empty
    assert list(results.curves.columns) == [*COLUMNS, "time"]
    assert len(results.trials) == 14

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(load, "hold_file", gone)
    assert load_results(sweep).trials.empty


def test_a_damaged_middle_is_told_when_it_is_read(sweep: Path) -> None:
    path = stage_files(SweepDirectory(sweep), "medium")[1]
    damaged_middle(path)
    results = load_results(sweep)
    assert len(results.trials) == 14
    for _ in range(2):
        with pytest.raises(DamagedTable, match=re.escape(f"{path}: is damaged (")):
            _ = results.curves


def test_every_command_names_the_file_whose_middle_is_damaged(tmp_path: Path) -> None:
    sweep = unpacked("issue-7", "plain", tmp_path)
    compact(sweep)
    path = stage_files(SweepDirectory(sweep), "coarse")[1]
    damaged_middle(path)
    for command in (
        ("report",),
        ("results", "--curves"),
        ("share", "--to", "optuna", "--out", tmp_path / "study.log"),
    ):
        message = told(*command, sweep, status=2)
        assert message.startswith(f"error: {path}: is damaged ("), message
        assert len(message.splitlines()) == 1


def test_what_was_held_of_a_file_is_all_of_it(sweep: Path) -> None:
    path = stage_files(SweepDirectory(sweep), "coarse")[1]
    held = tables.hold_file(path)
    assert held.table().equals(tables.read_table(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DamagedTable):
        tables.hold_file(path)
    assert held.table().num_rows > 0
