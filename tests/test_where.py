"""The conditions of `orchestrate results --where`: what they mean, and what is said of wrong ones."""

from __future__ import annotations

import operator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator import UserError
from orchestrator.report.where import LONGEST, parse

TABLE = pa.table(
    {
        "trial_id": ["a", "b", "c", "d"],
        "state": ["completed", "failed", "completed", "diverged"],
        "objective": [0.9, None, 0.5, float("inf")],
        "param.optimizer.lr": [1e-3, 0.1, 0.01, 0.5],
        "param.width": [16, 32, 64, None],
        "param.mixed": ["1.5", "true", "é", None],
        "param.in": [1.0, 2.0, 3.0, 4.0],
        "metric.val/top-5": [0.1, 0.2, 0.3, 0.4],
        "metric.loss": [4.0, 3.0, 2.0, 1.0],
        "scale.loss": [1.0, 1.0, 1.0, 1.0],
        "param.a `b` c": ["x", "y", "x", "y"],
        "error": ["", "Out of Memory\nat 3", "", ""],
        "seconds": [1.0, 2.0, 3.0, 4.0],
    }
)
SCHEMA = {field.name: field.type for field in TABLE.schema}


def chosen(condition: str) -> str:
    return "".join(TABLE.filter(parse(condition, SCHEMA).rows(TABLE))["trial_id"].to_pylist())


@pytest.mark.parametrize(
    ("condition", "rows"),
    [
        ("objective > 0.6", "ad"),
        ("objective >= .5 and objective <= 9e-1", "ac"),
        ("0.4 < objective < 0.6", "c"),
        ("0.01 <= param.optimizer.lr", "bcd"),
        ("optimizer.lr == 1e-3 or width == 32", "ab"),
        ("not (objective > 0.6)", "c"),
        ("NOT objective > 0.6 OR state == failed", "bc"),
        ("state == 'failed'", "b"),
        ('state != "completed"', "bd"),
        ("state in (failed, diverged)", "bd"),
        ("state not in (failed, diverged)", "ac"),
        ("width in (16, 64, null)", "acd"),
        ("objective == null", "b"),
        ("objective != nan and width != none", "ac"),
        ("objective < inf", "ac"),
        ("objective > -inf", "acd"),
        ("mixed == 1.5 or mixed == true", "ab"),
        ("mixed == é", "c"),
        ("error contains memory", "b"),
        ("error not contains 'of mem'", "acd"),
        ("val/top-5 > 0.25", "cd"),
        ("metric.val/top-5<=+0.2", "ab"),
        ("seconds > metric.loss", "cd"),
        ("`param.in` > 3", "d"),
        ("trial_id >= 'c'", "cd"),
        ("(((seconds == 1)))", "a"),
        ("(seconds < 2 or seconds > 3) and objective > 0.6", "ad"),
        ("seconds\n>\t3", "d"),
        ("seconds > 1_000", ""),
        ("seconds < 99999999999999999999999999", "abcd"),
    ],
)
def test_a_condition_picks_its_rows(condition: str, rows: str) -> None:
    assert chosen(condition) == rows


@pytest.mark.parametrize(
    ("condition", "says", "at"),
    [
        ("objectve > 1", "no column 'objectve'. Did you mean 'objective'?", 0),
        ("seconds > 1 and lr < 1", "Did you mean 'optimizer.lr'?", 16),
        ("loss > 1", "'loss' may be metric.loss or scale.loss", 0),
        ("objective = 1", "Compare with ==", 10),
        ("seconds > 1 && seconds < 2", "Write and", 12),
        ("objective >", "here should be a column or a value after '>'", 11),
        ("objective", "here should be a comparison after 'objective'", 9),
        ("not", "here should be a comparison such as", 3),
        ("(seconds > 1", "here should be ')'", 12),
        ("seconds > 1)", "')' is not expected", 11),
        ("seconds > 1 seconds > 2", "'seconds' is not expected", 12),
        ("seconds > 'a'", "'seconds' holds numbers", 10),
        ("seconds == true", "'seconds' holds numbers", 11),
        ("seconds == fast", "no column 'fast'", 11),
        ("state > 3", "'state' holds text", 8),
        ("state == seconds", "text and numbers", 9),
        ("state < null", "only == null and != null", 8),
        ("1 < 2", "this compares no column", 0),
        ("seconds in 3", "here should be '(' after in", 11),
        ("seconds in (1, 2", "',' or ')'", 16),
        ("seconds not > 1", "in or contains after not", 12),
        ("seconds contains 1", "only a column of text", 0),
        ("error contains seconds", "Put it in quotes", 15),
        ("state == 'fail", "Close the quotes", 9),
        ("`no such` == 1", "no column 'no such'", 0),
        ("__import__('os').system('x')", "'.' is not understood", 16),
        ("open('x') == 1", "no column 'open'", 0),
        ("(" * 100 + "seconds > 1" + ")" * 100, "nested too deeply", 0),
    ],
)
def test_what_means_nothing_is_said_and_pointed_at(condition: str, says: str, at: int) -> None:
    with pytest.raises(UserError) as raised:
        parse(condition, SCHEMA)
    problem, shown, mark = str(raised.value).rsplit("\n", 2)
    assert says in problem and problem.startswith("--where: ")
    assert condition[at : at + 5] in shown[mark.index("^") :] or at == len(condition)
    assert mark.index("^") - 2 == min(at, 50)


@pytest.mark.parametrize("condition", ["", "  \n", "s > 1 or " * LONGEST])
def test_nothing_and_too_much_are_refused(condition: str) -> None:
    with pytest.raises(UserError, match=r"there is no condition|too long"):
        parse(condition, SCHEMA)


@given(st.text("ab'\"`()<>=!&.,-+1e \n\té", max_size=30) | st.text(max_size=20))
def test_no_text_does_more_than_raise_a_message(text: str) -> None:
    try:
        condition = parse(text, SCHEMA)
    except UserError:
        return
    assert len(condition.rows(TABLE)) == TABLE.num_rows


@settings(max_examples=40)
@given(st.data())
def test_and_or_not_bind_as_in_python(data: st.DataObject) -> None:
    values = data.draw(st.lists(st.tuples(*[st.integers(0, 2)] * 3), min_size=1, max_size=6))
    table = pa.table({name: [row[at] for row in values] for at, name in enumerate("xyz")})
    signs = {"==": operator.eq, "<": operator.lt, ">=": operator.ge, "!=": operator.ne}

    def grow(depth: int) -> str:
        kind = data.draw(st.sampled_from(["is", "is", "not", "and", "or", "()"] if depth else ["is"]))
        if kind == "is":
            name, sign, value = data.draw(
                st.tuples(st.sampled_from("xyz"), st.sampled_from([*signs]), st.integers(0, 2))
            )
            return f"{name} {sign} {value}"
        if kind == "not":
            return f"not {grow(0)}"
        return f"({grow(depth - 1)})" if kind == "()" else f"{grow(depth - 1)} {kind} {grow(depth - 1)}"

    text = grow(3)
    expected = [bool(eval(text, {}, dict(zip("xyz", row, strict=True)))) for row in values]
    found: Any = parse(text, {name: pa.int64() for name in "xyz"}).rows(table)
    assert found.to_pylist() == expected
