"""What MLflow is told of a trial: names, values, states and parts, worked out without MLflow."""

from __future__ import annotations

import importlib.util
import math
import posixpath
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from made_mlflow import NAME
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.integrations.ended import Ended
from orchestrator.integrations.mlflow_names import LONGEST_PARAM, LONGEST_TAG, name_of, param_of, tag_of
from orchestrator.integrations.mlflow_place import find_place
from orchestrator.integrations.mlflow_runs import Metric, batches, run_of
from orchestrator.integrations.mlflow_share import share_with_mlflow

names = st.text(alphabet=st.sampled_from("ab./:- _<é🙂\n"), max_size=12) | st.text(max_size=300)


def trial(**changes: Any) -> Ended:
    given: dict[str, Any] = {
        "trial_id": "coarse-00000",
        "stage": "coarse",
        "state": "completed",
        "params": {"lr": 0.1},
        "facts": {"trial_id": "coarse-00000", "stage": "coarse", "seed": 3},
        "outcome": {"objective": 0.5},
        "curves": {"loss": [(1, 2.0, 11.0), (2, 1.0, 12.5)]},
        "began": 10.0,
        "ended": 13.0,
    }
    return Ended(**{**given, **changes})


@given(st.lists(names, min_size=2, max_size=2, unique=True))
def test_any_name_becomes_one_that_mlflow_takes_and_no_other_has(two: list[str]) -> None:
    # Half of a pair of characters is no text: it becomes a question mark everywhere.
    first, second = (each.encode("utf-8", "replace").decode() for each in two)
    for name in (first, second):
        written = name_of(name)
        assert NAME.fullmatch(written)
        assert posixpath.normpath(written) == written
        assert not written.startswith(("/", ".."))
    if first != second:
        assert name_of(first) != name_of(second)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("val/accuracy", "val/accuracy"),
        ("optimizer.lr", "optimizer.lr"),
        ("Größe 2", "Größe 2"),
        ("lr<1", "lr:3c:1"),
        ("a:b", "a:3a:b"),
        ("", "::"),
        ("a//b/", "a/::/b/::"),
        ("../x", ":2e::2e:/x"),
    ],
)
def test_names_stay_readable(name: str, written: str) -> None:
    assert name_of(name) == written


def test_values_are_told_apart_and_cut() -> None:
    values: list[Any] = [1, "1", 1.0, True, "true", "True", None, "null", "None", "", " ", "a", [1], "[1]"]
    assert len({param_of(value) for value in values}) == len(values)
    assert [param_of(value) for value in (0.001, "adam", True, [16, "a"])] == [
        "0.001",
        "adam",
        "true",
        '[16, "a"]',
    ]
    cut = param_of("x" * 5000 + "y" * 5000)
    assert len(cut) == LONGEST_PARAM
    assert cut.startswith("xxx") and " … " in cut and cut.endswith("yyy")
    end = tag_of("x" * 9000 + "ValueError")
    assert len(end) == LONGEST_TAG and end.endswith("ValueError")


@pytest.mark.parametrize(
    ("state", "status"),
    [("completed", "FINISHED"), ("diverged", "FINISHED"), ("pruned", "KILLED"), ("failed", "FAILED")],
)
def test_a_trial_is_a_run(state: str, status: str) -> None:
    run = run_of(trial(state=state))
    assert (run.name, run.status, run.began, run.ended) == ("coarse-00000", status, 10_000, 13_000)
    assert run.params == {"lr": "0.1"}
    assert run.metrics == [("loss", 2.0, 11_000, 1), ("loss", 1.0, 12_500, 2), ("objective", 0.5, 13_000, 2)]
    assert run.tags["sweep.kind"] == "trial"
    assert run.tags["sweep.seed"] == "3"


def test_what_is_no_number_is_left_out_and_told() -> None:
    curves = {"loss": [(1, 2.0, 11.0), (2, math.nan, 12.0), (3, math.inf, 13.0)]}
    run = run_of(trial(state="diverged", outcome={}, curves=curves))
    assert run.metrics == [("loss", 2.0, 11_000, 1)]
    told = run.tags["sweep.not_finite"]
    assert told == "loss: 2 of 3 values, nan at step 2 the first\nno finite objective"
    assert "sweep.not_finite" not in run_of(trial()).tags


def test_an_error_is_text_in_the_description() -> None:
    run = run_of(trial(state="failed", facts={"error": "Traceback\n<script>"}, outcome={}, curves={}))
    assert run.tags["mlflow.note.content"] == "    Traceback\n    <script>"


def test_any_change_changes_the_digest() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"state": "pruned"},
        {"params": {"lr": 0.2}},
        {"facts": {"seed": 4}},
        {"outcome": {"objective": 0.6}},
        {"curves": {}},
        {"began": 9.0},
        {"ended": 14.0},
    ]
    digests = {run_of(trial(**change)).digest for change in changes}
    assert len(digests) == len(changes)
    assert run_of(trial()).digest == run_of(trial()).digest


@pytest.mark.parametrize(
    ("metrics", "params", "width"), [(0, 0, 1), (2500, 3, 1), (3, 250, 1), (1000, 150, 5000)]
)
def test_parts_are_within_the_limits_and_whole(metrics: int, params: int, width: int) -> None:
    values: list[Metric] = [("m", float(step), 0, step) for step in range(metrics)]
    settings = {f"p{number}": "v" * width for number in range(params)}
    parts = list(batches(values, settings))
    assert [value for some, _ in parts for value in some] == values
    assert dict(pair for _, others in parts for pair in others) == settings
    for some, others in parts:
        assert len(some) + len(others) <= 1000
        assert len(others) <= 100
        assert sum(len(name) + len(value) for name, value in others) <= 200_000


@pytest.mark.parametrize(
    ("out", "uri", "shown"),
    [
        ("sqlite:///x.db", "sqlite:////at/x.db", "sqlite:///x.db"),
        ("x.db", "sqlite:////at/x.db", "sqlite:///x.db"),
        ("runs", "file:///at/runs", "runs"),
        ("file:///else/runs", "file:///else/runs", "file:///else/runs"),
        ("http://me:secret@host:5000/", "http://me:secret@host:5000", "http://host:5000"),
        ("postgresql://me:secret@host/x", "postgresql://me:secret@host/x", "postgresql://me:***@host/x"),
    ],
)
def test_places_are_found(out: str, uri: str, shown: str) -> None:
    place = find_place(out, Path("/at"))
    assert (place.uri, place.shown) == (uri, shown)
    assert "secret" not in place.look


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("ftp://host/x", "'ftp://' is no kind of place"),
        ("databricks", "no place that this command knows"),
        ("http://", "no address of a server"),
        ("sqlite://", "is gone when this command ends"),
        ("file://elsewhere/x", "no folder of this machine"),
        ("mysql://me:secret@host:port/x", "this is no URL of a database"),
    ],
)
def test_what_is_no_place_is_said(out: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        find_place(out)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_missing_package_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"coarse-to-fine-orchestrator\[mlflow\]"):
        share_with_mlflow(tmp_path, find_place("x.db"))
    done = CliRunner().invoke(main, ["share", str(tmp_path), "--to", "mlflow", "--out", "x.db"])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: writing for MLflow needs the package mlflow-skinny. pip install")
