"""The page of figures: each data set's table over seeds, and a verdict on two points of accuracy."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

from orchestrator.report.ensemble_words import TWO_POINTS
from orchestrator.results.ensemble_parts import KINDS, METHODS

Row = Mapping[str, Any]


def line(name: str, row: Row) -> str:
    """Return one sweep's figures for the terminal."""
    test = ", ".join(f"{kind} {value:.4f}" for kind, value in row["test"].items())
    return f"{name}, seed {row['seed']}: {test}; {row['combine']}, {row['seconds']:.0f} s"


def write(out: Path, names: Sequence[str]) -> None:
    """Write `results.md` from what lies in `out/results`."""
    stored = {
        name: json.loads(file.read_text())
        for name in names
        if (file := out / "results" / f"{name}.json").exists()
    }
    if not stored:
        return
    lines = ["# What ensembles give here", "", *_verdicts(stored)]
    for name, one in stored.items():
        lines += [
            "",
            f"## {name}",
            "",
            f"{one['says'][0].upper()}{one['says'][1:]}.",
            "",
            *_section(one["rows"]),
        ]
    (out / "results.md").write_text("\n".join([*lines, "", _machines(stored)]) + "\n")


def _verdicts(stored: Mapping[str, Any]) -> list[str]:
    head = [
        "| data | best single | ensemble | gain, points | errors there were | two points (F5) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return head + [_row(name, *_verdict(one["rows"])) for name, one in stored.items()]


def _verdict(rows: Sequence[Row]) -> list[str]:
    single = _test("best_single")
    gained = _spread(rows, _gain("over_best_single"), 100, "+.1f")
    errors = f"{100 * (1 - mean(_values(rows, single))):.1f}%"
    return [_spread(rows, single), _spread(rows, _test("ensemble")), gained, errors, _judged(rows)]


def _judged(rows: Sequence[Row]) -> str:
    """Return the verdict on two points of accuracy, by the mean gain and its standard error over sweeps.

    Of one sweep the error is that of its own bootstrap.
    """
    gains, singles = _values(rows, _gain("over_best_single")), _values(rows, _test("best_single"))
    gained, room = mean(gains), 1 - mean(singles)
    if room < TWO_POINTS:
        return f"no room: {gained / room if room else 0:.0%} of the errors are gone ({_sweeps(len(rows))})"
    if len(gains) > 1:
        error = stdev(gains) / len(gains) ** 0.5
    else:
        ends = rows[0]["gains"]["over_best_single"]
        error = (ends["high"] - ends["low"]) / (2 * 1.96)
    reached = "reached" if gained >= TWO_POINTS else "not reached"
    sure = "" if abs(gained - TWO_POINTS) > 2 * error else ", but not for sure"
    return f"{reached}{sure}: {gained / room:.0%} of the errors are gone ({_sweeps(len(rows))})"


def _sweeps(number: int) -> str:
    return "one sweep" if number == 1 else f"{number} sweeps"


def _section(rows: Sequence[Row]) -> list[str]:
    test = [
        "| | validation | held-out test | over the best single, points |",
        "| --- | --- | --- | --- |",
        *(
            _row(shown, _spread(rows, _validation(key)), _spread(rows, _test(key)), _over(rows, key))
            for key, shown in KINDS.items()
            if _values(rows, _test(key))
        ),
        *(
            _row(
                f"of these: {shown}",
                f"{_spread(rows, _nested(key))} (nested)",
                _spread(rows, _method(key)),
                _points(rows, _method(key)),
            )
            for key, shown in METHODS.items()
            if _values(rows, _method(key))
        ),
    ]
    kinds = list(dict.fromkeys(", ".join(one["kinds"]) for row in rows for one in row.get("ablation") or []))
    added = [
        "| members may differ in | held-out test | over the best single, points |",
        "| --- | --- | --- |",
        *(f"| {kind} | {_spread(rows, _kind(kind))} | {_spread(rows, _kind(kind, 'gain'), 100, '+.1f')} |"
          for kind in kinds),
    ]  # fmt: skip
    return [*test, "", *_each(rows), "", *(added if kinds else []), "", _told(rows)]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _each(rows: Sequence[Row]) -> list[str]:
    """Return each seed's gains with the intervals that the sweep itself gave: over test samples."""
    names = {
        "over_best_single": "ensemble over best single",
        "over_average_member": "over average member",
        "soup_over_best_single": "soup over best single",
        "student_over_labels": "student over labels",
        "student_below_ensemble": "ensemble over student",
    }
    there = [key for key in names if any(key in row.get("gains", {}) for row in rows)]
    head = ["seed", "combined by", *(names[key] for key in there), "test samples"]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for row in rows:
        cells = [str(row["seed"]), row["combine"]]
        for key in there:
            one = row["gains"].get(key)
            cells.append(
                "–" if one is None else
                f"{100 * one['value']:+.1f} ({100 * one['low']:.1f} to {100 * one['high']:.1f})"
            )  # fmt: skip
        lines.append(f"| {' | '.join([*cells, str(row['test_samples'])])} |")
    return lines


def _told(rows: Sequence[Row]) -> str:
    members = median(len(row["members"]) for row in rows)
    candidates, seconds = median(row["candidates"] for row in rows), median(row["seconds"] for row in rows)
    sizes = [row["student"]["chosen"]["params"] for row in rows if row.get("student")]
    students = ", ".join(" ".join(f"{key} {value}" for key, value in size.items()) for size in sizes)
    said = (
        f"Members: {members:g} of {candidates:g} candidates (medians). A sweep took {seconds:.0f} s (median)."
    )
    return said + (f" Students chosen: {students}." if students else "")


def _machines(stored: Mapping[str, Any]) -> str:
    machine = next(iter(stored.values()))["machine"]
    versions = f"Python {machine['python']}, torch {machine['torch']}, scikit-learn {machine['sklearn']}"
    return (
        "± is the standard error over sweeps, each with its own seed and its own split of the data. "
        "Intervals in brackets are 95%, from a paired bootstrap over the test samples of one sweep, and say "
        f"nothing of other splits. {versions}, {machine['cores']} cores ({machine['machine']}), no GPU."
    )


Read = Callable[[Row], float | None]


def _test(key: str) -> Read:
    return lambda row: row["test"].get(key)


def _validation(key: str) -> Read:
    return lambda row: row["validation"].get(key)


def _gain(key: str) -> Read:
    return lambda row: row.get("gains", {}).get(key, {}).get("value")


def _method(key: str) -> Read:
    return lambda row: row.get("methods", {}).get(key, {}).get("value")


def _nested(key: str) -> Read:
    return lambda row: ((row.get("nested") or {}).get("methods") or {}).get(key, {}).get("value")


def _kind(kind: str, key: str = "value") -> Read:
    return lambda row: next(
        (one[key] for one in row.get("ablation") or [] if ", ".join(one["kinds"]) == kind), None
    )


def _over(rows: Sequence[Row], key: str) -> str:
    return "" if key == "best_single" else _points(rows, _test(key))


def _points(rows: Sequence[Row], read: Read) -> str:
    def gained(row: Row) -> float | None:
        value = read(row)
        return None if value is None else value - row["test"]["best_single"]

    return _spread(rows, gained, 100, "+.1f")


def _values(rows: Sequence[Row], read: Read) -> list[float]:
    return [value for row in rows if (value := read(row)) is not None]


def _spread(rows: Sequence[Row], read: Read, unit: float = 1, form: str = ".4f") -> str:
    """Return the mean and its standard error over seeds; a dash where no seed has it."""
    values = [unit * value for value in _values(rows, read)]
    if not values:
        return "–"
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return f"{mean(values):{form}}" + ("" if error is None else f" ± {error:{form.lstrip('+')}}")
