"""Bad input to what a user looks at: records, names, files and programs that are not as they should be.

Each is shown to the commands: they go on with what makes sense, or say in one line which file is wrong.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from optuna.storages.journal import JournalFileSymlinkLock
from test_old_sweep import told, unpacked

from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.errors import UserError
from orchestrator.integrations import optuna_storage
from orchestrator.programs import patterns
from orchestrator.report.checks import checks_table, range_test_figures
from orchestrator.results.compact import compact, stage_files
from orchestrator.results.load import Results, load_results
from orchestrator.results.tables import DamagedTable
from orchestrator.sweep.directory import SweepDirectory, read_trials
from orchestrator.sweep.files import read_json, write_json
from orchestrator.sweep.records import STATES, encode

Damage = Callable[[Path], object]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished sweep: 12, 6 and 4 trials; its metric is `score`, its parameters are lr and width."""
    return unpacked("issue-7", "plain", tmp_path)


def called(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def record_file(sweep: Path, stage: str = "coarse") -> Path:
    return next(SweepDirectory(sweep).phase("stage", stage).records.glob("*.jsonl"))


def append(path: Path, *lines: dict[str, Any] | str) -> None:
    with path.open("a") as file:
        file.writelines(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)


def outcome(trial: str, **more: Any) -> dict[str, Any]:
    metrics = {"score": 0.5}
    usual = {"kind": "outcome", "state": "completed", "metrics": metrics, "seconds": 1.0, "time": 1.0}
    return {**usual, "trial": trial, **more}


def report(trial: str, **more: Any) -> dict[str, Any]:
    return {"kind": "report", "trial": trial, "step": 1, "metrics": {"score": 0.5}, "time": 1.0, **more}


def rows(sweep: Path) -> dict[str, dict[str, Any]]:
    """Return the trials as `results --json` prints them, which is strict JSON."""
    printed = told("results", sweep, "--json")
    return {row["trial_id"]: row for row in json.loads(printed, parse_constant=pytest.fail)}


class Elements(HTMLParser):
    """The elements of a page, and its text outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._in_script = "", False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_script = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._in_script else data


def page(sweep: Path) -> Elements:
    told("report", sweep)
    elements = Elements()
    elements.feed(SweepDirectory(sweep).report.read_text())
    return elements


# Records.


def test_what_a_newer_task_writes_is_passed_over(sweep: Path) -> None:
    before, path = rows(sweep), record_file(sweep)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    newer = [{**line, "version": 99, "unheard_of": {"a": [1, None]}} for line in lines]
    path.write_text("".join(encode(line) for line in newer))
    append(path, {"kind": "hologram", "trial": "coarse-00000"}, {"kind": ["list"]}, {"kind": None})
    append(path, "[1, 2]\n", "null\n", "3\n", '"x"\n')
    assert "4 unreadable lines in the records were passed over" in told("status", sweep)
    compact(sweep)
    assert rows(sweep) == before


def test_a_column_that_changes_its_type_keeps_what_is_a_number(sweep: Path) -> None:
    huge, trial = 10**400, "coarse-00000"
    append(
        record_file(sweep),
        report(trial, step=2, metrics={"score": "1e-3", "loss": True, "note": [1], "other": {"a": 1}}),
        report(trial, step=3, metrics={"score": 1, "loss": huge, "note": None, "other": "Infinity"}),
        report(trial, step="four", metrics={"score": 0.4}),
        report(trial, step=huge, metrics={"score": 0.4}),
        report(trial, metrics=[["score", 1]]),
        {**report(trial), "trial": ["x"]},
        outcome("coarse-00001", metrics={"score": "Infinity"}, seconds="long", time="never"),
        outcome("coarse-00003", metrics={"score": huge}, seconds=huge, step=huge, error=["a"], cause=3),
        outcome("coarse-00004", state=["completed"]),
        {**outcome("coarse-00005"), "trial": {"a": 1}},
        {"kind": "finding", "trial": "coarse-00003", "code": 3, "evidence": [1], "step": "x"},
    )
    told("status", sweep)
    compact(sweep)
    assert {row["state"] for row in rows(sweep).values()} <= set(STATES)
    curves = load_results(sweep).curves
    assert curves["value"].dtype == float
    own = curves[(curves["trial_id"] == trial) & (curves["step"] == 2)].set_index("metric")["value"]
    assert own["score"] == 0.001
    assert math.isnan(own["note"])
    assert not (curves["step"] > 3).any()


def test_metrics_named_like_columns_are_columns_of_their_own(sweep: Path) -> None:
    names = [
        *("state", "objective", "trial_id", "metric", "param.lr", "stage", "error", "metric.score", ""),
        *(
            "a/b",
            "new\nline",
            "quo\"te'",
            "é🙂",
            "\ud800",
            ".",
            "x" * 300,
            "</script><script>alert(1)</script>",
        ),
    ]
    metrics = {name: float(number) for number, name in enumerate(names)}
    last = outcome("coarse-00000", metrics={"score": 0.99, **metrics}, time=0.5)
    append(record_file(sweep), report("coarse-00000", step=9, metrics=metrics), last)
    compact(sweep)
    row = rows(sweep)["coarse-00000"]
    assert (row["state"], row["objective"], row["stage"]) == ("completed", 0.99, "coarse")
    for name, value in metrics.items():
        assert row["metric." + name.encode("utf-8", "replace").decode()] == value
    assert called("results", sweep).exit_code == 0
    assert called("results", sweep, "--output", sweep / "out.csv").exit_code == 0
    assert set(pd.read_csv(sweep / "out.csv")["state"]) <= set(STATES)


HOSTILE = "</script><script>alert(1)</script>"
NAMED = f"""\
name: hostile
metric: {{name: "<b>score</b>", mode: max}}
space:
  "{HOSTILE}": "choice('{HOSTILE}', '🙂', '[red]x[/red]', '=1+1')"
  "🙂 €": interval(0, 1)
  "<img src=x onerror=alert(1)>": choice(1, 2)
stages: {{coarse: {{trials: 4}}}}
jobs:
  _target_: my_train.train
  config: {{"{HOSTILE}": 1, "🙂 €": 1, "<img src=x onerror=alert(1)>": 1}}
"""


def test_hostile_names_and_choices_are_shown_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_train.py").write_text("def train(config, trial):\n    return {}\n")
    Path("sweep.yaml").write_text(NAMED)
    planned = work_out(Path("sweep.yaml"), [])
    freeze_plan(planned)
    stage = planned.plan.stages[0]
    freeze(planned.directory, planned.plan, planned.config, stage, 0)
    folder = planned.directory.phase(stage.kind, stage.name)
    folder.records.mkdir(parents=True)
    for number, trial in enumerate(read_trials(folder.trials)):
        last = outcome(trial.trial_id, metrics={"<b>score</b>": number / 4, HOSTILE: 1.0, "state": 2.0})
        append(folder.records / f"0001-{number:04d}-0.jsonl", {"kind": "task", "submission": 1}, last)
    status = told("status", planned.directory.path)
    assert all(text in status for text in (HOSTILE, "🙂 €", "[red]x[/red]"))
    elements = page(planned.directory.path)
    assert HOSTILE in elements.text
    for tag, attrs in elements.elements:
        assert tag not in ("img", "b") or "onerror" not in attrs
        assert not any("alert" in name for name in attrs)
    values = {row[f"param.{HOSTILE}"] for row in rows(planned.directory.path).values()}
    assert values <= {HOSTILE, "🙂", "[red]x[/red]", "=1+1"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "name: mine",
            f"name: {'x' * 81}",
            "name: is too long for a name of jobs and folders: 81 of 80 bytes",
        ),
        ("{coarse:", "{" + "é" * 41 + ":", "is too long for a name of jobs and folders: 82 of 80 bytes"),
        ("name: score", 'name: " "', "metric.name: ' ' is no metric's name"),
        ("name: score", 'name: "a\\nb"', "metric.name: 'a\\nb' is no metric's name"),
        ("{lr: 'i", "{'': 'i", "space: '' is no parameter's name"),
        ("score: %", "score: [", "jobs.metrics.output.score: 'score: [' is no regular expression"),
    ],
)
def test_names_that_can_not_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (
        "name: mine\nmetric: {name: score, mode: max}\nspace: {lr: 'interval(0.1, 1)'}\n"
        "stages: {coarse: {trials: 2}}\n"
        "jobs: {command: 'true {lr}', config: {lr: 0.1}, metrics: {output: {score: 'score: %'}}}\n"
    )
    assert text.count(old) == 1
    Path("sweep.yaml").write_text(text.replace(old, new))
    assert message in told("plan", "sweep.yaml", status=2)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]


# Programs.

PROGRAM = """\
name: program
metric: {name: score, mode: max}
space: {n: "choice(1, 2, 3)"}
stages: {coarse: {trials: 3}}
jobs: {command: "sh train.sh {n}", config: {n: 1}, metrics: {output: {score: "PATTERN"}}}
"""


def write_program(script: str, pattern: str = "score: %") -> None:
    Path("train.sh").write_text(script)
    Path("sweep.yaml").write_text(PROGRAM.replace("PATTERN", pattern))


def test_a_program_without_the_metric_shows_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_program("echo 'loss is 0.1 <script>alert(1)</script> 🙂'\n")
    assert called("run", "sweep.yaml").exit_code == 1
    said = "it ended well, but gave no 'score': no line of its output matches 'score: %'"
    status = told("status", "sweeps/program")
    assert "loss is 0.1 <script>alert(1)</script> 🙂" in status
    assert said in status
    assert all(said in row["error"] for row in rows(Path("sweeps/program")).values())


def test_an_expression_that_would_match_for_ever_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(patterns, "LINE_SECONDS", 0.1)
    write_program(f"echo {'a' * 60}\n", "(?:a+)+b: %")
    done = called("check", "sweep.yaml", "--json")
    check = json.loads(done.stdout)["checks"][0]
    assert done.exit_code == 1
    assert "it is not searched for 'score' within 0.1 s (jobs.metrics.output)" in check["saw"]
    assert f"a line of its output:\n{'a' * 60}\n" in check["details"]["traceback"]


def test_what_a_job_prints_is_not_in_the_json_of_its_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_program("echo 'score: 0.5'\necho warning >&2\n")
    done = called("check", "sweep.yaml", "--json")
    assert json.loads(done.stdout)["checks"][0]["passed"] is True
    written = capfd.readouterr()
    assert written.out == ""
    assert written.err.count("score: 0.5") == 2
    called("check", "sweep.yaml")
    assert capfd.readouterr().out == ""


# Files.


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garbled(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def holding(text: str) -> Damage:
    return lambda path: path.write_text(text)


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


# Optuna's storages.

PAST = "start_from: [{optuna: PLACE, study: plain/coarse, best: 2}]\n"


@pytest.fixture
def storages(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep, shared with `past.db` and `past.log` in the current folder."""
    monkeypatch.chdir(sweep.parent)
    Path("my_train.py").write_text((sweep / "snapshot" / "my_train.py").read_text())
    for place in ("past.db", "past.log"):
        told("share", sweep, "--to", "optuna", "--out", place)
    return sweep


def refused(sweep: Path, place: str) -> str:
    """Share with a storage that can't be used, and plan from it; returns what is said, twice the same."""
    shared = told("share", sweep, "--to", "optuna", "--out", place, status=2)
    text = (sweep / "snapshot" / "sweep.yaml").read_text()
    Path("past.yaml").write_text(text + PAST.replace("PLACE", place))
    planned = told("plan", "past.yaml", "--dry-run", status=2)
    assert planned == shared.replace("error: ", "error: past.yaml: start_from.0: ")
    return shared


LOCK = (
    "import sqlite3, sys; c = sqlite3.connect('past.db'); c.execute('BEGIN EXCLUSIVE'); "
    "print('held', flush=True); sys.stdin.read()"
)


def test_a_database_that_another_program_has_locked(storages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_storage, "LOCK_SECONDS", 0.0)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LOCK], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert "'sqlite:///past.db' is locked by another program" in refused(storages, "past.db")
        other.communicate()
    assert "12 trials, 0 of them new" in told("share", storages, "--to", "optuna", "--out", "past.db")


def test_storages_that_are_damaged_or_of_a_newer_optuna(storages: Path) -> None:
    database, journal = Path("past.db").read_bytes(), Path("past.log").read_text()
    half(Path("past.db"))
    assert "(database disk image is malformed)" in refused(storages, "past.db")
    Path("past.db").write_bytes(database)
    with contextlib.closing(sqlite3.connect("past.db")) as other:
        other.execute("UPDATE version_info SET schema_version = 99")
        other.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        other.commit()
    assert "no longer compatible with the table schema" in refused(storages, "past.db")
    for content, words in (
        (journal[:300] + "\x00\n" + journal[300:], "'past.log' is no Optuna journal, or is damaged"),
        (journal + '{"op_code": 99, "worker_id": "x"}\n', "a newer Optuna wrote it"),
    ):
        Path("past.log").write_text(content)
        assert words in refused(storages, "past.log")
        assert Path("past.log").read_text() == content


def test_what_a_program_that_died_has_left_of_a_storage(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.parent)
    share = ("share", sweep, "--to", "optuna", "--out")
    Path("sub").mkdir()
    told(*share, "sub/past.log")
    made = JournalFileSymlinkLock.__init__

    def impatient(lock: JournalFileSymlinkLock, path: str) -> None:
        # By a relative path the lock would lead nowhere, and Optuna never takes such a one.
        assert Path(path).is_absolute()
        made(lock, path)
        lock.grace_period = 0

    monkeypatch.setattr(JournalFileSymlinkLock, "__init__", impatient)
    os.symlink(Path("sub/past.log").absolute(), "sub/past.log.lock")
    assert "12 trials, 12 of them new" in told(*share, "sub/past.log", "--name", "again")
    assert not os.path.lexists("sub/past.log.lock")
    # SQLite leaves an empty file when it is ended right after it has made it.
    Path("empty.db").touch()
    assert "optuna-dashboard sqlite:///empty.db" in told(*share, "empty.db")
