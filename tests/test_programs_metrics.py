"""Metrics of a command line: matched in its output, and read from files while they grow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.programs import events
from orchestrator.programs.files import Tailed
from orchestrator.programs.patterns import Matched, Row, compiled


def rows_of(patterns: dict[str, str], text: str) -> list[Row]:
    matched = Matched(compiled(patterns, "key"))
    return [row for line in text.splitlines() for row in matched.line(line)] + list(matched.rest())


def test_metrics_are_matched_in_the_output() -> None:
    text = "epoch 1\nloss 0.5 acc 50%\nepoch 2: loss=1e-3\nsome acc 6.5e1%\nloss nan acc -inf\nepoch 4"
    rows = rows_of({"step": "epoch %", "loss": "loss[ =]%", "acc": r"acc %\%?"}, text)
    assert str(rows) == str(
        [(1, {"loss": 0.5, "acc": 50.0}), (2, {"loss": 1e-3, "acc": 65.0}),
         (2, {"loss": float("nan"), "acc": float("-inf")})]
    )  # fmt: skip
    # Without a step they are counted by who reports them; what comes twice begins another row.
    assert rows_of({"a": "a=%", "b": "b=%"}, "a=1\na=2\nb=3\nb=4") == [
        (None, {"a": 1.0}), (None, {"a": 2.0, "b": 3.0}), (None, {"b": 4.0}),
    ]  # fmt: skip
    assert rows_of({"a": r"(\d+) of"}, "12 of 30") == [(None, {"a": 12.0})]


@given(st.floats(allow_nan=False), st.sampled_from(["{!r}", "{:.3e}", "{:+f}", "{:.0f}"]))
def test_a_per_cent_sign_is_any_number(number: float, form: str) -> None:
    text = form.format(number)
    assert rows_of({"m": "m: %,"}, f"m: {text}, and more") == [(None, {"m": float(text)})]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("acc (", "is no regular expression"),
        ("accuracy", "has 0 groups, where one belongs"),
        ("(a|b) %", "has 2 groups, where one belongs"),
    ],
)
def test_a_pattern_that_holds_no_number(pattern: str, message: str) -> None:
    with pytest.raises(UserError, match=r"key.val/acc: ") as caught:
        compiled({"val/acc": pattern}, "key")
    assert message in str(caught.value)


def test_a_file_is_read_while_it_grows(tmp_path: Path) -> None:
    lines = tmp_path / "metrics.jsonl"
    tailed = Tailed(lines)
    assert list(tailed.look()) == []
    lines.write_text(
        '{"epoch": 1, "acc": 0.5, "val": {"loss": 2}, "name": "x", "on": true}\nrubbish\n{"epoch": 2, "a'
    )
    assert list(tailed.look()) == [(1, {"acc": 0.5, "val/loss": 2.0})]
    assert list(tailed.look()) == []
    with open(lines, "a") as file:
        file.write('cc": "0.75"}\n{"acc": NaN}')
    assert list(tailed.look()) == [(2, {"acc": 0.75})]
    # The last line may lack its end when the program has ended.
    assert str(list(tailed.rest())) == "[(None, {'acc': nan})]"
    assert list(tailed.rest()) == []
    lines.write_text('{"acc": 1}\n')
    assert list(tailed.look()) == [(None, {"acc": 1.0})]


def test_a_table_is_read_while_it_grows(tmp_path: Path) -> None:
    table = tmp_path / "metrics.csv"
    tailed = Tailed(table, step="epoch")
    table.write_bytes('\ufeffstep,epoch,"val, acc",note\r\n10,1,0.5,"a, b"\r\n20,2,'.encode())
    assert list(tailed.look()) == [(1, {"val, acc": 0.5})]
    with open(table, "a") as file:
        file.write(',bad\nstep,epoch,"val, acc",note\n\n30,3,0.75')
    assert list(tailed.look()) == []
    assert list(tailed.rest()) == [(3, {"val, acc": 0.75})]


def test_a_file_that_is_one_json_text(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    tailed = Tailed(path)
    path.write_text(json.dumps({"test": {"acc": 0.5}}, indent=2))
    assert list(tailed.look()) == []
    assert list(tailed.rest()) == [(None, {"test/acc": 0.5})]


def test_tensorboard_files_are_read_while_they_grow(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def write(writer: Any, step: int, **values: float) -> None:
        found = [
            Summary.Value(tag=tag.replace("_", "/"), simple_value=value) for tag, value in values.items()
        ]
        writer.add_event(Event(step=step, wall_time=step, summary=Summary(value=found)))
        writer.flush()

    source = events.Events(tmp_path / "runs")
    assert list(source.look()) == []
    first = EventFileWriter(str(tmp_path / "runs"))
    write(first, 1, val_acc=0.25, loss=2.0)
    assert list(source.look()) == [(1, {"val/acc": 0.25, "loss": 2.0})]
    assert list(source.look()) == []
    write(first, 2, val_acc=0.5)
    first.close()
    # A second leg begins again at step 2, in a file of its own; another folder is a run with its name.
    second, other = (
        EventFileWriter(str(tmp_path / "runs"), filename_suffix=".2"),
        EventFileWriter(str(tmp_path / "runs/test")),
    )
    write(second, 2, val_acc=0.75)
    write(other, 2, val_acc=1.0)
    second.close()
    other.close()
    assert [*source.look(), *source.rest()] == [(2, {"val/acc": 0.75, "test/val/acc": 1.0})]


def test_without_tensorboard_the_plan_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "PACKAGE", "tensorboard_that_is_not_there")
    with pytest.raises(UserError, match=r"jobs.metrics.tensorboard: .*pip install"):
        events.check_installed()
