"""What the findings of a stage's trials say together: which settings have them, and what that rules out.

For each code the one threshold of one parameter is sought that parts the trials that have the finding from
those that have not best, by Fisher's exact test; chance is ruled out for as many thresholds as were tried.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.diagnosis.curves import EARLY
from orchestrator.diagnosis.finding import (
    DEAD,
    LR_TOO_LARGE,
    LR_TOO_SMALL,
    NAN_GRADIENT,
    NAN_INITIAL,
    NAN_INPUT,
    NAN_OPERATION,
    NO_PLATEAU,
    OVERFITTING,
    PLATEAU,
    RATIO_HIGH,
    RATIO_LOW,
    SATURATED,
    UNDERFITTING,
    UNSTABLE,
    WAITING,
)
from orchestrator.space import CHOICE, Parameter

ABOVE, BELOW, AT = "above", "below", "at"
# Fewer trials say too little, and so does what chance gives more often than this.
FEWEST, CHANCE = 5, 0.01
# Thresholds that are tried of one parameter, at most.
MOST_CUTS = 64
# A range is cut where so many of the trials beyond explode, so few of the others, and so much of it is left.
RULED_OUT, ELSEWHERE, LEFT = 0.8, 0.2, 0.25
EXPLOSIONS = (LR_TOO_LARGE, NAN_GRADIENT, NAN_INITIAL)

_SAYS = {
    LR_TOO_LARGE: "stall at a high loss, or explode",
    LR_TOO_SMALL: "learn too slowly",
    UNDERFITTING: "underfit",
    OVERFITTING: "overfit",
    NAN_INPUT: "meet NaN in their data",
    NAN_OPERATION: "end in NaN from an operation",
    NAN_GRADIENT: "end in NaN from too large a gradient",
    NAN_INITIAL: "end in NaN from their initial values",
    DEAD: "have layers of dead units",
    SATURATED: "have saturated layers",
    RATIO_HIGH: "have updates too large for their weights",
    RATIO_LOW: "have updates too small for their weights",
    UNSTABLE: "predict unstably",
    PLATEAU: "end on a plateau",
    NO_PLATEAU: "get better after what looked like a plateau",
}


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """One trial: its parameters, and of each finding the update at which it showed."""

    params: Mapping[str, Any]
    steps: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class StageFinding:
    """What one code says of a stage.

    Attributes:
        code: of the findings.
        parameter: whose threshold parts the trials; empty where none does, and all trials are meant.
        side: above, below or at the threshold; empty with the parameter.
        threshold: a number, or a choice's value.
        share: of the trials on that side, those that have the finding.
        count: how many that are.
        trials: how many are on that side.
        elsewhere: the share that has it of the other trials.
        sentence: all of it, for a person to read.
    """

    code: str
    parameter: str
    side: str
    threshold: float | str | None
    share: float
    count: int
    trials: int
    elsewhere: float
    sentence: str


def collect(trials: Sequence[Diagnosed]) -> tuple[StageFinding, ...]:
    """Return what each code says of a stage, the most frequent first; the trials' order is irrelevant.

    Args:
        trials: all of the stage, those without a finding among them.
    """
    # Whoever waits says in the end what came of it.
    codes = sorted({code for trial in trials for code in trial.steps} - {WAITING})
    found = [_collected(code, trials) for code in codes]
    return tuple(sorted(found, key=lambda one: (-one.count, one.code)))


def _collected(code: str, trials: Sequence[Diagnosed]) -> StageFinding:
    has = np.asarray([code in trial.steps for trial in trials])
    names = sorted({name for trial in trials for name in trial.params})
    best: tuple[float, str, str, float | str | None, np.ndarray[Any, Any]] | None = None
    for name in names:
        for side, threshold, inside, known in _sides([trial.params.get(name) for trial in trials]):
            chance = _chance(has[known], inside[known])
            if best is None or chance < best[0]:
                best = chance, name, side, threshold, inside
    if best is not None and best[0] < CHANCE and int((has & best[4]).sum()) >= FEWEST:
        _, name, side, threshold, inside = best
    else:
        name, side, threshold, inside = "", "", None, np.ones(len(trials), dtype=bool)
    count, number = int((has & inside).sum()), int(inside.sum())
    rest = int((~inside).sum())
    elsewhere = int((has & ~inside).sum()) / rest if rest else 0.0
    steps = [trial.steps[code] for trial, one in zip(trials, has & inside, strict=True) if one]
    return StageFinding(
        code=code,
        parameter=name,
        side=side,
        threshold=threshold,
        share=count / number,
        count=count,
        trials=number,
        elsewhere=elsewhere,
        sentence=_sentence(code, name, side, threshold, count, number, elsewhere if rest else None, steps),
    )


def _sides(
    values: Sequence[Any],
) -> Iterator[tuple[str, float | str | None, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Give the ways to part trials by one parameter: side, threshold, who is on it, and who has a value."""
    numeric = all(value is None or (isinstance(value, int | float) and value == value) for value in values)
    known = np.asarray([value is not None for value in values])
    if any(isinstance(value, bool) for value in values) or not numeric:
        texts = np.asarray([value if isinstance(value, str) else json.dumps(value) for value in values])
        for text in sorted(set(texts[known])):
            yield AT, str(text), (texts == text) & known, known
        return
    numbers = np.asarray([np.nan if value is None else float(value) for value in values])
    seen = np.unique(numbers[known])
    cuts = list(itertools.pairwise(seen))
    for place in np.unique(np.linspace(0, len(cuts) - 1, min(len(cuts), MOST_CUTS)).round().astype(int)):
        a, b = cuts[place]
        # Between two values, and on a scale of decades in the middle of that.
        cut = float(np.sqrt(a * b)) if a > 0 and seen[-1] > 10 * seen[0] else float(a + b) / 2
        yield ABOVE, cut, numbers > cut, known
        yield BELOW, cut, numbers < cut, known


def _chance(has: np.ndarray[Any, Any], inside: np.ndarray[Any, Any]) -> float:
    """Return how often chance would put so many of the findings on a side, for as many cuts as are tried."""
    from scipy.stats import hypergeom

    total, marked, drawn, hit = len(has), int(has.sum()), int(inside.sum()), int((has & inside).sum())
    if not 0 < drawn < total or hit * total <= marked * drawn:
        return 1.0
    tried = min(total, MOST_CUTS)
    return float(min(1.0, tried * hypergeom.sf(hit - 1, total, marked, drawn)))


def _sentence(
    code: str,
    parameter: str,
    side: str,
    threshold: float | str | None,
    count: int,
    number: int,
    elsewhere: float | None,
    steps: Sequence[int],
) -> str:
    says = _SAYS.get(code, code)
    if code == LR_TOO_LARGE and max(steps) <= EARLY:
        says = f"explode in the first {max(steps)} updates"
    if not parameter:
        return f"{count / number:.0%} of the trials {says} ({count} of {number})"
    value = f"{threshold:.3g}" if isinstance(threshold, float) else threshold
    where = f"with {parameter} {side} {value}" if side != AT else f"with {parameter} {value}"
    other = f"; of the others {elsewhere:.0%}" if elsewhere is not None else ""
    return f"{count / number:.0%} of the trials {where} {says} ({count} of {number}{other})"


Bounds = dict[str, tuple[float | None, float | None, str]]


def bounds(findings: Sequence[StageFinding], space: Sequence[Parameter]) -> Bounds:
    """Return what a stage's explosions rule out of the next ranges: parameter to low, high and the reason.

    Cautious: only where nearly all trials beyond a threshold explode and nearly none before it, the threshold
    lies in the range, and a quarter of the range or more is left.

    Args:
        findings: as `collect` gives them.
        space: the ranges that the stage searched.
    """
    ranges = {parameter.name: parameter for parameter in space if parameter.kind != CHOICE}
    ruled: Bounds = {}
    for one in findings:
        parameter = ranges.get(one.parameter)
        if (
            parameter is None
            or one.code not in EXPLOSIONS
            or one.share < RULED_OUT
            or one.elsewhere > ELSEWHERE
            or not isinstance(one.threshold, float)
            or not parameter.low < one.threshold < parameter.high
        ):
            continue
        place = parameter.to_unit(one.threshold)
        if (place if one.side == ABOVE else 1 - place) < LEFT:
            continue
        low, high, reason = ruled.get(one.parameter, (None, None, ""))
        if one.side == ABOVE:
            high = one.threshold if high is None else min(high, one.threshold)
        else:
            low = one.threshold if low is None else max(low, one.threshold)
        if low is None or high is None or low < high:
            ruled[one.parameter] = low, high, "; ".join(filter(None, [reason, one.sentence]))
    return ruled


def read_stage(records: Path, params: Mapping[str, Mapping[str, Any]]) -> tuple[Diagnosed, ...]:
    """Read the findings of a phase's trials from its record files, of which nothing else is parsed.

    Args:
        records: the folder.
        params: of each trial that counts, by its id.
    """
    steps: dict[str, dict[str, int]] = {trial: {} for trial in params}
    for path in sorted(records.glob("[0-9]*.jsonl")):
        data = path.read_bytes()
        if b'{"kind":"finding"' not in data:
            continue
        for raw in data.split(b"\n"):
            if raw.startswith(b'{"kind":"finding"') and (line := _read(raw)) is not None:
                trial, code, step = line.get("trial"), line.get("code"), line.get("step")
                if trial in steps and isinstance(code, str):
                    steps[trial][code] = step if isinstance(step, int) else 0
    return tuple(Diagnosed(params[trial], found) for trial, found in steps.items())


def _read(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:  # cut short
        return None
    return line if isinstance(line, dict) else None
