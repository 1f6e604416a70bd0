"""Rows in a terminal: a table that fits it, or one value to a line; and plain text for pipes."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click
from rich.cells import cell_len, set_cell_size

from orchestrator.report.columns import short

GAP = "  "
# Cells of a column of text in a terminal's table; of a value in a vertical layout, however narrow it is.
MOST_OF_TEXT, LEAST_OF_TEXT = 40, 20
LONGEST_LINE = 1_000_000

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Fitted:
    """Lines that fit a width, and the names of the columns for which there was no room."""

    lines: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def table_lines(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], width: int | None, *, bold: bool = False
) -> Fitted:
    """Return rows as a table.

    Args:
        rows: by column.
        names: of the columns, the most important first: those for which there is no room are dropped.
        width: cells that a line may have; None for no limit, with nothing cut.
        bold: the head is emphasized.
    """
    heads = {name: visible(short(name)) for name in names}
    cells = {name: [cell(row[name]) for row in rows] for name in names}
    most = None if width is None else MOST_OF_TEXT
    widths = {name: _width([heads[name], *cells[name]], most) for name in names}
    shown = list(names)
    while (
        len(shown) > 1 and width is not None and sum(widths[n] + len(GAP) for n in shown) - len(GAP) > width
    ):
        shown.pop()
    right = {name for name in shown if any(_is_number(row[name]) for row in rows)}
    head = _line([_placed(heads[name], widths[name], name in right) for name in shown])
    lines = [
        _line([_placed(cells[name][index], widths[name], name in right) for name in shown])
        for index in range(len(rows))
    ]
    dropped = tuple(heads[name] for name in names[len(shown) :])
    return Fitted((click.style(head, bold=True) if bold else head, *lines), dropped)


def vertical_lines(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], width: int | None = None
) -> Iterator[str]:
    """Give rows with one value to a line, an empty line between two rows; nothing is cut.

    Args:
        rows: by column.
        names: of the columns.
        width: cells after which a value goes on in the next line; None for no limit.
    """
    indent = max((cell_len(visible(name)) for name in names), default=0)
    room = LONGEST_LINE if width is None else max(LEAST_OF_TEXT, width - indent - len(GAP))
    for index, row in enumerate(rows):
        if index:
            yield ""
        for name in names:
            value = row[name]
            parts = _wrapped(value, room) if isinstance(value, str) else [cell(value)]
            for number, part in enumerate(parts):
                label = set_cell_size(visible(name), indent) if number == 0 else " " * indent
                yield f"{label}{GAP}{part}".rstrip()


def cell(value: object) -> str:
    """Return a value as a table shows it, in one line."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4g}"
    # Of a traceback the last line says what happened.
    lines = [line for line in str(value).splitlines() if line.strip()]
    return visible(lines[-1].strip()) if lines else ""


def visible(text: str) -> str:
    """Return text without what would steer the terminal: that is written as Python would."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def _wrapped(text: str, width: int) -> list[str]:
    """Return a text's lines, those that are too long as several."""
    lines = [visible(line.expandtabs(4)) for line in text.strip("\n").splitlines()]
    return [part for line in lines for part in textwrap.wrap(line, width, drop_whitespace=False) or [""]] or [
        ""
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _width(texts: Sequence[str], most: int | None) -> int:
    widest = max(map(cell_len, texts))
    return widest if most is None else min(widest, max(most, cell_len(texts[0])))


def _placed(text: str, width: int, right: bool) -> str:
    if cell_len(text) > width:
        return set_cell_size(text, width - 1) + "…"
    return " " * (width - cell_len(text)) + text if right else set_cell_size(text, width)


def _line(cells: Sequence[str]) -> str:
    return GAP.join(cells).rstrip()
