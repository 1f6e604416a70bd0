"""Compacting again: only what is new is read, and the tables are those that one reading of all would give."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_sweep import make_sweep
from orchestrator.results import fragments
from orchestrator.results.compact import compact
from orchestrator.results.fragments import Fragment
from orchestrator.results.reports import Lines
from orchestrator.sweep.directory import SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import encode

TRIALS = ("a", "b", "c")
SPACE = {"lr": {"kind": "float", "low": 0.0, "high": 1.0, "log": False, "reason": "as declared"}}


def tables(sweep: Path) -> list[dict[str, Any]]:
    return [
        pq.read_table(sweep / f"results/{name}/stage=coarse/data.parquet", partitioning=None).to_pydict()
        for name in ("trials", "curves")
    ]


def one_by_one(tasks: Sequence[Any], size: int) -> list[Any]:
    return list(dask.compute(*tasks, scheduler=dask.get))


def begin(path: Path) -> Path:
    directory = SweepDirectory(path)
    phase = {"kind": "stage", "name": "coarse", "trials": 3, "samples": 50, "scale": {}, "tasks": 1}
    plan = {"version": 1, "name": "s", "metric": {"name": "acc", "mode": "max"}, "phases": [phase]}
    write_json(directory.plan, plan)
    folder = directory.phase("stage", "coarse")
    write_json(folder.space, {"stage": "coarse", "parameters": SPACE})
    specs = [TrialSpec(trial_id=t, setting_id=f"s{t}", params={"lr": 0.1}, seed=0) for t in TRIALS]
    write_trials(folder.wave(0), specs[:2])
    write_trials(folder.wave(1), specs[2:])
    folder.records.mkdir(parents=True)
    return path


# A metric may be reported by one attempt alone, whose steps another one replaces.
measured = st.dictionaries(st.sampled_from(("acc", "loss", "a third")), st.floats(0, 1), max_size=3)


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A line of a record file: of any kind, or torn, or of an unknown trial."""
    trial = draw(st.sampled_from((*TRIALS, "nobody")))
    kind = draw(st.sampled_from(("start", "report", "report", "outcome", "finding", "torn")))
    if kind == "torn":
        return '{"kind": "rep'
    more: dict[str, Any] = {"time": draw(st.sampled_from((1.0, 2.0, 3.0)))}
    if kind == "report":
        more |= {"step": draw(st.integers(1, 4)), "metrics": draw(measured)}
    elif kind == "outcome":
        state = draw(st.sampled_from(("completed", "failed", "diverged")))
        more |= {"state": state, "metrics": draw(measured), "seconds": 1.0, "error": "e"}
    elif kind == "finding":
        more |= {"code": "plateau", "evidence": "so", "advice": "", "step": 2}
    return encode({"kind": kind, "trial": trial, **more})


Steps = list[tuple[str, str, bool]]
steps = st.lists(
    st.tuples(
        st.sampled_from(("0001-0000-0.jsonl", "0001-0001-0.jsonl", "0002-0000-0.jsonl")),
        lines(),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None)
@given(written=steps, given_up=st.dictionaries(st.sampled_from(TRIALS), st.just("gone")))
def test_compacting_on_the_way_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, written: Steps, given_up: dict[str, str]
) -> None:
    often, once = (begin(tmp_path_factory.mktemp("sweep")) for _ in range(2))
    for name, line, now in written:
        for sweep in (often, once):
            with open(sweep / "stages/coarse/records" / name, "a") as file:
                file.write(line)
        if now:
            compact(often, scheduler=one_by_one)
    counts = [compact(sweep, given_up=given_up, scheduler=one_by_one) for sweep in (often, once)]
    assert counts[0] == counts[1]
    assert repr(tables(often)) == repr(tables(once))


def read_names(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Remember which record files are read."""
    names: list[str] = []
    read = fragments.read_fragment

    def remembering(path: Path, number: int) -> tuple[Fragment, Lines]:
        names.append(path.name)
        return read(path, number)

    monkeypatch.setattr(fragments, "read_fragment", remembering)
    return names


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(40,), finals=0, tasks=8)
    names = read_names(monkeypatch)
    compact(sweep)
    assert len(names) == 8
    before = os.stat(sweep / "results/trials/stage=coarse/data.parquet").st_mtime_ns
    names.clear()
    assert compact(sweep).trials == 40
    assert names == []
    assert os.stat(sweep / "results/trials/stage=coarse/data.parquet").st_mtime_ns == before
    records = sorted((sweep / "stages/coarse/records").iterdir())
    with open(records[3], "a") as file:
        file.write('{"torn')
    assert compact(sweep).unreadable == 1
    assert names == [records[3].name]


def test_files_that_do_not_belong_together_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(8,), finals=0, tasks=2)
    compact(sweep)
    whole = tables(sweep)
    path = sweep / "results/curves/stage=coarse/data.parquet"
    other = path.read_bytes()
    first = min((sweep / "stages/coarse/records").iterdir())
    with open(first, "a") as file:
        file.write(encode({"kind": "start", "trial": "coarse-00000", "time": 5.0}))
    compact(sweep)
    path.write_bytes(other)  # as if another process had written its curves last
    names = read_names(monkeypatch)
    compact(sweep)
    assert len(names) == 2
    assert tables(sweep)[1] == whole[1]
    path.write_bytes(other[: len(other) // 2])
    compact(sweep)
    assert tables(sweep)[1] == whole[1]


def test_a_record_file_that_is_gone_takes_its_rows_with_it(tmp_path: Path) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(8,), finals=0, tasks=4)
    compact(sweep)
    sorted((sweep / "stages/coarse/records").iterdir())[1].unlink()
    assert compact(sweep).trials == 6
