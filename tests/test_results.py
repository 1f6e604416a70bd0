"""Records to Parquet: what counts, what is passed over, and that anybody can read it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import pyarrow.parquet as pq
import pytest

import orchestrator
from made_sweep import HOSTILE, METRIC, make_sweep
from orchestrator import UserError
from orchestrator.results.analysis import planned_trials, standing
from orchestrator.results.compact import Compacted, Scheduler, compact
from orchestrator.results.schema import coerce, parameter_type
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.files import read_json, write_json
from orchestrator.sweep.records import encode

SPACE: dict[str, Any] = {
    "lr": {"kind": "float", "low": 1e-4, "high": 1.0, "log": True, "reason": "as declared"},
    "width": {"kind": "choice", "values": [16, 32], "reason": "as declared"},
}


def small(path: Path, files: dict[str, list[dict[str, Any]] | str], mode: str = "max") -> Path:
    """A sweep of one stage with the trials a and b, and these record files."""
    directory = SweepDirectory(path)
    scale = {"data": 0.5, "classes": None, "epochs": 4}
    phase = {"kind": "stage", "name": "coarse", "trials": 2, "samples": 50, "scale": scale, "tasks": 1}
    plan = {"version": 1, "name": "small", "metric": {"name": "acc", "mode": mode}, "phases": [phase]}
    write_json(directory.plan, plan)
    folder = directory.phase("stage", "coarse")
    write_json(folder.space, {"stage": "coarse", "parameters": SPACE})
    params = {"lr": 0.1, "width": 16}
    write_trials(
        folder.trials, [TrialSpec(trial_id=t, setting_id=f"s{t}", params=params, seed=0) for t in ("a", "b")]
    )
    folder.records.mkdir(parents=True)
    for name, lines in files.items():
        text = lines if isinstance(lines, str) else "".join(map(encode, lines))
        (folder.records / name).write_text(text)
    return path


def task(gpus: float = 2, submission: int = 1) -> dict[str, Any]:
    return {"kind": "task", "submission": submission, "host": "n1", "slurm_job_id": "7_1", "gpus": gpus}


def start(trial: str) -> dict[str, Any]:
    return {"kind": "start", "trial": trial, "time": 1.0}


def report(trial: str, step: int, **metrics: float) -> dict[str, Any]:
    return {"kind": "report", "trial": trial, "step": step, "metrics": metrics, "time": 100.0 + step}


def outcome(trial: str, state: str = "completed", seconds: float = 3.0, **metrics: float) -> dict[str, Any]:
    line = {"kind": "outcome", "trial": trial, "state": state, "metrics": metrics, "time": 200.0}
    return {**line, "seconds": seconds, "error": "boom" if state == "failed" else ""}


def curve(sweep: Path, metric: str = "acc", trial: str = "a") -> list[tuple[int, float]]:
    rows = orchestrator.load_results(sweep).curves
    rows = rows[(rows["trial_id"] == trial) & (rows["metric"] == metric)]
    return list(zip(rows["step"].tolist(), rows["value"].tolist(), strict=True))


def test_a_made_sweep_has_one_row_for_each_trial_and_step(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(20, 8, 4), finals=3)
    compacted = compact(sweep)
    assert compacted.trials == 20 + 8 + 4 + 3
    assert compacted.unreadable == 0
    results = orchestrator.load_results(sweep)
    assert results.stages == ["coarse", "medium", "fine", "final"]
    assert results.trials["trial_id"].is_unique
    assert not results.curves.duplicated(["trial_id", "step", "metric"]).any()
    assert len(results.curves) == compacted.curves
    assert set(results.trials["state"]) >= {"completed", "failed"}
    assert results.parameters == ["optimizer.lr", "model.width", "model.dropout", "model.layers"]
    assert results.ensemble is not None
    assert list(results.spaces) == ["coarse", "medium", "fine"]
    completed = results.trials[results.trials["state"] == "completed"]
    assert (completed["objective"] == completed[f"metric.{METRIC}"]).all()
    assert (completed["gpu_seconds"] == completed["seconds"]).all()  # one GPU each


def test_pandas_alone_reads_the_dataset(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(20, 8), finals=0)
    compact(sweep)
    trials = pd.read_parquet(sweep / "results" / "trials")
    assert trials.groupby("stage", observed=True).size().to_dict() == {"coarse": 20, "medium": 8}
    curves = pd.read_parquet(sweep / "results" / "curves")
    assert set(curves.columns) == {"trial_id", "step", "metric", "value", "time", "stage"}


def test_the_schema_is_the_same_for_every_stage_and_plain(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", done=0.3, hostile=True)  # later stages have nothing yet
    compact(sweep)
    for name in ("trials", "curves"):
        schemas = [pq.read_schema(path) for path in sorted((sweep / "results" / name).glob("*/*.parquet"))]
        assert len(schemas) == 4
        assert all(schema.equals(schemas[0]) for schema in schemas)
        assert {str(kind) for kind in schemas[0].types} <= {"double", "int64", "string"}
        assert "stage" not in schemas[0].names


def test_a_sweep_without_records_has_empty_tables(tmp_path: Path) -> None:
    sweep = small(tmp_path, {})
    assert compact(sweep) == Compacted(trials=0, curves=0, unreadable=0)
    results = orchestrator.load_results(sweep)
    assert results.trials.empty
    assert {"param.lr", "param.width", "metric.acc", "objective"} <= set(results.trials.columns)
    assert results.best().empty


def test_only_sweeps_with_results_are_loaded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sweep's directory"):
        orchestrator.load_results(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no sweep's directory"):
        compact(tmp_path / "nowhere")
    sweep = small(tmp_path / "s", {})
    with pytest.raises(UserError, match="no results yet"):
        orchestrator.load_results(sweep)


def test_a_resumed_trial_keeps_the_steps_before_it_took_up(tmp_path: Path) -> None:
    killed = [task(), start("a"), *(report("a", step, acc=0.1 * step, only=step) for step in (1, 2, 3))]
    resumed = [task(), start("a"), report("a", 3, acc=0.35), report("a", 4, acc=0.4), outcome("a", acc=0.4)]
    sweep = small(tmp_path, {"1-0-9.jsonl": killed, "1-0-10.jsonl": resumed})
    compact(sweep)
    assert curve(sweep) == [(1, 0.1), (2, 0.2), (3, 0.35), (4, 0.4)]
    assert curve(sweep, "only") == [(1, 1.0), (2, 2.0)]
    row = orchestrator.load_results(sweep).trials.iloc[0]
    assert (row["attempts"], row["objective"], row["gpu_seconds"]) == (2, 0.4, 6.0)


def test_a_trial_begun_anew_has_nothing_of_the_attempt_before(tmp_path: Path) -> None:
    failed = [
        task(), start("a"), *(report("a", step, acc=0.9) for step in (1, 2, 3)), outcome("a", "failed"),
    ]  # fmt: skip
    anew = [task(submission=2), start("a"), report("a", 1, acc=0.5), outcome("a", "pruned", acc=0.5)]
    sweep = small(tmp_path, {"1-0-1.jsonl": failed, "2-0-1.jsonl": anew})
    compact(sweep)
    assert curve(sweep) == [(1, 0.5)]


def test_a_trial_that_ran_twice_counts_once_and_the_first_wins(tmp_path: Path) -> None:
    first = [task(submission=2), start("a"), report("a", 1, acc=0.6), outcome("a", acc=0.6)]
    again = [task(submission=10), start("a"), report("a", 1, acc=0.7), report("a", 2, acc=0.8)]
    again.append(outcome("a", acc=0.8))
    sweep = small(tmp_path, {"10-0-1.jsonl": again, "2-0-1.jsonl": first})
    compact(sweep)
    assert curve(sweep) == [(1, 0.6)]
    trials = orchestrator.load_results(sweep).trials
    assert trials["objective"].tolist() == [0.6]
    assert trials["attempts"].tolist() == [2]


def test_a_trial_repeated_within_one_file_has_its_last_start(tmp_path: Path) -> None:
    lines = [task(), start("a"), report("a", 1, acc=0.1), report("a", 2, acc=0.2), outcome("a", "failed")]
    lines += [start("a"), report("a", 1, acc=0.2), report("a", 1, acc=0.3), outcome("a", acc=0.3)]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    compact(sweep)
    assert curve(sweep) == [(1, 0.3)]


def test_what_was_only_reported_is_taken_where_the_metric_was_best(tmp_path: Path) -> None:
    lines = [task(), start("a")]
    lines += [report("a", step, acc=acc, loss=float(step)) for step, acc in ((1, 0.2), (2, 0.9), (3, 0.5))]
    lines += [outcome("a", acc=0.5, final_only=7.0)]
    for mode, best in (("max", 2.0), ("min", 1.0)):
        sweep = small(tmp_path / mode, {"1-0-1.jsonl": lines}, mode=mode)
        compact(sweep)
        row = orchestrator.load_results(sweep).trials.iloc[0]
        assert (row["metric.loss"], row["metric.acc"], row["metric.final_only"]) == (best, 0.5, 7.0)


def test_torn_and_senseless_lines_are_counted_and_passed_over(tmp_path: Path) -> None:
    good = [task(), start("a"), report("a", 1, acc=0.5), outcome("a", acc=0.5)]
    bad: list[dict[str, Any]] = [
        {"kind": "report", "trial": "a", "step": "x", "metrics": {"acc": 1}},
        {"kind": "report", "trial": "a", "step": 1e300, "metrics": {"acc": 1}},
        {"kind": "report", "trial": "a", "step": 2, "metrics": [1]},
        {"kind": "outcome", "trial": "b", "state": "completed", "metrics": [1]},
        {"kind": "outcome", "trial": "b", "state": "exploded", "metrics": {}},
    ]
    extra: list[dict[str, Any]] = [
        {"kind": "weather", "trial": "a"},
        {**start("b"), "colour": "red"},
        report("zz", 1, acc=9),
    ]
    text = "".join(map(encode, [*good, *bad, *extra])) + '[1]\nnull\n{"kind":"report","tri'
    sweep = small(tmp_path, {"1-0-1.jsonl": text, "2-0-1.jsonl": "\x00\xff\n", "junk.txt": "x"})
    compacted = compact(sweep)
    assert compacted == Compacted(trials=1, curves=1, unreadable=len(bad) + 3 + 1)


def test_numbers_that_are_none_become_null(tmp_path: Path) -> None:
    lines = [task(), start("a"), report("a", 1, acc=math.nan, loss=math.inf)]
    lines += [outcome("a", "diverged", acc=math.nan), start("b"), outcome("b", "failed", acc=0.9)]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    compact(sweep)
    table = pq.read_table(sweep / "results/trials/stage=coarse/data.parquet")
    assert table["objective"].to_pylist() == [None, None]
    assert table["metric.loss"].to_pylist() == [math.inf, None]
    assert table["error"].to_pylist() == ["", "boom"]
    assert pq.read_table(sweep / "results/curves/stage=coarse/data.parquet")["value"].to_pylist() == [
        None,
        math.inf,
    ]


def test_given_up_trials_are_failures_unless_they_have_an_outcome(tmp_path: Path) -> None:
    lines = [task(), start("a"), outcome("a", acc=0.5), start("b")]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    assert compact(sweep, given_up={"a": "lost", "b": "its node died 3 times", "zz": "?"}).trials == 2
    a, b = orchestrator.load_results(sweep).trials.to_dict("records")
    assert (a["state"], a["error"]) == ("completed", "")
    assert (b["state"], b["error"], b["attempts"]) == ("failed", "its node died 3 times", 1)
    assert math.isnan(b["seconds"])


def test_strings_come_through_unharmed(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", hostile=True)
    compact(sweep)
    results = orchestrator.load_results(sweep)
    coarse = results.at("coarse")
    assert set(coarse["param.<img src=x onerror=alert(1)>"]) == set(HOSTILE)
    assert set(coarse["param.mixed"]) == {"true", "null", "1.5", "é"}
    assert any(HOSTILE[1] in error and "🙂" in error for error in coarse["error"])  # the surrogate is a "?"


def one_by_one(tasks: Sequence[Any], size: int) -> list[Any]:
    return list(dask.compute(*tasks, scheduler=dask.get))


@pytest.mark.parametrize("scheduler", [None, one_by_one])
def test_the_outcome_does_not_depend_on_the_order_of_lines_files_and_threads(
    tmp_path: Path, scheduler: Scheduler | None
) -> None:
    def tables(sweep: Path) -> list[dict[str, Any]]:
        compact(sweep, scheduler=scheduler)
        files = sorted((sweep / "results").rglob("*.parquet"))
        return [pq.read_table(path, partitioning=None).to_pydict() for path in files]

    usual = make_sweep(tmp_path / "a", trials=(40,), finals=0, tasks=40)
    shuffled = make_sweep(tmp_path / "b", trials=(40,), finals=0, tasks=40)
    for path in shuffled.glob("stages/*/records/*.jsonl"):  # one trial in each file
        header, *lines = path.read_text().splitlines(keepends=True)
        reports = [line for line in lines if json.loads(line)["kind"] == "report"]
        random.Random(1).shuffle(reports)
        others = [line for line in lines if json.loads(line)["kind"] != "report"]
        path.write_text("".join([header, others[0], *reports, *others[1:]]))
    assert repr(tables(usual)) == repr(tables(shuffled))


def test_compacting_again_replaces_files_and_leaves_no_others(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(8,), finals=0)
    compact(sweep)
    with open(sweep / "results/trials/stage=coarse/data.parquet", "rb") as held:  # a reader in the middle
        compact(sweep)
        assert pq.read_table(held).num_rows == 8
    assert (
        sorted(path.name for path in (sweep / "results").rglob("*") if path.is_file()) == ["data.parquet"] * 2
    )


def test_files_of_different_moments_are_read_together(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(8, 4), finals=0)
    compact(sweep)
    path = sweep / "results/trials/stage=medium/data.parquet"
    pq.write_table(pq.ParquetFile(path).read().drop_columns(["metric.val/loss"]), path)
    trials = orchestrator.load_results(sweep).trials
    assert trials.loc[trials["stage"] == "medium", "metric.val/loss"].isna().all()


def test_best_is_of_the_last_stage_and_in_the_metrics_direction(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(20, 8), finals=3)
    compact(sweep)
    results = orchestrator.load_results(sweep)
    assert set(results.best(3)["stage"]) == {"final"}
    coarse = results.best(5, "coarse")["objective"].tolist()
    assert coarse == sorted(results.at("coarse")["objective"].dropna(), reverse=True)[:5]
    with pytest.raises(UserError, match="Did you mean 'coarse'"):
        results.best(1, "corse")
    lines = [task(), start("a"), outcome("a", acc=0.5), start("b"), outcome("b", acc=0.4)]
    lowest = small(tmp_path / "min", {"1-0-1.jsonl": lines}, mode="min")
    compact(lowest)
    assert orchestrator.load_results(lowest).best()["trial_id"].tolist() == ["b"]


def test_what_was_stopped_early_comes_after_all_that_ran_to_the_end(tmp_path: Path) -> None:
    lines = [task(), start("a"), outcome("a", "pruned", acc=0.9), start("b"), outcome("b", acc=0.4)]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    compact(sweep)
    assert orchestrator.load_results(sweep).best(2)["trial_id"].tolist() == ["b", "a"]


def test_what_diverged_upwards_is_not_the_best(tmp_path: Path) -> None:
    lines = [task(), start("a"), outcome("a", "diverged", acc=math.inf), start("b"), outcome("b", acc=0.4)]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    compact(sweep)
    assert orchestrator.load_results(sweep).best(2)["trial_id"].tolist() == ["b"]


def test_trials_of_later_waves_have_their_rows_and_are_planned(tmp_path: Path) -> None:
    lines = [task(), *(line for t in "abc" for line in (start(t), outcome(t, acc=0.5)))]
    sweep = small(tmp_path, {"1-0-1.jsonl": lines})
    plan = read_json(sweep / "plan.json")
    plan["phases"][0] |= {"trials": 3, "waves": 2, "repeats": 2}
    write_json(sweep / "plan.json", plan)
    compact(sweep)
    results = orchestrator.load_results(sweep)
    assert list(results.trials["trial_id"]) == ["a", "b"], "c is no trial of the first wave"
    assert planned_trials(results) == {"coarse": 5}
    folder = SweepDirectory(sweep).phase("stage", "coarse")
    params = {"lr": 0.1, "width": 16}
    write_trials(folder.wave(1), [TrialSpec(trial_id="c", setting_id="sc", params=params, seed=0)])
    write_trials(folder.wave(2), [])
    compact(sweep)
    results = orchestrator.load_results(sweep)
    assert list(results.trials["trial_id"]) == ["a", "b", "c"]
    assert planned_trials(results) == {"coarse": 3}, "nothing was worth repeating"
    assert standing(results) == "finished"


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ({"kind": "float"}, "double"),
        ({"kind": "int"}, "int64"),
        ({"kind": "choice", "values": [1, 2]}, "int64"),
        ({"kind": "choice", "values": [1, 0.5]}, "double"),
        ({"kind": "choice", "values": [True, False]}, "string"),
        ({"kind": "choice", "values": [1, "a"]}, "string"),
        ({"kind": "choice", "values": [[1, 2], None]}, "string"),
    ],
)
def test_column_types_follow_the_space(spec: dict[str, Any], kind: str) -> None:
    assert str(parameter_type(spec)) == kind


def test_a_value_that_its_column_cannot_hold_is_null() -> None:
    whole, real = parameter_type({"kind": "int"}), parameter_type({"kind": "float"})
    assert [coerce(value, whole) for value in (3, 3.0, 3.5, math.inf, "3", None)] == [
        3,
        3,
        None,
        None,
        None,
        None,
    ]
    assert [coerce(value, real) for value in (3, "x", math.nan)] == [3.0, None, None]


def test_a_row_says_on_what_it_ran_and_why_it_failed(tmp_path: Path) -> None:
    first = {**task(submission=1), "gpu": "NVIDIA A100", "git_commit": "abc-dirty"}
    second = {**task(submission=2), "gpu": "NVIDIA H200", "git_commit": "def"}
    files: dict[str, list[dict[str, Any]] | str] = {
        "0001-0000-0.jsonl": [first, {**outcome("a", "failed"), "cause": "memory"}],
        "0002-0000-0.jsonl": [second, {**outcome("a", "failed"), "cause": "hung"}],
    }
    sweep = small(tmp_path / "s", files)
    compact(sweep, given_up={"b": "ended by the cluster"})
    trials = orchestrator.load_results(sweep).trials
    rows = trials[["trial_id", "gpu", "git_commit", "diagnosis"]].to_numpy().tolist()
    assert rows == [["a", "NVIDIA H200", "def", "hung"], ["b", "", "", ""]]


@pytest.mark.parametrize(
    ("state", "cause", "diagnosis"),
    [
        ("failed", "memory", "out of memory"),
        ("failed", "no progress", "no progress"),
        ("failed", "", ""),
        ("failed", "new in a later version", ""),
        ("completed", "memory", ""),
    ],
)
def test_a_diagnosis_is_a_word_of_the_cause(tmp_path: Path, state: str, cause: str, diagnosis: str) -> None:
    # A header of an older version has neither GPU nor commit, and one may be spoiled.
    lines = [{**task(), "gpu": None}, {**outcome("a", state, acc=0.5), "cause": cause}]
    sweep = small(tmp_path / "s", {"0001-0000-0.jsonl": lines})
    compact(sweep)
    (row,) = orchestrator.load_results(sweep).trials.to_dict("records")
    assert row["diagnosis"] == diagnosis and row["git_commit"] == ""
