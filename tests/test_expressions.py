"""Expressions of `when` and `tied`: what they compute, and that nothing else gets through."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.space.expressions import (
    Absent,
    Expression,
    ExpressionError,
    as_text,
    literal,
    parse,
    replaced,
)
from orchestrator.space.expressions import with_text as spoken

VALUES: dict[str, Any] = {
    "base_lr": 0.1,
    "batch_size": 128,
    "optimizer": "sgd",
    "optimizer.momentum": 0.9,
    "loss.lambda": 2,
    "layers.0.width": 32,
    "flag": True,
    "zero": 0,
    "widths": [32, 64],
    "none": None,
}


def lookup(name: str) -> Any:
    if name not in VALUES:
        raise Absent(name)
    return VALUES[name]


def value(text: str) -> Any:
    return parse(text).value(lookup)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base_lr * batch_size / 256", 0.05),
        ("1e-3 + 1.5E+2 - .5", 149.501),
        ("-base_lr + +1", 0.9),
        ("7 // 2 + 7 % 4 + 2 ** 3", 14),
        ("loss.lambda * layers.0.width", 64),
        ("min(3, 1, 2) + max(batch_size, 1)", 129),
        ("sqrt(16) + log(exp(1)) + log2(8) + log10(100) + log(8, 2)", 13.0),
        ("abs(-2) + round(2.6) + round(2.345, 1) + floor(2.9) + ceil(2.1)", 12.3),
        ("optimizer == 'sgd'", True),
        ('optimizer != "sgd"', False),
        ("1 < loss.lambda <= 2 < batch_size", True),
        ("optimizer in ('adam', 'sgd') and not zero", True),
        ("optimizer not in ['adam']", True),
        ("zero and 1 / zero", False),
        ("flag or 1 / zero", True),
        ("0.1 if optimizer == 'sgd' else missing", 0.1),
        ("flag == true and none == null", True),
        ("32 in widths", True),
        ("optimizer\n == 'sgd'", True),
        ("3", 3),
        ("round(2.5e0) == 2", True),
    ],
)
def test_values(text: str, expected: Any) -> None:
    result = value(text)
    assert result == (pytest.approx(expected) if isinstance(expected, float) else expected)
    assert isinstance(result, bool) == isinstance(expected, bool)


def test_whole_numbers_stay_whole() -> None:
    assert type(value("batch_size * 2")) is int
    assert type(value("round(batch_size / 3)")) is int
    assert type(value("batch_size / 2")) is float


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("1 / zero", "a division by zero"),
        ("1 % zero", "a division by zero"),
        ("zero ** -1", "a division by zero"),
        ("1e308 * 1e308", "past all bounds"),
        ("9 ** 9 ** 9", "past all bounds"),
        ("9.0 ** 9 ** 9", "past all bounds"),
        ("round(1, -999999999)", "past all bounds"),
        ("exp(10000)", "past all bounds"),
        ("(-8) ** 0.5", "past all bounds, or none"),
        ("log(zero)", "there is no value for 0"),
        ("sqrt(-1)", "there is no value for -1"),
        ("max(1)", "there is no value for 1"),
        ("optimizer * 2", "'sgd' is no number"),
        ("none + 1", "None is no number"),
        ("optimizer < 2", "'sgd' and 2 can't be compared by size"),
        ("1 in optimizer", "'in' asks for a list"),
    ],
)
def test_without_a_value(text: str, problem: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value(text)
    assert problem in caught.value.problem


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("", "is no expression", ""),
        ("a = 1", "is no expression", "Compare with =="),
        ("a && b", "is no expression", "Write and, or, not"),
        ("!a", "is no expression", "Write and, or, not"),
        ("a +", "is no expression", "as in Python"),
        ("a; b", "is no expression", ""),
        ("(" * 400, "is no expression", ""),
        ("-" * 400 + "1", "nested too deeply", ""),
        ("9" * 5000, "is no expression", ""),
        ("1 + " * 10000 + "1", "is too long", ""),
        ("__import__('os')", "there is no function '__import__'", ""),
        ("sqr(2)", "there is no function 'sqr'", "Did you mean 'sqrt'?"),
        ("a.b.sqrt(2)", "there is no function 'a.b.sqrt'", ""),
        ("(1).real", ".real' is not allowed", ""),
        ("a[0]", "'a[0]' is not allowed", ""),
        ("[x for x in a]", "no expression", ""),
        ("lambda: 1", "no expression", ""),
        ("f'{a}'", "no expression", ""),
        ("b'a'", "no expression", ""),
        ("1j", "neither a number nor text", ""),
        ("...", "neither a number nor text", ""),
        ("1e999", "past all bounds", ""),
        ("a is b", "'is' compares nothing", "Compare with =="),
        ("a @ b", "not allowed", ""),
        ("a << 2", "not allowed", ""),
        ("min(*a)", "there is no function 'min'", ""),
        ("min(key=1)", "no function 'min'", ""),
        ("{1: 2}", "'{1: 2}' is not allowed", ""),
    ],
)
def test_what_is_not_let_through(text: str, problem: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert problem in caught.value.problem
    assert hint in caught.value.hint


def test_names() -> None:
    assert parse("min(a.b, c) * a.b + log(2)").names == ("a.b", "c")
    with pytest.raises(Absent, match="missing"):
        value("missing + 1")


CHOICES: dict[str, tuple[Any, ...]] = {
    "optimizer": ("sgd", "adam"),
    "schedule.name": ("none", "cosine"),
    "lr": (),
    "on": (True, False),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer == sgd", "optimizer == 'sgd'"),
        ("sgd != optimizer", "'sgd' != optimizer"),
        ("optimizer in (sgd, adam)", "optimizer in ('sgd', 'adam')"),
        ("schedule.name == none and lr > 1", "schedule.name == 'none' and lr > 1"),
        ("1 if optimizer == adam else lr", "1 if optimizer == 'adam' else lr"),
        ("optimizer == 'sgd'", "optimizer == 'sgd'"),
        ("optimizer == schedule.name", "optimizer == schedule.name"),
    ],
)
def test_bare_words_are_text(text: str, expected: str) -> None:
    assert spoken(parse(text), CHOICES.get).text == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("optimizer == sdg", "optimizer is never 'sdg'. Did you mean 'sgd'?"),
        ("optimizer in (sgd, adma)", "optimizer is never 'adma'. Did you mean 'adam'?"),
        ("lr == sgd", "lr is never 'sgd'. Text is written in quotes"),
    ],
)
def test_bare_words_that_are_no_choice(text: str, hint: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        spoken(parse(text), CHOICES.get)
    assert str(caught.value) == hint


def test_replacing_leaves_the_original() -> None:
    original = parse("x ** 2 + min(x, y)")
    changed = replaced(original, {"x": literal(-3), "y": parse("a if b else 1").tree})
    assert changed.text == "(-3) ** 2 + min((-3), a if b else 1)"
    assert parse(changed.text).value(lambda name: 0) == 6
    assert parse("x ** 2 + min(x, y)").names == original.names == ("x", "y")


@pytest.mark.parametrize(("given", "text"), [(3, "3"), (1e-05, "1e-05"), (True, "True"), ("a * 2", "a * 2")])
def test_numbers_of_yaml_are_expressions(given: Any, text: str) -> None:
    assert as_text(given) == text
    assert isinstance(parse(text), Expression)


@pytest.mark.parametrize("given", [None, "", [1], {"a": 1}])
def test_other_things_of_yaml_are_none(given: Any) -> None:
    with pytest.raises(ExpressionError, match="where an expression belongs"):
        as_text(given)


def leaves() -> st.SearchStrategy[str]:
    names = st.sampled_from([*VALUES, "missing", "sqrt", "lambda.if"])
    numbers = st.one_of(st.integers(0, 10**6), st.floats(0, allow_nan=False)).map(str)
    return st.one_of(names, numbers, st.text(max_size=4).map(repr), st.sampled_from(["true", "null"]))


def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    operators = st.sampled_from(
        ["+", "-", "*", "/", "//", "%", "**", "<", "<=", "==", "!=", "and", "or", "in", "not in", "@", "="]
    )
    return st.one_of(
        st.tuples(inner, operators, inner).map(lambda parts: "({} {} {})".format(*parts)),
        inner.map(lambda part: f"not {part}"),
        inner.map(lambda part: f"-{part}"),
        st.tuples(st.sampled_from(["min", "log", "round", "exp", "open"]), inner, inner).map(
            lambda parts: "{}({}, {})".format(*parts)
        ),
        st.tuples(inner, inner, inner).map(lambda parts: "({} if {} else {})".format(*parts)),
    )


@given(st.one_of(st.text(max_size=60), st.recursive(leaves(), grow, max_leaves=12)))
@example("\x00")
@example("'\\N{x}'")
@example("'\\d' == 1 is 1")
@example("_0 + __1")
@example("x\n+ 1 # y")
def test_any_text_has_a_value_or_says_why_not(text: str) -> None:
    try:
        result = value(text)
    except (ExpressionError, Absent):
        return
    assert not isinstance(result, float) or math.isfinite(result)


@given(st.recursive(leaves(), grow, max_leaves=12))
def test_the_text_of_an_expression_means_the_same(text: str) -> None:
    try:
        once = parse(text)
        result = once.value(lookup)
    except (ExpressionError, Absent):
        return
    again = parse(once.text)
    assert again.names == once.names
    assert again.value(lookup) == result
