"""The conditions of `orchestrate results --where`: `objective > 0.9 and optimizer.lr < 1e-2`.

A small grammar of its own, because the names of metrics are no names to Python (val/accuracy, top-5); each
comparison is done by pyarrow on a whole column. Nothing is ever evaluated as code.

    condition  := both ("or" both)*
    both       := one ("and" one)*
    one        := "not" one | "(" condition ")" | comparison
    comparison := operand (("==" | "!=" | "<" | "<=" | ">" | ">=") operand)+
                | column ["not"] "in" "(" value ("," value)* ")"
                | column ["not"] "contains" text

Operands are columns, numbers, text in quotes, true, false and null; a bare word beside a column of text is
text. As in SQL, a missing value fulfils no comparison, and `== null` asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.errors import UserError
from orchestrator.report.columns import near
from orchestrator.report.tokens import EXAMPLE, Token, fail, tokens

LONGEST, DEEPEST = 20_000, 60

Mask = Any  # a boolean array of pyarrow with a value, or null, for each row
Rows = Callable[[pa.Table], Mask]

_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": pc.equal, "!=": pc.not_equal, "<": pc.less, "<=": pc.less_equal,
    ">": pc.greater, ">=": pc.greater_equal,
}  # fmt: skip
_MIRRORED = {"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was read.

    Attributes:
        text: as it was written.
        columns: that it asks for.
        rows: gives for each row of a table whether it fulfils the condition, null where nobody knows.
        texts: columns and the text that each is compared with: where nothing is found, one may be misspelt.
    """

    text: str
    columns: tuple[str, ...]
    rows: Rows
    texts: tuple[tuple[str, str], ...]


def parse(text: str, schema: Mapping[str, pa.DataType]) -> Condition:
    """Read a condition on a table's columns.

    A parameter, metric or scale may be named without its prefix where that is one column only.

    Args:
        text: the condition.
        schema: the columns' names and types.

    Raises:
        UserError: it can't be read, or compares what can't be compared; the message points at the place.
    """
    if len(text) > LONGEST:
        raise UserError(f"a condition of {len(text):,} characters is too long", file="--where")
    if not text.strip():
        raise UserError("there is no condition", file="--where", hint=EXAMPLE)
    found = list(tokens(text, schema))
    reader = _Reader(text, found, schema)
    columns = dict.fromkeys(token.value for token in found if token.kind == "column")
    return Condition(text, tuple(columns), reader.whole(), tuple(reader.texts))


class _Reader:
    """Reads a condition from its tokens, by recursive descent."""

    def __init__(self, text: str, tokens: Sequence[Token], schema: Mapping[str, pa.DataType]) -> None:
        self._text, self._tokens, self._schema = text, tokens, schema
        self._next = self._depth = 0
        self.texts: list[tuple[str, str]] = []

    def whole(self) -> Rows:
        """Return the function of the whole text."""
        rows = self._condition()
        if (token := self._peek()) is not None:
            hint = self._hint(token) if token.kind == "word" else EXAMPLE
            self._fail(token, f"'{token.written}' is not expected here", hint)
        return rows

    def _peek(self) -> Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def _take(self, *signs: str) -> Token | None:
        """Return the next token if it is one of these signs, and go on."""
        token = self._peek()
        if token is None or token.kind != "sign" or token.value not in signs:
            return None
        self._next += 1
        return token

    def _condition(self) -> Rows:
        parts = [self._both()]
        while self._take("or"):
            parts.append(self._both())
        return _joined(pc.or_kleene, parts)

    def _both(self) -> Rows:
        parts = [self._one()]
        while self._take("and"):
            parts.append(self._one())
        return _joined(pc.and_kleene, parts)

    def _one(self) -> Rows:
        self._depth += 1
        if self._depth > DEEPEST:
            fail(self._text, 0, "this is nested too deeply")
        if self._take("not"):
            inner = self._one()
            rows = _inverted(inner)
        elif self._take("("):
            rows = self._condition()
            if not self._take(")"):
                self._expected("')'")
        else:
            rows = self._comparison()
        self._depth -= 1
        return rows

    def _comparison(self) -> Rows:
        left = self._operand("a comparison such as objective > 0.9")
        if (negated := self._take("not")) is not None or self._peek_is("in", "contains"):
            rows = self._in(left) if self._take("in") else self._contains(left)
            return _inverted(rows) if negated else rows
        parts = []
        while sign := self._take(*_COMPARE):
            right = self._operand(f"a column or a value after '{sign.value}'")
            parts.append(self._compared(left, sign.value, right))
            left = right
        if not parts:
            if left.kind == "word":
                self._unknown(left)
            self._expected(f"a comparison after '{left.written}', such as == or >")
        return _joined(pc.and_kleene, parts)

    def _peek_is(self, *signs: str) -> bool:
        token = self._peek()
        return token is not None and token.kind == "sign" and token.value in signs

    def _operand(self, wanted: str) -> Token:
        token = self._peek()
        if token is None or token.kind == "sign":
            self._expected(wanted)
        self._next += 1
        return token

    def _in(self, left: Token) -> Rows:
        if not self._take("("):
            self._expected("'(' after in, as in: in (16, 32)")
        parts = []
        while True:
            parts.append(self._compared(left, "==", self._operand("a value")))
            if not self._take(","):
                break
        if not self._take(")"):
            self._expected("',' or ')'")
        return _joined(pc.or_kleene, parts)

    def _contains(self, left: Token) -> Rows:
        if not self._take("contains"):
            self._expected("in or contains after not")
        text = self._operand("text after contains")
        if left.kind == "word":
            self._unknown(left)
        if left.kind != "column" or not self._is_text(left):
            self._fail(left, "only a column of text contains something")
        if text.kind == "column":
            self._fail(text, "contains asks for text", "Put it in quotes")
        wanted = text.value if isinstance(text.value, str) else text.written
        return lambda table: pc.match_substring(table[left.value], wanted, ignore_case=True)

    def _is_text(self, column: Token) -> bool:
        kind = self._schema[column.value]
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    def _compared(self, left: Token, operator: str, right: Token) -> Rows:
        """Return the function of one comparison."""
        if left.kind != "column":
            left, right, operator = right, left, _MIRRORED[operator]
        if left.kind != "column":
            for token in (right, left):
                if token.kind == "word":
                    self._unknown(token)
            self._fail(right, "this compares no column", EXAMPLE)
        compare = _COMPARE[operator]
        if right.kind == "column":
            if self._is_text(left) != self._is_text(right):
                self._fail(right, "text and numbers can't be compared")
            return lambda table: compare(table[left.value], table[right.value])
        if right.kind == "word" and not self._is_text(left):
            self._unknown(right)
        if right.value is None:
            if operator not in ("==", "!="):
                self._fail(right, "there is only == null and != null")
            test = pc.is_null if operator == "==" else pc.is_valid
            return lambda table: test(table[left.value])
        value = self._as_held(left, operator, right)
        return lambda table: compare(table[left.value], value)

    def _as_held(self, column: Token, operator: str, given: Token) -> pa.Scalar:
        """Return a value as a column would hold it."""
        value = given.value
        if not self._is_text(column):
            if isinstance(value, str | bool):
                self._fail(given, f"'{column.value}' holds numbers")
            return pa.scalar(value)
        if isinstance(value, str):
            self.texts.append((column.value, value))
            return pa.scalar(value)
        if operator not in ("==", "!="):
            self._fail(given, f"'{column.value}' holds text, which is not smaller or larger than a number")
        # A parameter's values of several kinds are kept as JSON: true, 1.5
        return pa.scalar(json.dumps(value))

    def _hint(self, token: Token) -> str:
        return near(token.value, self._schema)

    def _unknown(self, token: Token) -> NoReturn:
        self._fail(token, f"there is no column '{token.value}'", self._hint(token))

    def _expected(self, wanted: str) -> NoReturn:
        token = self._peek()
        place = len(self._text) if token is None else token.place
        fail(self._text, place, f"here should be {wanted}")

    def _fail(self, token: Token, problem: str, hint: str = "") -> NoReturn:
        fail(self._text, token.place, problem, hint)


def _inverted(rows: Rows) -> Rows:
    return lambda table: pc.invert(rows(table))


def _joined(operator: Callable[[Any, Any], Any], parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return lambda table: reduce(operator, (part(table) for part in parts))
