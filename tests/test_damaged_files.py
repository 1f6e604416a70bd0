"""Files of a sweep that are damaged: the commands go on with what makes sense, or name the file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_damage import Damage, append, garbled, half, holding, record_file, report, rows
from test_old_sweep import told, unpacked

from orchestrator.errors import UserError
from orchestrator.report.checks import checks_table, range_test_figures
from orchestrator.results.compact import compact, stage_files
from orchestrator.results.load import Results, load_results
from orchestrator.results.tables import DamagedTable
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json, write_json
from orchestrator.sweep.submissions import read_submissions


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished sweep: 12, 6 and 4 trials; its metric is `score`, its parameters are lr and width."""
    return unpacked("issue-7", "plain", tmp_path)


COARSE = "stages/coarse"


@pytest.mark.parametrize(
    ("file", "command"),
    [
        ("plan.json", "status"),
        ("sweep.yaml", "status"),
        (f"{COARSE}/space.json", "status"),
        (f"{COARSE}/space.json", "report"),
        (f"{COARSE}/trials.parquet", "status"),
        (f"{COARSE}/trials.parquet", "run"),
        (f"{COARSE}/submissions/0001.intent.json", "status"),
        (f"{COARSE}/submissions/0001.receipt.json", "advance"),
        ("ensemble/ensemble.json", "status"),
        ("retries/0001.json", "status"),
        ("budgets/0001.json", "status"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_lost(file: str, command: str, sweep: Path) -> None:
    path = sweep / file
    (sweep / "done.json").unlink()
    there = path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    damages: list[Damage] = [half if there else garbled]
    if path.suffix == ".json":
        damages += [holding("[1]"), holding('{"a": 1}')]
    whole = path.read_bytes() if there else b""
    for damage in damages:
        path.write_bytes(whole)
        damage(path)
        if path.name == "ensemble.json" and path.read_bytes() == b'{"a": 1}':
            continue  # of which every part may be missing
        before = {each: each.read_bytes() for each in sweep.glob("stages/**/*") if each.is_file()}
        message = told(command, sweep, status=2)
        assert message.startswith(f"error: {path}: "), message
        assert len(message.splitlines()) == 1
        assert {each: each.read_bytes() for each in sweep.glob("stages/**/*") if each.is_file()} == before


INTENT = {
    "number": 1,
    "token": "t",
    "tasks": [["coarse-00000"], ["coarse-00001"]],
    "created": 1.0,
    "host": "h",
}
RECEIPT = {"jobs": ["1@2.0@h", "2@2.0@h"], "host": "h"}
LOSS = {"reason": "NODE_FAIL", "blamed": ["a"], "cause": "node"}
REFUSAL = {"reason": "full", "time": 1.0, "refused": True, "full": True}
WISH = {"phase": "coarse", "trials": ["a"], "submission": 1}
SENT = f"{COARSE}/submissions/0001"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        (f"{SENT}.intent.json", INTENT | {"created": "x"}, "got `str` - at `$.created`"),
        (f"{SENT}.intent.json", INTENT | {"number": 2}, "it has the number 2"),
        (f"{SENT}.intent.json", INTENT | {"tasks": [["a"], 3]}, "got `int` - at `$.tasks[1]`"),
        (f"{SENT}.receipt.json", RECEIPT | {"jobs": "x"}, "got `str` - at `$.jobs`"),
        (f"{SENT}.receipt.json", RECEIPT | {"jobs": ["x"]}, "has 1 jobs for the 2 tasks of its submission"),
        (f"{SENT}.receipt.json", {"host": "h"}, "missing required field `jobs`"),
        (f"{SENT}.lost-0000.json", LOSS | {"blamed": [["a"]]}, "got `array` - at `$.blamed[0]`"),
        (f"{SENT}.lost-0007.json", LOSS, "is about a task that submission 1 has not: it has 2"),
        (f"{SENT}.abandoned.json", REFUSAL | {"time": 10**400}, "at `$.time`"),
        (f"{SENT}.abandoned.json", REFUSAL | {"full": 1}, "got `int` - at `$.full`"),
        ("retries/0001.json", WISH, "it is no list"),
        ("retries/0001.json", [WISH | {"submission": None}], "got `null` - at `$.submission`"),
    ],
)
def test_a_fact_of_another_kind_is_named(file: str, content: object, words: str, sweep: Path) -> None:
    (sweep / "done.json").unlink()
    write_json(sweep / f"{SENT}.intent.json", INTENT)
    write_json(sweep / f"{SENT}.receipt.json", RECEIPT)
    write_json(sweep / file, content)
    message = told("status", sweep, status=2)
    assert message.startswith(f"error: {sweep / file}: ")
    assert words in message
    assert len(message.splitlines()) == 1


def test_the_facts_that_get_spoiled_are_good(sweep: Path) -> None:
    sent = {"intent": INTENT, "receipt": RECEIPT, "lost-0000": LOSS, "abandoned": REFUSAL}
    for name, content in sent.items():
        write_json(sweep / f"{SENT}.{name}.json", content)
    write_json(sweep / "retries/0001.json", [WISH])
    (submission,) = read_submissions(SweepDirectory(sweep).phase("stage", "coarse").submissions)
    assert (submission.number, submission.abandoned, list(submission.losses)) == (1, True, [0])
    told("status", sweep)


@pytest.mark.parametrize("job", ["x", "7", "-3@1.0@h", "7@soon@h"])
def test_a_job_that_is_none_of_this_machine_is_named(job: str, sweep: Path) -> None:
    record_file(sweep).unlink()  # so that it is asked whether its task is alive
    write_json(sweep / f"{SENT}.receipt.json", {"jobs": [job], "host": ""})
    assert told("status", sweep, status=2).startswith(f"error: the job '{job}' is no PROCESS@START@HOST. ")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"phases": []}, "it has no phases"),
        ({"total": {"hours": []}}, "Expected `float | null`, got `array` - at `$.total.hours`"),
        ({"uid": 7}, "Expected `str`, got `int` - at `$.uid`"),
    ],
)
def test_a_plan_of_another_kind_is_named(change: dict[str, object], words: str, sweep: Path) -> None:
    path = SweepDirectory(sweep).plan
    write_json(path, read_json(path) | change)
    assert told("status", sweep, status=2).startswith(
        f"error: {path}: not a plan of this version ({words}). "
    )


def test_what_only_helps_may_be_damaged(sweep: Path) -> None:
    for damage in (half, garbled, holding("[1]")):
        for file in ("provenance.json", "results/compacted.json", "done.json", "lease/000001.json"):
            damage(sweep / file)
        assert json.loads(told("status", sweep, "--json"))["state"] in ("done", "running")
    assert len(rows(sweep)) == 22


@pytest.mark.parametrize("show", [checks_table, range_test_figures])
def test_damaged_checks_are_named_by_the_report(show: Callable[[Results], object], sweep: Path) -> None:
    results = load_results(sweep)
    directory = SweepDirectory(sweep)
    path = directory.checks_result if show is checks_table else directory.range_test
    path.parent.mkdir(exist_ok=True)
    for content in ("", "[1]", "null", '{"checks": [{}], "rates": 1}'):
        path.write_text(content)
        with pytest.raises(UserError, match=re.escape(f"{path}: not ")):
            show(results)


@pytest.mark.parametrize("damage", [half, garbled, holding(""), lambda path: path.write_bytes(b"\0" * 5000)])
def test_damaged_records_are_read_as_far_as_they_go(damage: Damage, sweep: Path) -> None:
    damage(record_file(sweep, "fine"))
    standing = json.loads(told("status", sweep, "--json"))
    fine = next(phase for phase in standing["phases"] if phase["name"] == "fine")
    assert 0 <= fine["completed"] < 6
    compact(sweep)
    kept = [name for name, row in rows(sweep).items() if row["stage"] == "fine"]
    assert len(kept) == fine["completed"]
    assert sum(row["stage"] == "coarse" for row in rows(sweep).values()) == 12


@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("damage", [half, garbled, holding("")])
def test_damaged_results_are_made_anew_from_the_records(damage: Damage, table: int, sweep: Path) -> None:
    compact(sweep)
    before = load_results(sweep)
    damage(stage_files(SweepDirectory(sweep), "coarse")[table])
    with pytest.raises(DamagedTable, match="Delete it, and make it anew from the records"):
        load_results(sweep)
    compact(sweep)
    after = load_results(sweep)
    pd.testing.assert_frame_equal(after.trials, before.trials)
    pd.testing.assert_frame_equal(after.curves, before.curves)


@pytest.mark.parametrize("table", [0, 1])
def test_results_with_a_damaged_middle_are_made_anew_when_something_new_is_added(
    table: int, sweep: Path
) -> None:
    compact(sweep)
    before = load_results(sweep)
    path = stage_files(SweepDirectory(sweep), "coarse")[table]
    content = path.read_bytes()
    # Its footer is sound, so it is not seen to be damaged before it is read.
    path.write_bytes(content[:4] + b"\xff" * 400 + content[404:])
    append(record_file(sweep), report("coarse-00000", step=7, time=0.1))
    compact(sweep)
    after = load_results(sweep)
    pd.testing.assert_frame_equal(after.trials, before.trials)
    assert len(after.curves) >= len(before.curves)


def test_a_newer_or_damaged_ensemble_is_refused_wherever_it_is_shown(sweep: Path) -> None:
    path = SweepDirectory(sweep).ensemble_result
    for content, words in (
        ({"version": 3}, "version 3 of this file is newer than this program, which reads 2"),
        ([1], "this is no result of an ensemble"),
    ):
        write_json(path, content)
        for command in ("status", "run"):
            assert words in told(command, sweep, status=2)


def test_a_choice_that_is_damaged_is_named(tmp_path: Path) -> None:
    sweep = unpacked("issue-7", "wine", tmp_path)
    for content in ("", "[]", "{}"):
        (sweep / "ensemble" / "choice.json").write_text(content)
        assert re.match(r"error: \S+choice.json: not ", told("ensemble", sweep, status=2))
    assert read_json(SweepDirectory(sweep).ensemble_result)["members"]
