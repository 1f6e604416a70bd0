"""What the terminal's tables have in common: their looks, durations and costs in words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich import box
from rich.table import Table


def duration(seconds: float | None) -> str:
    """Return seconds for a person to read."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def hours(value: float | None, unit: str) -> str:
    """Return GPU-hours or core-hours for a person to read."""
    if value is None:
        return "not known before the first trials"
    if value == 0:
        return f"0 {unit}-hours"
    amount = f"{value:.1f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else f"{value:.4f}"
    return f"{amount} {unit}-hours"


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table in the style of all of them."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        # What a row is about is never cut; the other columns fold on a narrow terminal.
        result.add_column(column, justify=justify, overflow="fold", no_wrap=index == 0)
    return result
