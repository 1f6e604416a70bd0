"""The parts of a condition (see `where`), and messages that point at a place in one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import pyarrow as pa

from orchestrator.errors import UserError
from orchestrator.report.columns import matching, near

EXAMPLE = "Write it like: objective > 0.9 and state == completed"
_TOKENS = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
    r"""|`(?P<quoted>[^`]+)`"""
    r"""|(?P<number>[-+]?(?:inf|(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w.]))"""
    # A metric's name may hold almost anything: val/accuracy, top-5, loss@1, layers.0.width.
    r"""|(?P<name>[^\W\d][\w./:@%-]*)"""
    r"""|(?P<sign>==|!=|<=|>=|<|>|\(|\)|,)"""
)
_WORDS = {"and", "or", "not", "in", "contains"}
# A column has no value where a number was none.
_LITERALS: dict[str, Any] = {
    "true": True, "false": False, "null": None, "none": None, "nan": None,
}  # fmt: skip
_MISTAKES = {"=": "Compare with ==", "&": "Write and", "|": "Write or", "!": "Write not", "~": "Write not"}


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a condition: what it is, its value, and where it stands; kinds: column, word, value, sign."""

    kind: str
    value: Any
    place: int
    written: str


def tokens(text: str, schema: Mapping[str, pa.DataType]) -> Iterator[Token]:
    """Give the parts of a condition on a table's columns.

    Raises:
        UserError: a part is none, or names no column or more than one.
    """
    place = 0
    while place < len(text):
        if text[place].isspace():
            place += 1
            continue
        match = _TOKENS.match(text, place)
        if match is None:
            hint = _MISTAKES.get(text[place], "Close the quotes" if text[place] in "'\"`" else EXAMPLE)
            fail(text, place, f"'{text[place]}' is not understood", hint)
        yield _token(text, match, schema)
        place = match.end()


def _token(text: str, match: re.Match[str], schema: Mapping[str, pa.DataType]) -> Token:
    written, place = match[0], match.start()
    if match["text"] is not None:
        return Token("value", re.sub(r"\\(.)", r"\1", written[1:-1]), place, written)
    if match["number"] is not None:
        return Token("value", _number(written), place, written)
    if match["sign"] is not None:
        return Token("sign", written, place, written)
    name = match["quoted"] or written
    if match["quoted"] is None and name.lower() in _WORDS:
        return Token("sign", name.lower(), place, written)
    if match["quoted"] is None and name.lower() in _LITERALS:
        return Token("value", _LITERALS[name.lower()], place, written)
    found = matching(name, schema)
    if len(found) > 1:
        fail(text, place, f"'{name}' may be {' or '.join(found)}")
    if found:
        return Token("column", found[0], place, written)
    if match["quoted"] is not None:
        fail(text, place, f"there is no column '{name}'", near(name, schema))
    return Token("word", name, place, written)


def _number(written: str) -> float | int:
    if re.fullmatch(r"[-+]?[\d_]{1,18}", written):
        return int(written)
    return float(written)


def fail(text: str, place: int, problem: str, hint: str = "") -> NoReturn:
    """Raise a UserError that shows the part of a condition around a place, with a mark below it."""
    start = max(0, place - 50)
    shown = re.sub(r"\s", " ", text[start : place + 30])
    raise UserError(
        f"{problem}{'. ' + hint if hint else ''}\n  {shown}\n  {' ' * (place - start)}^", file="--where"
    )
