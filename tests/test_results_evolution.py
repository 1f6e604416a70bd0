"""Stages that differ: other metrics, parameters that come and go, one that a stage held; in any order."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

import orchestrator
from made_sweep import make_sweep
from orchestrator.results.compact import compact
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.files import read_json, write_json
from orchestrator.sweep.records import encode

RATE = {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "reason": "as declared"}
KINDS = {"kind": "choice", "values": [16, "auto"], "reason": "as declared"}
STAGES = ("coarse", "medium")


def begin(path: Path, spaces: list[dict[str, Any]], params: list[list[dict[str, Any]]]) -> SweepDirectory:
    """Plan a sweep whose stages have these space files and trials of these parameters."""
    directory = SweepDirectory(path)
    phases = [
        {"kind": "stage", "name": name, "trials": len(settings), "samples": 50, "scale": {}, "tasks": 1}
        for name, settings in zip(STAGES, params, strict=True)
    ]
    plan = {"version": 1, "name": "s", "metric": {"name": "acc", "mode": "max"}, "phases": phases}
    write_json(directory.plan, plan)
    for name, space, settings in zip(STAGES, spaces, params, strict=True):
        folder = directory.phase("stage", name)
        write_json(folder.space, {"stage": name, **space})
        specs = [
            TrialSpec(trial_id=f"{name}-{number}", setting_id=str(number), params=one, seed=0)
            for number, one in enumerate(settings)
        ]
        write_trials(folder.wave(0), specs)
        folder.records.mkdir(parents=True)
    return directory


def run(directory: SweepDirectory, trial: str, **metrics: float) -> None:
    """Let a trial report its metrics once and end."""
    folder = directory.phase("stage", trial.partition("-")[0]).records
    common = {"trial": trial, "metrics": metrics, "time": 1.0}
    with open(folder / "0001-0000-0.jsonl", "a") as file:
        file.write(encode({"kind": "start", **common}))
        file.write(encode({"kind": "report", "step": 1, **common}))
        file.write(encode({"kind": "outcome", "state": "completed", "seconds": 1.0, **common}))


def tables(directory: SweepDirectory) -> list[Any]:
    files = sorted(directory.results.rglob("*.parquet"))
    return [pq.read_table(path, partitioning=None).replace_schema_metadata() for path in files]


def test_a_metric_of_a_later_stage_is_a_column_of_all(tmp_path: Path) -> None:
    space = {"parameters": {"lr": RATE}}
    one, other = (
        begin(tmp_path / name, [space] * 2, [[{"lr": 0.1}], [{"lr": 0.2}]]) for name in ("often", "backwards")
    )
    run(one, "coarse-0", acc=0.5, zeta=1.0)
    compact(one.path)
    run(one, "medium-0", acc=0.6, auc=0.9)
    compact(one.path)
    run(other, "medium-0", acc=0.6, auc=0.9)
    compact(other.path)
    run(other, "coarse-0", acc=0.5, zeta=1.0)
    compact(other.path)
    assert tables(one) == tables(other)
    trials = orchestrator.load_results(one.path).trials.set_index("trial_id")
    assert [name for name in map(str, trials) if name.startswith("metric.")] == [
        "metric.acc",
        "metric.auc",
        "metric.zeta",
    ]
    assert trials["metric.zeta"].isna().tolist() == [False, True]
    assert trials.loc["medium-0", "metric.auc"] == 0.9


def test_a_parameter_under_a_condition_comes_and_goes(tmp_path: Path) -> None:
    space = {"parameters": {"lr": RATE, "momentum": RATE, "kind": KINDS}}
    settings: list[list[dict[str, Any]]] = [
        [{"lr": 0.1, "kind": 16}],
        [{"lr": 0.2, "momentum": 0.9}, {"kind": "auto"}],
    ]
    directory = begin(tmp_path, [space] * 2, settings)
    for trial in ("coarse-0", "medium-0", "medium-1"):
        run(directory, trial, acc=0.5)
    compact(directory.path)
    schemas = [table.schema for table in tables(directory)[2:]]
    assert schemas[0] == schemas[1]
    trials = orchestrator.load_results(directory.path).trials
    assert trials["param.momentum"].isna().tolist() == [True, False, True]
    assert trials["param.lr"].isna().tolist() == [False, False, True]
    assert trials["param.kind"].fillna("none").tolist() == ["16", "none", "auto"]


def test_what_the_first_stage_holds_has_the_type_of_all_that_later_ones_try(tmp_path: Path) -> None:
    held = {"parameters": {"kind": {**KINDS, "values": [16]}, "lr": RATE}, "free": {"kind": KINDS}}
    free = {"parameters": {"kind": KINDS, "lr": RATE}}
    directory = begin(tmp_path, [held, free], [[{"kind": 16, "lr": 0.1}], [{"kind": "auto", "lr": 0.1}]])
    run(directory, "coarse-0", acc=0.5)
    compact(directory.path)
    run(directory, "medium-0", acc=0.6)
    compact(directory.path)
    trials = orchestrator.load_results(directory.path).trials
    assert trials["param.kind"].tolist() == ["16", "auto"]
    names = trials.columns.tolist()
    assert names.index("param.kind") < names.index("param.lr")


def test_a_whole_number_that_no_column_holds_is_null(tmp_path: Path) -> None:
    values = {"kind": "choice", "values": [16, 10**30], "reason": "as declared"}
    space = {"parameters": {"width": values}}
    directory = begin(tmp_path, [space] * 2, [[{"width": 16}, {"width": 10**30}], []])
    for trial in ("coarse-0", "coarse-1"):
        run(directory, trial, acc=0.5)
    assert compact(directory.path).trials == 2
    assert orchestrator.load_results(directory.path).trials["param.width"].isna().tolist() == [False, True]


def test_stages_that_come_later_change_nothing_of_what_is_there(tmp_path: Path) -> None:
    whole, growing = (
        SweepDirectory(make_sweep(tmp_path / name, trials=(20, 8, 4), finals=3)) for name in ("a", "b")
    )
    compact(whole.path)
    for later in (("medium", "fine"), ("fine",), ()):
        for name in later:
            shutil.move(growing.phase("stage", name).trials.parent, tmp_path / name)
        compact(growing.path)
        for name in later:
            shutil.move(tmp_path / name, growing.phase("stage", name).trials.parent)
    assert tables(growing) == tables(whole)
    assert read_json(growing.plan) == read_json(whole.plan)
