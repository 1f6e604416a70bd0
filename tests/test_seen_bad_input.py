"""Bad input to what a user looks at: records, names, files and programs that are not as they should be.

Each is shown to the commands: they go on with what makes sense, or say in one line which file is wrong.
"""

from __future__ import annotations

import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from made_damage import append, outcome, record_file, report, rows
from test_old_sweep import told, unpacked

from orchestrator.cli import main
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.programs import patterns
from orchestrator.results.compact import compact
from orchestrator.results.load import load_results
from orchestrator.sweep.directory import SweepDirectory, read_trials
from orchestrator.sweep.records import STATES, encode


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished sweep: 12, 6 and 4 trials; its metric is `score`, its parameters are lr and width."""
    return unpacked("issue-7", "plain", tmp_path)


def called(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


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
