"""Reading report lines at once says what reading them one by one says, or leaves them to it."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.results import reports
from orchestrator.results.reports import PREFIX, Lines, Reports, join, read_reports

names = st.sampled_from(("acc", "val/loss", "InfoNCE", "null", 'a "quote"', "é", "🙂", "", "\\"))
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from(["NaN", "-Infinity", "1e-3", None, True, [1], {"a": 1}, math.nan, math.inf, 10**400]),
)
metrics = st.one_of(st.dictionaries(names, values, max_size=3), st.sampled_from([None, [1], "acc"]))
report = st.fixed_dictionaries(
    {"trial": st.sampled_from(("a", "b", "2020-01-01", "é", 3, None)), "step": values, "metrics": metrics},
    optional={"time": values, "colour": st.sampled_from(("red", 1))},
)
usual_report = st.fixed_dictionaries(
    {
        "trial": st.sampled_from(("a", "b", "2020-01-01")),
        "step": st.integers(0, 10**6),
        "metrics": st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=3),
        "time": st.floats(0, 1e10),
    }
)


@st.composite
def files(draw: st.DrawFn) -> list[Lines]:
    """Up to three files with reports: most as the worker writes them, some of them torn or strange."""
    found = []
    for number in range(draw(st.integers(1, 3))):
        lines = []
        for one in draw(st.lists(st.one_of(usual_report, usual_report, usual_report, report), max_size=4)):
            ascii_only = draw(st.sampled_from((True, True, False)))
            raw = json.dumps(
                {"kind": "report", **one}, separators=(",", ":"), ensure_ascii=ascii_only
            ).encode()
            if draw(st.integers(0, 15)) == 0:
                raw = raw[: draw(st.integers(len(PREFIX), len(raw)))] + draw(st.sampled_from((b"", raw)))
            lines.append(raw)
        begun = {"a": [0, 3], "b": [2], "nobody": [1]} if draw(st.booleans()) else {}
        found.append(Lines(number, lines, [2 * place + 1 for place in range(len(lines))], begun, usual=True))
    return found


def rows(found: Reports) -> list[tuple[Any, ...]]:
    """Return rows by name, sorted: within a line the metrics may come in any order."""
    columns = [found.file, found.start, found.step, found.value, found.time]
    named = [[found.trials[code] for code in found.trial], [found.metrics[code] for code in found.metric]]
    return sorted(zip(*named, *(column.tolist() for column in columns), strict=True), key=repr)


def one_by_one(given: list[Lines]) -> tuple[Reports, dict[int, int]]:
    parts = [reports._by_line(one) for one in given]
    joined = join([part for part, _ in parts], [0] * len(parts))
    return joined, {one.file: count for one, (_, count) in zip(given, parts, strict=True) if count}


@settings(max_examples=150, deadline=None)
@given(given=files())
@example(
    given=[
        Lines(0, [b'{"kind":"report","trial":"a","step":1,"metrics":{"a":1},"time":1}'] * 2, [0, 1], {}, True)
    ]
)
def test_reading_at_once_is_reading_one_by_one(given: list[Lines]) -> None:
    found, unreadable = read_reports(given)
    expected, counted = one_by_one(given)
    assert repr(rows(found)) == repr(rows(expected))
    assert {file: count for file, count in unreadable.items() if count} == counted
    assert list(found.metrics) == sorted(found.metrics)


@pytest.mark.parametrize(
    "value", [b"1" + b"0" * 400, b"null", b"NaN", b"true", b'"NaN"', b"[1]", b"{}", b"01"]
)
@pytest.mark.parametrize("place", [b'"acc":0.5', b'"time":1.0', b'"step":1'])
def test_a_strange_value_is_what_it_is_one_by_one(value: bytes, place: bytes) -> None:
    usual = b'{"kind":"report","trial":"a","step":1,"metrics":{"acc":0.5},"time":1.0}'
    strange = usual.replace(place, place.partition(b":")[0] + b":" + value)
    given = [Lines(0, [usual, strange, usual], [0, 1, 2], {}, True)]
    found, unreadable = read_reports(given)
    expected, counted = one_by_one(given)
    assert repr(rows(found)) == repr(rows(expected))
    assert {file: count for file, count in unreadable.items() if count} == counted


def test_what_the_worker_writes_is_read_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_by_one(lines: Lines) -> tuple[Reports, int]:
        raise AssertionError("read line by line")

    monkeypatch.setattr(reports, "_by_line", one_by_one)
    raw = [
        json.dumps({"kind": "report", "trial": "a", "step": step, "metrics": values, "time": 1.5}).replace(
            ", ", ","
        )
        for step, values in enumerate(({"acc": 0.5}, {"loss": 1, "acc": 2.5}, {}, {"info/InfoNCE 🙂": 1e-9}))
    ]
    lines = Lines(0, [line.replace(": ", ":").encode() for line in raw], [1, 3, 4, 5], {"a": [0, 2]}, True)
    found, _ = read_reports([lines])
    assert found.start.tolist() == [1, 2, 2, 2]
    assert found.step.tolist() == [0, 1, 1, 3]
    assert [found.metrics[code] for code in found.metric] == ["acc", "acc", "loss", "info/InfoNCE 🙂"]
    assert found.value.tolist() == [0.5, 2.5, 1.0, 1e-9]


def test_one_strange_file_leaves_the_others_to_be_read_at_once() -> None:
    usual = b'{"kind":"report","trial":"a","step":1,"metrics":{"acc":0.5},"time":1.0}'
    given = [Lines(0, [usual], [0], {}, True), Lines(1, [usual[:-3]], [0], {}, True)]
    found, unreadable = read_reports(given)
    assert (found.file.tolist(), found.value.tolist(), unreadable) == ([0], [0.5], {1: 1})
    assert len(read_reports([])[0]) == 0
    assert np.isnan(read_reports([Lines(0, [usual.replace(b"0.5", b'"NaN"')], [0], {}, True)])[0].value).all()
