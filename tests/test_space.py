"""Hydra's sweep grammar as parameters, the transformed space, and the identity of a setting."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UserError
from orchestrator.space import (
    CHOICE,
    FLOAT,
    INT,
    Parameter,
    Value,
    active,
    advice,
    from_json,
    parse_parameter,
    parse_space,
    setting_id,
    show,
    to_json,
    with_reason,
)


def parse(declared: Any, limits: Any = None) -> Parameter:
    return parse_parameter("p", declared, limits, "sweep.yaml")


@pytest.mark.parametrize(
    ("declared", "kind", "low", "high", "log"),
    [
        ("interval(0.1, 2)", FLOAT, 0.1, 2.0, False),
        ("interval(1, 9)", FLOAT, 1.0, 9.0, False),
        ("interval(-3, 2.5)", FLOAT, -3.0, 2.5, False),
        ("interval(start=0.1, end=2)", FLOAT, 0.1, 2.0, False),
        ("tag(log, interval(1e-4, 1.0))", FLOAT, 1e-4, 1.0, True),
        ("int(interval(1, 9))", INT, 1, 9, False),
        ("tag(log, int(interval(1, 1024)))", INT, 1, 1024, True),
        ("int(tag(log, interval(1, 1024)))", INT, 1, 1024, True),
        ("float(interval(1, 9))", FLOAT, 1.0, 9.0, False),
    ],
)
def test_grammar_of_numbers(declared: str, kind: str, low: float, high: float, log: bool) -> None:
    parameter = parse(declared)
    assert (parameter.kind, parameter.low, parameter.high, parameter.log) == (kind, low, high, log)
    assert type(parameter.low) is type(parameter.high) is (int if kind == INT else float)
    assert parameter.reason == "as declared"
    assert parameter.values == ()


@pytest.mark.parametrize(
    ("declared", "values"),
    [
        ("choice(16, 32, 64)", (16, 32, 64)),
        ("choice(adam, sgd)", ("adam", "sgd")),
        ("choice('a b', \"c,d\", 'e=f')", ("a b", "c,d", "e=f")),
        ("choice(true, false)", (True, False)),
        ("choice(1, 1.0, true, '1')", (1, 1.0, True, "1")),
        ("choice(1, 2, 1)", (1, 2)),
        ("choice(64, 16, 32.5)", (16, 32.5, 64)),
        ("tag(ordered, choice(64, 16, 32))", (64, 16, 32)),
        ("tag(unordered, choice(64, 16, 32))", (64, 16, 32)),
        ("sort(choice(64, 16, 32), reverse=true)", (16, 32, 64)),
        ("sort(choice(b, a))", ("a", "b")),
        ("shuffle(choice(64, 16, 32))", (16, 32, 64)),
        ("shuffle(range(1, 4))", (1, 2, 3)),
        ("sort(range(1, 7, 2), reverse=true)", (1, 3, 5)),
        ("range(3)", (0, 1, 2)),
        ("range(5, 1, -2)", (3, 5)),
        ("range(0.1, 0.5, 0.1)", (0.1, 0.2, 0.3, 0.4)),
        ("float(range(1, 3))", (1.0, 2.0)),
        ("str(choice(1, true, x))", ("1", "true", "x")),
        ("bool(choice('true', 0))", (True, False)),
        ("float(choice(1, '2'))", (1.0, 2.0)),
        ("str(3)", ("3",)),
        ("null, 1", (None, 1)),
        ("choice([32, 32], [64], {a: 'b c'})", ("[32, 32]", "[64]", '{"a": "b c"}')),
        ("choice(inf, 1)", (1, math.inf)),
        ("16, 32, 64", (16, 32, 64)),
        ("range(1, 5)", (1, 2, 3, 4)),
        ("range(0, 10, 5)", (0, 5)),
        ("range(0, 1, 0.25)", (0.0, 0.25, 0.5, 0.75)),
        ("int(choice(1.9, 3))", (1, 3)),
        ("0.5", (0.5,)),
        ("relu", ("relu",)),
        ("'interval(0, 1)'", ("interval(0, 1)",)),
        ("[16, 32]", (16, 32)),
        ([16, "a", True, None], (16, "a", True, None)),
        (0.5, (0.5,)),
        (True, (True,)),
        (7, (7,)),
    ],
)
def test_grammar_of_choices(declared: Any, values: tuple[Any, ...]) -> None:
    parameter = parse(declared)
    assert parameter.kind == CHOICE
    assert [(type(value), value) for value in parameter.values] == [(type(value), value) for value in values]


@pytest.mark.parametrize("declared", [None, "", [], {"a": 1}, "interval(2, 1)"])
def test_what_is_no_range(declared: Any) -> None:
    with pytest.raises(UserError) as caught:
        parse(declared)
    assert (caught.value.file, caught.value.key) == ("sweep.yaml", "space.p")


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({"width": 3}, "is a mapping, not a range. Write interval(low, high), or p.width: ..."),
        ("range(5, 1)", "range(5, 1) is reversed. Write range(1, 5)"),
        ("range(5, 1, 2)", "range(5, 1, 2) is reversed. Write range(1, 5, 2)"),
        ("range(1, 5, -1)", "range(1, 5, -1) is reversed. Write range(5, 1)"),
        ("range(3, 3)", "range(3, 3) is empty. Write 3 to hold it fixed"),
        ("range(1, 5, 0)", "range(1, 5, 0) never moves on"),
        ("int(range(0, 1, 0.25))", "range(0, 1, 0) never moves on"),
        ("range(0, inf)", "range(0, inf) is not finite"),
        (
            "range(0, 1e9)",
            "range(0, 1000000000.0) are 1,000,000,000 choices. Write interval(0, 1000000000.0)",
        ),
        ("range(0, 1000000)", "range(0, 1000000) are 1,000,000 choices. Write int(interval(0, 999999))"),
        ("choice(1, nan)", "nan is not a value to choose"),
        ("interval(0, inf)", "interval(0.0, inf) is not finite"),
        ("interval(-1e308, 1e308)", "interval(-1e+308, 1e+308) is too wide to compute with"),
        ("interval(1, 10), interval(20, 30)", "several ranges are not one"),
        ("range(1, 4), range(8, 10)", "Write one range, like interval(1, 30), or choice(a, b)"),
        ("choice([interval(1, 2)], {a: range(1, 2)})", "nor is a range one of several choices"),
        ("choice({a: range(1, 2)})", "nor is a range one of several choices"),
        ("glob(*)", "a pattern names no choices. Write them out: choice(a, b)"),
        ("tag(lgo, interval(1, 2))", "the tag 'lgo' means nothing for an interval. Did you mean 'log'?"),
        ("tag(log, choice(1, 2))", "the tag 'log' means nothing for choices. Valid: ordered, unordered"),
        ("tag(ordered, interval(1, 2))", "the tag 'ordered' means nothing for an interval. Valid: log"),
        ("tag(ordered, unordered, choice(1, 2))", "is tagged both ordered and unordered"),
        ("int(tag(unordered, choice(1, 2)))", "a cast takes the tag away. Put the cast inside"),
        ("choice()", "'choice()' is not in Hydra's sweep grammar ("),
        ("extend(choice(1, 2), 3)", "Unknown function 'extend')"),
        ("str(interval(1, 2))", "is not in Hydra's sweep grammar ("),
        ("int(choice(a))", "is not in Hydra's sweep grammar ("),
    ],
)
def test_why_it_is_no_range(declared: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(declared)
    assert message in str(caught.value)
    assert str(caught.value).startswith("sweep.yaml: space.p: ")


@given(
    st.one_of(
        st.text(max_size=30),
        st.tuples(
            st.sampled_from(["choice", "range", "interval", "int", "tag", "sort", "glob"]),
            st.lists(st.sampled_from(["1", "2.5", "a", "[1]", "'x'", "nan", "-3", "log", "range(1,2)"])),
        ).map(lambda call: f"{call[0]}({', '.join(call[1])})"),
    )
)
def test_any_text_is_a_parameter_or_a_readable_error(text: str) -> None:
    try:
        parameter = parse(text)
    except UserError as error:
        assert error.key == "space.p"
        return
    assert parameter.values or parameter.low <= parameter.high


@pytest.mark.parametrize(
    ("declared", "ordered"),
    [
        ("choice(32, 16)", True),
        ("range(1, 5)", True),
        ([1, 2.5], True),
        ("choice(a, b)", False),
        ("choice(true, false)", False),
        ("choice(1, a)", False),
        ("tag(ordered, choice(small, medium, large))", True),
        ("tag(unordered, choice(1, 2, 3))", False),
        ("tag(ordered, range(1, 4))", True),
        ("interval(1, 2)", False),
    ],
)
def test_which_choices_are_ordered(declared: Any, ordered: bool) -> None:
    assert parse(declared).ordered is ordered


@pytest.mark.parametrize(
    "declared",
    ["interval(1, 1)", "int(interval(0.2, 0.8))", "tag(log, interval(2, 2))", "7", "choice(a)", 0.5],
)
@given(unit=st.floats(0, 1))
def test_constants_are_held(declared: Any, unit: float) -> None:
    parameter = parse(declared)
    assert parameter.constant
    assert parameter.contains(parameter.from_unit(unit))
    (warning,) = advice([parameter])
    assert warning.startswith("p: has one value and is held fixed at ")
    assert not parse("interval(0, 1)").constant


@pytest.mark.parametrize(
    ("declared", "declared_limits", "limits"),
    [
        ("interval(0.0, 0.7)", None, (0.0, 1.0)),
        ("interval(0.0, 0.7)", [0.0, 0.95], (0.0, 0.95)),
        ("interval(0.0, 0.7)", [None, 0.95], (0.0, 0.95)),
        ("interval(0.5, 3)", None, (0.0, None)),
        ("interval(-1, 1)", None, (None, None)),
        ("interval(-1, 1)", [-2, None], (-2, None)),
        ("tag(log, interval(1e-4, 1))", None, (0.0, None)),
        ("int(interval(0, 9))", None, (0.0, None)),
        ("int(interval(1, 9))", None, (1.0, None)),
        ("int(interval(0, 1))", None, (0.0, None)),
    ],
)
def test_natural_limits(
    declared: str, declared_limits: Any, limits: tuple[float | None, float | None]
) -> None:
    assert parse(declared, declared_limits).limits == limits


@pytest.mark.parametrize("limits", [3, [1], [1, 2, 3], ["a", None], {"low": 1}, [True, 1], [math.nan, 1]])
def test_limits_are_two_numbers(limits: Any) -> None:
    with pytest.raises(UserError, match=r"jobs\.limits\.p: limits are two numbers"):
        parse("interval(0, 1)", limits)


def test_a_range_stays_within_its_limits() -> None:
    with pytest.raises(UserError, match=r"0 … 1 reaches past its hard limits 0 … 0\.95"):
        parse("interval(0, 1)", [0, 0.95])
    with pytest.raises(UserError, match="1 … 8 reaches past its hard limits 2 … inf"):
        parse("choice(8, 1)", [2, None])
    with pytest.raises(UserError, match=r"jobs.limits.p: \[1, 0\] is reversed. Write \[0, 1\]"):
        parse("interval(0, 1)", [1, 0])


@st.composite
def numbers(draw: st.DrawFn) -> Parameter:
    """A range of numbers of any kind and size."""
    log = draw(st.booleans())
    if draw(st.booleans()):
        low = draw(st.integers(1 if log else -1000, 10_000))
        return Parameter(name="p", kind=INT, low=low, high=low + draw(st.integers(1, 10_000)), log=log)
    if log:
        floor = 10 ** draw(st.floats(-12, 6))
        return Parameter(
            name="p", kind=FLOAT, low=floor, high=floor * 10 ** draw(st.floats(0.01, 8)), log=True
        )
    low_float = draw(st.floats(-1e6, 1e6))
    return Parameter(name="p", kind=FLOAT, low=low_float, high=low_float + draw(st.floats(1e-3, 1e6)))


units = st.floats(0, 1)


@given(numbers(), units)
def test_from_unit_stays_inside(parameter: Parameter, unit: float) -> None:
    value = parameter.from_unit(unit)
    assert parameter.contains(value)
    assert type(value) is (int if parameter.kind == INT else float)


@given(numbers(), units)
def test_to_unit_undoes_from_unit(parameter: Parameter, unit: float) -> None:
    value = parameter.from_unit(unit)
    assert isinstance(value, int | float)
    place = parameter.to_unit(value)
    assert -1e-9 <= place <= 1 + 1e-9
    if parameter.kind == FLOAT:
        assert place == pytest.approx(unit, abs=1e-6)
        assert parameter.from_unit(place) == pytest.approx(value, rel=1e-6, abs=1e-6)


@given(numbers(), units, units)
def test_from_unit_keeps_the_order(parameter: Parameter, one: float, other: float) -> None:
    less, more = (parameter.from_unit(unit) for unit in sorted((one, other)))
    assert isinstance(less, int | float)
    assert isinstance(more, int | float)
    assert less <= more


@given(numbers())
def test_the_ends_are_reached(parameter: Parameter) -> None:
    assert parameter.from_unit(0.0) == pytest.approx(parameter.low)
    assert parameter.from_unit(1.0) == pytest.approx(parameter.high)
    assert parameter.to_unit(parameter.low) == 0.0
    assert parameter.to_unit(parameter.high) == pytest.approx(1.0)


def test_whole_numbers_and_choices_share_the_range_equally() -> None:
    whole = Parameter(name="p", kind=INT, low=1, high=4)
    choice = Parameter(name="p", kind=CHOICE, values=("a", "b", "c", "d"))
    places = [(index + 0.5) / 400 for index in range(400)]
    for parameter, values in ((whole, (1, 2, 3, 4)), (choice, choice.values)):
        drawn = [parameter.from_unit(place) for place in places]
        assert [drawn.count(value) for value in values] == [100, 100, 100, 100]
    assert choice.from_unit(1.0) == "d"


def test_the_middle_of_a_log_range_is_its_geometric_mean() -> None:
    assert parse("tag(log, interval(1e-4, 1))").from_unit(0.5) == pytest.approx(1e-2)
    assert parse("interval(1e-4, 1)").from_unit(0.5) == pytest.approx(0.50005)


def test_a_range_of_one_value_has_a_place() -> None:
    fixed = Parameter(name="p", kind=FLOAT, low=0.3, high=0.3)
    assert fixed.to_unit(0.3) == 0.5
    assert fixed.from_unit(0.7) == 0.3


def test_contains_tells_types_apart_in_choices() -> None:
    assert Parameter(name="p", kind=CHOICE, values=(True,)).contains(True)
    assert not Parameter(name="p", kind=CHOICE, values=(True, 0)).contains(1)
    assert not Parameter(name="p", kind=CHOICE, values=(1,)).contains(1.0)
    assert not Parameter(name="p", kind=FLOAT, low=0, high=1).contains("0.5")
    assert not Parameter(name="p", kind=FLOAT, low=0, high=1).contains(math.nan)


choices = st.lists(
    st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=4), st.booleans(), st.none()),
    min_size=1,
    max_size=5,
)


@given(st.lists(numbers(), min_size=1, max_size=3), choices)
def test_json_round_trip(numeric: list[Parameter], values: list[Any]) -> None:
    space = tuple(with_reason(p, f"because {i}", name=f"a.{i}") for i, p in enumerate(numeric))
    space += (parse(values), replace(parse(["a"]), name="q", ordered=True, when="p == 'a'"))
    content = json.loads(json.dumps(to_json(space, "coarse")))
    assert content["stage"] == "coarse"
    back = from_json(content)
    assert back == space
    assert [[type(v) for v in p.values] for p in back] == [[type(v) for v in p.values] for p in space]


def test_space_json_is_what_a_reader_expects() -> None:
    space = parse_space({"lr": "tag(log, interval(1e-4, 1))", "w": "choice(1, 2)"}, {"lr": [0, 1]}, "f")
    assert to_json(space, "coarse") == {
        "stage": "coarse",
        "parameters": {
            "lr": {
                "kind": "float", "low": 1e-4, "high": 1.0, "log": True, "limits": (0, 1),
                "reason": "as declared",
            },
            "w": {"kind": "choice", "values": (1, 2), "ordered": True, "reason": "as declared"},
        },
    }  # fmt: skip


def test_space_json_of_an_older_version_still_reads() -> None:
    old = {
        "stage": "coarse",
        "parameters": {
            "lr": {
                "kind": "float", "low": 1e-4, "high": 1.0, "log": True, "limits": [0.0, None],
                "reason": "as declared",
            },
            "width": {"kind": "choice", "values": [16, 32], "reason": "16 and 32 are ahead"},
        },
    }  # fmt: skip
    lr, width = from_json(old)
    assert (lr.limits, lr.when, lr.ordered) == ((0.0, None), "", False)
    assert (width.values, width.when, width.ordered) == ((16, 32), "", False)


def chained(*conditions: str) -> tuple[Parameter, ...]:
    """Parameters a, b, c, ... in [0, 1] with these conditions."""
    return tuple(
        Parameter(name=name, kind=FLOAT, low=0, high=1, when=when)
        for name, when in zip("abcdef", conditions, strict=False)
    )


def test_active_follows_conditions_as_far_as_they_go() -> None:
    space = chained("", "a > 0.5", "b > 0.5", "a > 0.5 or c > 0.5", "not c > 0.5")
    everything: dict[str, Value] = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 1.0, "e": 0.1, "kept": "x"}
    assert set(active(space, everything)) == {"a", "b", "c", "d", "kept"}
    # b is gone with a, c with b; what asks about c is then gone too, whatever it asks.
    assert set(active(space, {**everything, "a": 0.0})) == {"a", "kept"}
    assert set(active(space, {**everything, "b": 0.0})) == {"a", "b", "d", "kept"}
    assert active(chained("", ""), everything) == everything


def test_active_never_fails() -> None:
    assert active(chained("", "1 / a > 1"), {"a": 0.0, "b": 0.5}) == {"a": 0.0}
    assert active(chained("b > 0", "a > 0", "c > 0"), {"a": 0.5, "b": 0.5, "c": 0.5}) == {}
    assert active(chained("", "missing > 1", "a +"), {"a": 0.5, "b": 0.5, "c": 1.0}) == {"a": 0.5}
    assert active(chained("", "a > 0"), {"b": 0.5}) == {}


CONDITIONS = st.sampled_from(
    [
        "",
        "a > 0.5",
        "b <= 0.2",
        "not c > 0.3",
        "a > b",
        "d > 0.1 and e > 0.1",
        "f > 0 or a > 0.5",
        "1 / b > 2",
    ]
)


@given(st.lists(CONDITIONS, min_size=6, max_size=6), st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_active_is_idempotent(conditions: list[str], values: list[float]) -> None:
    space = chained(*conditions)
    setting: dict[str, Value] = dict(zip("abcdef", values, strict=True))
    there = active(space, setting)
    assert there.items() <= setting.items()
    assert active(space, there) == there
    assert {p.name for p in space if not p.when} <= set(there)


SETTING: dict[str, Value] = {
    "optimizer.lr": 0.01,
    "model.width": 64,
    "name": "größer",
    "flag": True,
    "none": None,
}


def test_setting_id_is_the_same_everywhere() -> None:
    assert setting_id(SETTING) == "bf77037269ca"
    assert setting_id(dict(reversed(list(SETTING.items())))) == "bf77037269ca"
    turned = dict(reversed(list(SETTING.items())))
    code = f"from orchestrator.space import setting_id; print(setting_id({turned!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PATH": ""},
    )
    assert done.stdout.strip() == "bf77037269ca"


def test_setting_id_tells_settings_apart() -> None:
    settings: list[dict[str, Value]] = [
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": None},
        {"b": 1},
        {"a": 1, "b": 1},
        {},
    ]
    assert len({setting_id(setting) for setting in settings}) == len(settings)


def test_describe_and_show() -> None:
    assert parse("tag(log, interval(1e-4, 1))").describe() == "0.0001 … 1 (log)"
    assert parse("int(interval(1, 9))").describe() == "1 … 9"
    assert parse(["relu", 0.123456, None]).describe() == "{relu, 0.123, None}"
    assert parse("choice(2, 1)").describe() == "{1, 2}"
    assert parse("tag(unordered, choice(2, 1))").describe() == "{2, 1} (no order)"
    assert parse("tag(ordered, choice(low, high))").describe() == "low < high"
    assert parse("interval(0.3, 0.3)").describe() == "0.3"
    conditional = replace(parse("interval(0, 1)"), when="depth > 1")
    assert conditional.describe() == "0 … 1, only when depth > 1"
    assert conditional.span() == "0 … 1"
    assert show(True) == "True"


def test_advice_on_wide_linear_ranges() -> None:
    linear, log = parse("interval(1e-4, 1)"), parse("tag(log, interval(1e-4, 1))")
    assert advice([log]) == []
    assert advice([parse("interval(0, 1000)")]) == []
    (warning,) = advice([linear])
    assert "tag(log, interval(0.0001, 1))" in warning
    whole = parse("int(interval(1, 5000))")
    (warning,) = advice([whole])
    assert warning.endswith("write tag(log, int(interval(1, 5000)))"), "it stays a whole number"
    assert parse(warning.rpartition("write ")[2]) == replace(whole, log=True)
