"""Facts as plain JSON: what `asdict` made plain is read back as it was, and nothing else is taken for it."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sweep.plain import fact_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    share: float
    name: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    count: int
    inner: Inner
    many: tuple[Inner, ...] = ()
    tasks: tuple[tuple[str, ...], ...] = ()
    kept: int | tuple[str, ...] = 0
    hours: float | None = None
    done: bool = False
    anything: tuple[Any, ...] | None = None
    rest: Inner = field(default_factory=lambda: Inner(share=1.0))


texts, numbers = st.text(max_size=3), st.floats(allow_nan=False)
inners = st.builds(Inner, share=numbers, name=texts)
outers = st.builds(
    Outer,
    count=st.integers(),
    inner=inners,
    many=st.lists(inners, max_size=2).map(tuple),
    tasks=st.lists(st.lists(texts, max_size=2).map(tuple), max_size=2).map(tuple),
    kept=st.integers() | st.lists(texts, max_size=2).map(tuple),
    hours=st.none() | numbers,
    done=st.booleans(),
    anything=st.none() | st.lists(st.integers() | texts, max_size=2).map(tuple),
    rest=inners,
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda inside: st.lists(inside, max_size=2) | st.dictionaries(texts, inside, max_size=2),
    max_leaves=4,
)


@given(outers)
def test_what_was_made_plain_comes_back(fact: Outer) -> None:
    assert fact_of(Outer, json.loads(json.dumps(asdict(fact)))) == fact


@given(outers, st.sampled_from([each.name for each in fields(Outer)]), plain)
def test_any_other_value_is_refused_or_comes_back_as_it_is(fact: Outer, name: str, value: object) -> None:
    content = json.loads(json.dumps(asdict(fact))) | {name: value}
    try:
        read = fact_of(Outer, content)
    except TypeError as error:
        assert name in str(error)
    else:
        assert json.loads(json.dumps(asdict(read)))[name] == value


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ([], "object"),
        ({"count": 1}, "inner"),
        ({"count": True, "inner": {"share": 1}}, "$.count"),
        ({"count": 1, "inner": {"share": "1"}}, "$.inner.share"),
        ({"count": 1, "inner": {"share": 1}, "kept": None}, "$.kept"),
        ({"count": 1, "inner": {"share": 1}, "many": [3]}, "$.many[0]"),
    ],
)
def test_what_is_wrong_is_said(content: object, place: str) -> None:
    with pytest.raises(TypeError, match=re.escape(place)):
        fact_of(Outer, content)


def test_what_a_later_version_has_added_is_passed_over() -> None:
    assert fact_of(Inner, {"share": 1, "colour": "red"}) == Inner(share=1.0)
