"""Metrics in a file of JSON lines or CSV that a program writes while it runs."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.programs.patterns import NUMBER, Row, as_number

_STEPS = ("step", "epoch", "iteration", "global_step")
_TABLES = {".csv": ",", ".tsv": "\t"}
# Of a file that grows faster than it is read, a look takes so much.
_MOST_BYTES = 2**24


@dataclass(slots=True)
class Tailed:
    """Metrics in a file that grows: each look gives the rows that are new and whole.

    Attributes:
        path: of the file, which need not be there yet; a name that ends in .csv or .tsv has a header line.
        step: the field that holds the step; None: the first there is of step, epoch, iteration, global_step.
    """

    path: Path
    step: str | None = None
    _offset: int = 0
    _header: list[str] = field(default_factory=list)
    _found: bool = False

    def look(self) -> Iterator[Row]:
        """Give the rows since the last look; a line without its end is left for the next time."""
        while data := self._read():
            whole = data[: data.rfind(b"\n") + 1]
            if not whole and len(data) < _MOST_BYTES:
                return
            # A line longer than that is none of ours.
            self._offset += len(whole) or len(data)
            for line in whole.decode(errors="replace").split("\n"):
                yield from self._rows(line)

    def rest(self) -> Iterator[Row]:
        """Give what is left at the program's end: a line without its end, or all of it as one JSON text."""
        yield from self.look()
        line = self._read().decode(errors="replace")
        self._offset += len(line.encode())
        yield from self._rows(line)
        if self._found or self.path.suffix in _TABLES:
            return
        try:
            content = json.loads(self.path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return
        for each in content if isinstance(content, list) else [content]:
            if isinstance(each, dict) and (row := row_of(each, self.step)) is not None:
                yield row

    def _read(self) -> bytes:
        """Return bytes that are new; of a file that was begun anew, those from its start."""
        try:
            with open(self.path, "rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset, self._header = 0, []
                file.seek(self._offset)
                return file.read(_MOST_BYTES)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return b""

    def _rows(self, line: str) -> Iterator[Row]:
        if line.strip() and (row := self._row(line.strip("\r\n\ufeff"))) is not None:
            self._found = True
            yield row

    def _row(self, line: str) -> Row | None:
        if (delimiter := _TABLES.get(self.path.suffix)) is not None:
            try:
                cells = next(csv.reader([line], delimiter=delimiter), [])
            except csv.Error:
                return None
            if not self._header:
                self._header = [cell.strip() for cell in cells]
                return None
            return row_of(dict(zip(self._header, cells, strict=False)), self.step)
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return row_of(content, self.step) if isinstance(content, dict) else None


def row_of(content: Mapping[str, Any], step_field: str | None = None) -> Row | None:
    """Return a row from a mapping: one field is the step, all other numbers are metrics.

    Numbers of mappings inside are metrics too, as in val/accuracy of {"val": {"accuracy": 0.9}}.

    Args:
        content: of a line.
        step_field: which is the step; None: the first there is of step, epoch, iteration, global_step.

    Returns:
        None where there is no metric.
    """
    values = dict(_numbers(content, ""))
    steps = (step_field,) if step_field else _STEPS
    step = next((int(values[name]) for name in steps if math.isfinite(values.get(name, math.nan))), None)
    metrics = {name: value for name, value in values.items() if name not in (*_STEPS, step_field)}
    return (step, metrics) if metrics else None


def _numbers(content: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{name}/")
        elif _is_number(value):
            yield f"{prefix}{name}", as_number(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return re.fullmatch(NUMBER, value.strip()) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)
