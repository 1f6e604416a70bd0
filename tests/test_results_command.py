"""`orchestrate results`: rows that are chosen, their order, formats, narrow terminals, what goes wrong."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

import orchestrator
from commands import command, environment
from made_sweep import HOSTILE, make_sweep
from orchestrator import UserError
from orchestrator.cli import main
from orchestrator.commands import results as results_command
from orchestrator.control import act
from orchestrator.report import export
from orchestrator.report.selecting import Results, Selected, Wish, read_results, select
from orchestrator.report.tabular import cell, table_lines, vertical_lines
from orchestrator.results.compact import compact


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_sweep(tmp_path_factory.mktemp("made") / "s", hostile=True)
    compact(path)
    return path


@pytest.fixture(scope="module")
def trials(sweep: Path) -> pd.DataFrame:
    return orchestrator.load_results(sweep).trials


def call(sweep: Path, *arguments: object, status: int = 0) -> Result:
    done = CliRunner().invoke(main, ["results", str(sweep), *map(str, arguments)])
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done


def rows(sweep: Path, *arguments: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(call(sweep, "--json", *arguments).stdout)
    return found


def test_conditions_stages_and_states_choose_trials(sweep: Path, trials: pd.DataFrame) -> None:
    found = rows(
        sweep, "--where", "objective > 0.8 and optimizer.lr < 0.02", "--stage", "fine", "--stage", "medium"
    )
    wanted = trials[(trials["objective"] > 0.8) & (trials["param.optimizer.lr"] < 0.02)]
    wanted = wanted[wanted["stage"].isin(["fine", "medium"])]
    assert sorted(row["trial_id"] for row in found) == sorted(wanted["trial_id"]) and found
    failed = rows(
        sweep, "--state", "failed", "--where", "error contains ValueError", "--where", "seconds < 1"
    )
    assert {row["trial_id"] for row in failed} == set(trials.loc[trials["state"] == "failed", "trial_id"])


def test_the_last_stage_comes_first_and_the_best_first_in_it(sweep: Path, trials: pd.DataFrame) -> None:
    found = rows(sweep)
    assert len(found) == len(trials)
    stages = [row["stage"] for row in found]
    assert list(dict.fromkeys(stages)) == ["final", "fine", "medium", "coarse"]
    coarse = [row["objective"] for row in found if row["stage"] == "coarse"]
    measured = [value for value in coarse if value is not None]
    assert measured == sorted(measured, reverse=True) and coarse[len(measured) :] == [None] * (
        len(coarse) - len(measured)
    )


def made(mode: str, **columns: list[Any]) -> Results:
    count = len(columns["objective"])
    filled = {"stage": ["a"] * count, "trial_id": [str(i) for i in range(count)], **columns}
    return Results(trials=pa.table(filled), curves=pa.table({}), stages=("a", "b"), mode=mode)


def ids(results: Results, **wish: Any) -> str:
    return "".join(select(results, Wish(**wish)).rows["trial_id"].to_pylist())


def test_what_was_stopped_or_diverged_is_not_the_best() -> None:
    states = ["completed", "diverged", "pruned", "completed", "failed"]
    values = [0.5, math.inf, 0.9, 0.7, None]
    assert ids(made("max", objective=values, state=states)) == "30214"
    assert ids(made("min", objective=values, state=states)) == "03214"
    # The last stage has none that could be the best.
    only = made("max", objective=[0.5, math.inf, None], state=states[:3], stage=["a", "b", "b"])
    assert ids(only, top=1) == "0"


def test_rows_are_sorted_by_several_columns_with_missing_values_last() -> None:
    results = made("max", objective=[0.1, 0.2, 0.1, None], state=["completed"] * 4, x=[1, 2, 3, 4])
    assert ids(results, sort=("objective,-x",)) == "2013"
    assert ids(results, sort=("-objective", "x")) == "1023"
    assert ids(results, sort=("-x",), top=2) == "32"
    stages = made("max", objective=[1.0, 1.0], state=["completed"] * 2, stage=["b", "a"])
    assert ids(stages, sort=("stage",)) == "10", "in the order of the ladder"


def test_columns_are_named_in_full_in_short_and_by_patterns(sweep: Path) -> None:
    (row,) = rows(sweep, "--columns", "objective,optimizer.lr,param.model.*", "--columns", "host", "--top", 1)
    assert list(row) == [
        *("objective", "param.optimizer.lr", "param.model.width", "param.model.dropout"),
        *("param.model.layers", "host"),
    ]  # fmt: skip


def test_all_formats_say_the_same(sweep: Path, trials: pd.DataFrame, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in call(sweep, "--format", "jsonl").stdout.splitlines()]
    assert lines == rows(sweep)
    read = list(csv.DictReader(io.StringIO(call(sweep, "--format", "csv").stdout)))
    assert [row["trial_id"] for row in read] == [row["trial_id"] for row in lines]
    for text, row in zip(read, lines, strict=True):
        for name, value in row.items():
            assert text[name] == ("" if value is None else str(value)), name
    call(sweep, "--output", tmp_path / "deep" / "r.parquet")
    table = pq.read_table(tmp_path / "deep" / "r.parquet")
    assert table.to_pylist() == lines and table.schema.field("param.model.width").type == pa.int64()
    assert table.schema.field("scale.classes").type == pa.int64(), "also where a stage has none"
    assert len(table) == len(trials) and set(table.column_names) == set(trials.columns)


def test_json_has_no_number_that_is_none() -> None:
    buffer = io.BytesIO()
    export._write_json(pa.table({"x": [1.0, math.nan, math.inf, None, 1e-12]}), buffer)
    assert json.loads(buffer.getvalue(), parse_constant=pytest.fail) == [
        {"x": value} for value in (1.0, None, None, None, 1e-12)
    ]
    empty = io.BytesIO()
    export._write_json(pa.table({"x": pa.array([], pa.float64())}), empty)
    assert json.loads(empty.getvalue()) == []


def test_the_curves_of_the_best_trials(sweep: Path) -> None:
    best = [row["trial_id"] for row in rows(sweep, "--stage", "fine", "--top", 2)]
    steps = rows(sweep, "--stage", "fine", "--top", 2, "--curves", "--where", "metric == 'train/loss'")
    assert {row["trial_id"] for row in steps} == set(best) and {row["metric"] for row in steps} == {
        "train/loss"
    }
    assert len(steps) == 2 * 10
    several = rows(
        sweep, "--curves", "--where", "objective > 0.5", "--where", "step == 1", "--sort", "-value"
    )
    values = [row["value"] for row in several]
    assert values == sorted(values, reverse=True) and len({row["trial_id"] for row in several}) > 20
    assert (
        "Give it as two" in call(sweep, "--curves", "--where", "objective > 1 and step > 1", status=2).stderr
    )


def test_the_steps_of_trials_under_way_are_there_too(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "s", trials=(4,), finals=0, tasks=1)
    (record,) = path.glob("stages/coarse/records/*.jsonl")
    kept = [line for line in record.read_text().splitlines(keepends=True) if '"outcome"' not in line]
    record.write_text("".join(kept))
    compact(path)
    assert "no results yet" in call(path, status=2).stderr
    assert len({row["trial_id"] for row in rows(path, "--curves")}) == 4
    assert rows(path, "--curves", "--top", 1) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--where", "objectve > 1"], "Did you mean 'objective'?"),
        (["--sort", "sceonds"], "--sort: there is no column 'sceonds'. Did you mean 'seconds'?"),
        (["--sort", "-"], "--sort: there is no column ''"),
        (["--columns", "foo.*"], "no column is like 'foo.*'"),
        (["--columns", ","], "--columns: names no column"),
        (["--columns", "dropuot"], "Did you mean"),
        (["--stage", "corse"], "Did you mean 'coarse'?"),
        (["--state", "complete"], "'complete' is not one of"),
        (["--top", "0"], "not in the range"),
        (["--format", "xml"], "'xml' is not one of"),
        (["--format", "csv", "--json"], "two formats"),
        (["--output", "x.foo"], "'.foo' is no kind of file"),
        (["--output", "x"], "the name has no ending"),
        (["--output", "x.csv", "--format", "json"], "would hold csv, not json"),
        (["--output", ".", "--format", "csv"], "is a folder"),
    ],
)
def test_what_is_wrong_is_said(sweep: Path, arguments: list[str], says: str) -> None:
    assert says in call(sweep, *arguments, status=2).stderr
    assert not Path("x.csv").exists()


def test_none_that_is_so_is_no_error_and_a_misspelt_value_is_named(sweep: Path) -> None:
    done = call(sweep, "--where", "state == completd", "--format", "csv")
    assert done.stdout.count("\n") == 1 and "none of 109 trials" in done.stderr
    assert "Did you mean 'completed'?" in done.stderr
    assert "none of 109" in call(sweep, "--where", "seconds > 1e9", "--json").stderr


def test_a_file_is_replaced_whole_or_not_at_all(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, link = tmp_path / "real.csv", tmp_path / "link.csv"
    target.write_text("as it was")
    link.symlink_to(target)

    def breaks(rows: pa.Table, file: Any) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setitem(export._WRITERS, "csv", breaks)
        assert "No space left" in call(sweep, "--output", link, status=1).stderr
    assert target.read_text() == "as it was" and len(list(tmp_path.iterdir())) == 2
    call(sweep, "--output", link, "--top", 1)
    assert link.is_symlink() and target.read_text().count("\n") == 2


def test_a_pipe_is_written_to_and_not_replaced(sweep: Path, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    call(sweep, "--output", pipe, "--format", "csv", "--top", 1)
    reader.join(10)
    assert pipe.is_fifo() and read[0].count("\n") == 2


def test_a_reader_that_has_seen_enough_is_no_error(sweep: Path) -> None:
    called = " ".join(command("results", sweep, "--format", "csv"))
    line = f"{called} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment())
    assert done.stdout.strip() == "0" and "Error" not in done.stderr and "Exception" not in done.stderr


def shown(results: Results, monkeypatch: pytest.MonkeyPatch, width: int, **changes: Any) -> list[str]:
    """What a person sees on a terminal of a width and 24 lines, standard error last."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "24")
    wish = {"vertical": False, "limited": True, "asked": False, "curves": False}
    selected = Selected(rows=results.trials, of=results.trials.num_rows)
    with CliRunner().isolation(color=False) as (out, err, *_):
        results_command._show(selected, **wish | changes)
        return [*out.getvalue().decode().splitlines(), *err.getvalue().decode().splitlines()]


@pytest.mark.parametrize("width", [30, 50, 80, 200])
def test_a_terminal_shows_what_fits_and_says_what_does_not(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    lines = shown(read_results(sweep), monkeypatch, width)
    text = " ".join(lines)
    assert max(map(cell_len, lines)) <= width and (len(lines) <= 24 or width < 50)
    assert "trial_id" in lines[0] and "the first 18 of 109 rows" in text
    assert ("seconds" in lines[0]) == (width == 200) == ("no room for" not in text)


def test_who_asks_for_columns_gets_them_all(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = read_results(sweep)
    lines = shown(results, monkeypatch, 50, asked=True)
    assert [line.split()[0] for line in lines[:2]] == ["stage", "sweep"] and "the first 1 of" in lines[-2]
    assert not any("no room" in line for line in lines)
    assert len(shown(results, monkeypatch, 400, limited=False)) == 110


def test_text_for_a_pipe_is_neither_cut_nor_wrapped(sweep: Path) -> None:
    lines = call(sweep, "--columns", "trial_id,error,mixed,param.<img*").stdout.splitlines()
    assert len(lines) == 110 and "\x1b" not in "".join(lines)
    assert any(HOSTILE[1] in line for line in lines)
    upright = call(sweep, "--state", "failed", "--top", 1, "--format", "vertical").stdout
    assert "Traceback ...\n" in upright and f"ValueError: {HOSTILE[1]}" in upright


def test_nothing_steers_the_terminal() -> None:
    row = {
        "a\x1b[2J": "red \x1b[31m\u2028x",
        "b": "two\nlines\r\n\n",
        "c": 0.123456,
        "d": None,
        "e": math.nan,
        "f": "🙂" * 60,
    }
    assert cell(row["b"]) == "lines"
    text = "\n".join([*table_lines([row], list(row), 200).lines, *vertical_lines([row], list(row), 60)])
    assert "\x1b" not in text and "\u2028" not in text and "\\x1b[31m" in text
    assert "0.1235" in text and "nan" not in text
    narrow = table_lines([row], ["f", "b"], 30)
    assert all(cell_len(line) <= 40 for line in narrow.lines) and narrow.dropped == ("b",)


def test_what_the_tasks_wrote_meanwhile_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: Path
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent / "benchmarks" / "orchestration"))
    path = importlib.import_module("scale").make(tmp_path / "s", 100, share=0.5, reports=1)
    assert len(rows(path)) == 50
    record = next(path.glob("stages/*/records/*.jsonl"))
    last = json.loads(record.read_text().splitlines()[-1])
    more = {"kind": "outcome", "state": "completed", "seconds": 1.0, "metrics": {"score": 2.0}, "error": ""}
    with record.open("a") as file:
        file.write(json.dumps({**more, "trial": last["trial"], "time": last["time"]}) + "\n{torn")
    assert rows(path, "--top", 1)[0]["trial_id"] == last["trial"]

    def refuse(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(act, "compact_results", refuse)
    done = call(path, "--format", "csv")
    assert done.stdout.count("\n") == 52 and "could not be added: [Errno 13]" in done.stderr


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = make_sweep(tmp_path / "s", trials=(4,), finals=0, tasks=1)
    compact(path)
    damaged = path / "results" / "trials" / "stage=coarse" / "data.parquet"
    damaged.write_bytes(b"PAR1 half")
    with pytest.raises(UserError, match=r"data\.parquet: is damaged"):
        read_results(path)
