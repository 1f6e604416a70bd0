"""What was found, in the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from orchestrator.inspection.duplicates import PARTS
from orchestrator.inspection.finding import NOTE, PROBLEM, WARNING, counted
from orchestrator.report.layout import table

if TYPE_CHECKING:
    from orchestrator.inspection.columns import Column
    from orchestrator.inspection.examine import Inspection

_COLOURS = {PROBLEM: "red", WARNING: "yellow", NOTE: "cyan"}
_MOST_CLASSES, _MOST_COLUMNS, _MOST_SAMPLES = 12, 12, 8
_BAR = 24  # characters


def show(console: Console, found: Inspection) -> None:
    """Print the findings first, then what they rest on."""
    raw = found.raw
    shape = "x".join(str(each) for each in raw.shape)
    sides = np.bincount(found.parts, minlength=3)
    split = ", ".join(f"{name} {count:,}" for name, count in zip(PARTS, sides, strict=True))
    console.print(
        f"[bold]{escape(found.name)}[/]: {counted(raw.count, 'sample')} of {shape} ({raw.kind}); {split}"
    )
    looked = []
    if found.copies.looked < raw.count:
        looked.append(f"{found.copies.looked:,} were searched for copies")
    if len(found.ids) < raw.count:
        looked.append(
            f"{len(found.ids):,} chosen by hash were compared with each other (--sample changes that)"
        )
    if looked:
        console.print(f"Of them {', and '.join(looked)}.")
    _findings(console, found)
    _classes(console, found)
    _values(console, found)
    _columns(console, found)
    _samples(console, found)


def _findings(console: Console, found: Inspection) -> None:
    console.print()
    if not found.findings:
        console.print("Nothing to remark.")
    for each in found.findings:
        line = Text(f"{each.level:<8} ", style=_COLOURS[each.level])
        body = Text(each.text[:1].upper() + each.text[1:], style="default")
        if each.advice:
            body.append(f"\n→ {each.advice}", style="dim")
        grid = table_without_head()
        grid.add_row(line, body)
        console.print(grid)


def table_without_head() -> Table:
    """Return a grid of two columns."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    return grid


def _classes(console: Console, found: Inspection) -> None:
    if found.balance is None or not found.balance.names:
        return
    pairs = sorted(zip(found.balance.counts, found.balance.names, strict=True), key=lambda pair: -pair[0])
    shown = (
        pairs
        if len(pairs) <= _MOST_CLASSES
        else [*pairs[: _MOST_CLASSES // 2], *pairs[-_MOST_CLASSES // 2 :]]
    )
    rows = table("class", "samples", "", right=("samples",))
    for count, name in shown:
        bar = "█" * round(_BAR * count / max(pairs[0][0], 1))
        rows.add_row(escape(name), f"{count:,}", bar)
    console.print(rows)
    if len(pairs) > len(shown):
        console.print(f"{len(pairs) - len(shown)} classes between them are not shown.", style="dim")


def _values(console: Console, found: Inspection) -> None:
    values = found.values
    if values is None or math.isnan(values.low):
        return
    rows = table("to predict", "low", "25%", "50%", "75%", "high", "mean", "spread", "skew")
    five = (values.low, values.quarter, values.median, values.three_quarters, values.high)
    rest = (values.mean, values.deviation, values.skew)
    rows.add_row("value", *(f"{each:.4g}" for each in (*five, *rest)))
    console.print(rows)
    blocks = "▁▂▃▄▅▆▇█"
    most = max(values.histogram)
    console.print("".join(blocks[min(7, 8 * count // most)] if count else " " for count in values.histogram))


def _columns(console: Console, found: Inspection) -> None:
    def weight(column: Column) -> tuple[float, ...]:
        skew = 0.0 if math.isnan(column.skew) else abs(column.skew)
        return (column.missing + column.infinite, column.constant, bool(column.transform), skew)

    ordered = sorted(found.columns, key=weight, reverse=True)
    numbers = ("gaps", "values", "lowest", "median", "highest", "skew")
    rows = table("column" if found.raw.kind != "images" else "channel", *numbers, "try", right=numbers)
    for cell in rows.columns[1:]:
        cell.no_wrap = True  # a long name gives way, not a number
    rows.columns[0].no_wrap = False
    for each in ordered[:_MOST_COLUMNS]:
        gaps = each.missing + each.infinite
        five = (f"{value:.3g}" for value in (each.low, each.median, each.high))
        advice = "leave out" if each.constant else each.transform
        rows.add_row(
            escape(each.name),
            f"{gaps:,}" if gaps else "",
            f"{each.distinct:,}",
            *five,
            f"{each.skew:.2f}",
            advice,
        )
    if ordered:
        console.print(rows)
    if len(ordered) > _MOST_COLUMNS:
        console.print(
            f"{len(ordered) - _MOST_COLUMNS} more columns are on the page and in --json.", style="dim"
        )


def _samples(console: Console, found: Inspection) -> None:
    raw = found.raw
    if found.doubts and found.doubts.suspects:
        rows = table("label in doubt", "label", "rather", "by", right=("by",))
        for one in found.doubts.suspects[:_MOST_SAMPLES]:
            name = raw.named(int(found.ids[one.place]))
            rows.add_row(
                escape(name),
                escape(found.answer(one.given)),
                escape(found.answer(one.suggested)),
                f"{one.confidence:.2f}",
            )
        console.print(rows)
    if found.copies.groups or found.pairs:
        rows = table("the same", "labels", "parts")
        for group in found.copies.groups[: _MOST_SAMPLES // 2]:
            _add_alike(rows, found, list(group[:4]), f" and {len(group) - 4} more" if len(group) > 4 else "")
        for pair in found.pairs[: _MOST_SAMPLES // 2]:
            _add_alike(rows, found, [pair.first, pair.second], " (nearly)")
        console.print(rows)
    if found.far:
        rows = table("far from all others", "label", "distance", right=("distance",))
        for each in found.far[:_MOST_SAMPLES]:
            rows.add_row(
                escape(raw.named(each.id)), escape(found.label(each.id)), f"{each.times:.2g} × usual"
            )
        console.print(rows)


def _add_alike(rows: Table, found: Inspection, ids: list[int], more: str) -> None:
    names = ", ".join(found.raw.named(number) for number in ids) + more
    labels = ", ".join(dict.fromkeys(found.label(number) for number in ids))
    parts = ", ".join(dict.fromkeys(PARTS[found.parts[number]] for number in ids))
    rows.add_row(escape(names), escape(labels), parts)
