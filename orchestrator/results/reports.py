"""Reported values as columns: what the report lines of record files say.

pyarrow reads lines as the worker writes them, many at a time and without Python's lock. Whatever it takes
for anything else, or might take otherwise than Python does, is read line by line: the slow way decides what
a line says, the fast one only says the same sooner.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from orchestrator.results.schema import text
from orchestrator.sweep import records

# How the worker writes a report; another program may write its keys in another order.
PREFIX = b'{"kind":"report",'
# Steps are whole numbers that a float64 holds.
MOST_STEPS = 2**53

_FIXED = pa.schema([("trial", pa.string()), ("step", pa.float64()), ("time", pa.float64())])
# pyarrow takes null for a key that is not there, and infinity for a number.
_UNLIKE = re.compile(rb":\s*-?(?:null|Inf|NaN)")
_BLOCK_BYTES = 2**26


@dataclass(frozen=True, slots=True)
class Reports:
    """Reported values, a row for each metric of each report, in the order of files and lines.

    Attributes:
        trials: the names that `trial` counts through.
        metrics: the names that `metric` counts through, sorted.
        file: of each row, the number of its file.
        start: how often its trial had started in this file.
        trial: the number of its trial.
        step: the reported step.
        metric: the number of its metric.
        value: the reported value; NaN where it is none.
        time: seconds since the epoch; NaN where it is none.
    """

    trials: tuple[str, ...]
    metrics: tuple[str, ...]
    file: NDArray[np.int64]
    start: NDArray[np.int64]
    trial: NDArray[np.int64]
    step: NDArray[np.int64]
    metric: NDArray[np.int64]
    value: NDArray[np.float64]
    time: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)


@dataclass(frozen=True, slots=True)
class Lines:
    """The report lines of one file.

    Attributes:
        file: its number.
        raw: the lines.
        places: the number of each among all lines of the file.
        begun: by trial, the numbers of the lines at which it started.
        usual: all of them begin as the worker writes them.
    """

    file: int
    raw: Sequence[bytes]
    places: Sequence[int]
    begun: Mapping[str, Sequence[int]]
    usual: bool


def read_reports(files: Sequence[Lines]) -> tuple[Reports, dict[int, int]]:
    """Read report lines.

    Returns:
        What they report, and by the file's number how many of its lines make no sense.
    """
    if (whole := _at_once(files)) is not None:
        return whole, {}
    parts, unreadable = [], {}
    for one in files:
        part = _at_once([one]) if len(files) > 1 else None
        if part is None:
            part, unreadable[one.file] = _by_line(one)
        parts.append(part)
    return join(parts, [0] * len(parts)), unreadable


def join(parts: Sequence[Reports], files: Sequence[int]) -> Reports:
    """Put several together, one after another.

    Args:
        parts: of which each counts its files from 0 on.
        files: how many each of them counts.
    """
    first = np.cumsum([0, *files])
    trials = tuple(dict.fromkeys(chain.from_iterable(one.trials for one in parts)))
    metrics = tuple(sorted(set(chain.from_iterable(one.metrics for one in parts))))
    return Reports(
        trials=trials,
        metrics=metrics,
        file=_joined([one.file + start for one, start in zip(parts, first, strict=False)], np.int64),
        start=_joined([one.start for one in parts], np.int64),
        trial=_joined([_renumbered(one.trial, one.trials, trials) for one in parts], np.int64),
        step=_joined([one.step for one in parts], np.int64),
        metric=_joined([_renumbered(one.metric, one.metrics, metrics) for one in parts], np.int64),
        value=_joined([one.value for one in parts], np.float64),
        time=_joined([one.time for one in parts], np.float64),
    )


def _joined(columns: Sequence[NDArray[Any]], kind: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *columns])


def _renumbered(codes: NDArray[np.int64], names: Sequence[str], among: Sequence[str]) -> NDArray[np.int64]:
    place = {name: number for number, name in enumerate(among)}
    return np.asarray([place[name] for name in names], dtype=np.int64)[codes]


def _at_once(files: Sequence[Lines]) -> Reports | None:
    """Read lines by pyarrow; None where one of them is not just as the worker writes them."""
    count = sum(len(one.raw) for one in files)
    if count == 0:
        return join([], [])
    content = b"\n".join(chain.from_iterable(one.raw for one in files))
    # Bytes that are no ASCII may be no text at all.
    if not all(one.usual for one in files) or not content.isascii() or _may_differ(content):
        return None
    try:
        table = pj.read_json(
            pa.BufferReader(content),
            read_options=pj.ReadOptions(use_threads=False, block_size=min(len(content), _BLOCK_BYTES) + 1),
            parse_options=pj.ParseOptions(explicit_schema=_FIXED),
        ).combine_chunks()
    except pa.ArrowInvalid:
        return None
    if table.num_rows != count or not _is_usual(table):
        return None
    found = _columns(table, files)
    # A number with too many digits, which is none to Python.
    return None if np.isinf(found.value).any() or np.isinf(found.time).any() else found


def _may_differ(content: bytes) -> bool:
    # The words are looked for first, which is ten times as fast as the expression.
    return any(word in content for word in (b"null", b"Inf", b"NaN")) and bool(_UNLIKE.search(content))


def _is_usual(table: pa.Table) -> bool:
    if "metrics" not in table.column_names or not pa.types.is_struct(
        kind := table.schema.field("metrics").type
    ):
        return False
    numeric = all(one.type in (pa.int64(), pa.float64()) for one in kind)
    if not numeric or any(table[name].null_count for name in ("trial", "step", "metrics")):
        return False
    most = pc.max(pc.abs(table["step"])).as_py()
    return bool(most < MOST_STEPS)


def _columns(table: pa.Table, files: Sequence[Lines]) -> Reports:
    trials = table["trial"].combine_chunks().dictionary_encode()
    found = table["metrics"].combine_chunks()
    named = sorted((field.name, place) for place, field in enumerate(found.type))
    fields = [found.field(place) for _, place in named]
    values = np.empty((table.num_rows, len(fields)))
    there = np.ones(values.shape, dtype=bool)
    for place, one in enumerate(fields):
        values[:, place] = one.to_numpy(zero_copy_only=False)
        if one.null_count:
            there[:, place] = one.is_valid().to_numpy(zero_copy_only=False)
    file = np.repeat([one.file for one in files], [len(one.raw) for one in files])
    line = np.fromiter(chain.from_iterable(one.places for one in files), np.int64, table.num_rows)
    names = trials.dictionary.to_pylist()
    trial = trials.indices.to_numpy().astype(np.int64)
    rows, metric = np.nonzero(there)
    return Reports(
        trials=tuple(names),
        metrics=tuple(name for name, _ in named),
        file=file[rows],
        start=_starts(files, file, line, names, trial)[rows],
        trial=trial[rows],
        step=table["step"].to_numpy().astype(np.int64)[rows],
        metric=metric,
        value=values[there],
        time=table["time"].to_numpy()[rows],
    )


def _starts(
    files: Sequence[Lines],
    file: NDArray[np.int64],
    line: NDArray[np.int64],
    trials: Sequence[str],
    trial: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return for some lines how often their trial had started before, in the same file."""
    place = {name: number for number, name in enumerate(trials)}
    begun = [
        (one.file * len(trials) + place[name], at)
        for one in files
        for name, lines in one.begun.items()
        if name in place
        for at in lines
    ]
    numbers = np.asarray(begun, dtype=np.int64).reshape(-1, 2)
    most = max(numbers[:, 1].max(initial=0), line.max(initial=0)) + 1
    starts = np.sort(numbers[:, 0] * most + numbers[:, 1])
    own = (file * len(trials) + trial) * most
    before: NDArray[np.int64] = np.searchsorted(starts, own + line) - np.searchsorted(starts, own)
    return before


def _by_line(lines: Lines) -> tuple[Reports, int]:
    """Read a file's lines one by one; returns also how many make no sense."""
    columns: tuple[list[Any], ...] = ([], [], [], [], [], [])
    unreadable = 0
    for raw, place in zip(lines.raw, lines.places, strict=True):
        if (said := _said(raw)) is None:
            unreadable += 1
            continue
        trial, step, metrics, time = said
        for name, value in metrics.items():
            row = (place, trial, step, text(name), records.number(value), time)
            for column, cell in zip(columns, row, strict=True):
                column.append(cell)
    places, trials, steps, names, values, times = columns
    own, metric_names = tuple(dict.fromkeys(trials)), tuple(sorted(set(names)))
    trial_of = {name: count for count, name in enumerate(own)}
    metric_of = {name: count for count, name in enumerate(metric_names)}
    file = np.full(len(trials), lines.file, dtype=np.int64)
    codes = np.asarray([trial_of[name] for name in trials], dtype=np.int64)
    reports = Reports(
        trials=own,
        metrics=metric_names,
        file=file,
        start=_starts([lines], file, np.asarray(places, dtype=np.int64), own, codes),
        trial=codes,
        step=np.asarray(steps, dtype=np.int64),
        metric=np.asarray([metric_of[name] for name in names], dtype=np.int64),
        value=np.asarray(values, dtype=np.float64),
        time=np.asarray(times, dtype=np.float64),
    )
    return reports, unreadable


def _said(raw: bytes) -> tuple[str, int, dict[str, Any], float] | None:
    """Return the trial, step, metrics and time of a report; None of a line that makes no sense."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    # A key that stands there twice has its last value.
    if line["kind"] != "report":
        return None
    trial, step, metrics = line.get("trial"), records.number(line.get("step")), line.get("metrics")
    if not isinstance(trial, str) or not isinstance(metrics, dict) or not abs(step) < MOST_STEPS:
        return None
    return trial, int(step), metrics, records.number(line.get("time"))
