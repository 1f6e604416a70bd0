"""What each stage's results ruled out, in sentences: its ranges beside those of the stage before, and why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.space.parameter import show

MOST_CUTS = 6  # of one stage; the table of ranges has all
MOST_VALUES = 8  # of a choice
SAME = 1e-9  # what ranges differ by less is rounding
# Clauses of a reason that say how sure it is, which the table of ranges has.
_HOW_SURE = ("importance ", "cut ", "the lower end is", "the upper end is", "neither end ")

Space = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one parameter's range from one stage to the next.

    Attributes:
        name: of the parameter.
        cut: what is no longer searched, for a person; empty where nothing is.
        added: what is searched since, that was not before.
        held: whether it has one value now.
        lost: the share of the range, or of the values, that is gone.
        why: the reason that was written down, without how sure it is.
    """

    name: str
    cut: str
    added: str
    held: bool
    lost: float
    why: str


def ruled_out(spaces: Mapping[str, Space], stages: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return for each stage that was narrowed to: what leads in, and what was ruled out, largest cut first.

    Args:
        spaces: for each stage that has been drawn, its ranges, as `Results.spaces`.
        stages: in order.
    """
    known = [stage for stage in stages if stage in spaces]
    told = []
    searched: dict[str, Mapping[str, Any]] = {}
    for before, after in itertools.pairwise(known):
        # What was held at one value has the range of before once it is searched again.
        searched |= {name: spec for name, spec in spaces[before].items() if not _constant(spec)}
        changes = [
            change(name, searched[name], spec) for name, spec in spaces[after].items() if name in searched
        ]
        told.append((_leading(before, after, changes), _sentences(changes)))
    return told


def change(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Change:
    """Compare two ranges of one parameter."""
    why = _why(str(after.get("reason", "")))
    held = _constant(after)
    if held:
        return Change(name, "", "", True, 0.0, why)
    if "values" in before or "values" in after:
        old, new = list(before.get("values", ())), list(after.get("values", ()))
        gone, back = _without(old, new), _without(new, old)
        return Change(name, _listed(gone), _listed(back), False, len(gone) / max(1, len(old)), why)
    ends = _ends(before), _ends(after)
    width = ends[0][1] - ends[0][0] or 1.0
    low, high = ((ends[1][side] - ends[0][side]) / width for side in (0, 1))
    cut = _sides((f"below {show(after['low'])}", low > SAME), (f"above {show(after['high'])}", high < -SAME))
    added = _sides(
        (f"down to {show(after['low'])}", low < -SAME), (f"up to {show(after['high'])}", high > SAME)
    )
    return Change(name, cut, added, False, max(0.0, low) + max(0.0, -high), why)


def _leading(before: str, after: str, changes: Sequence[Change]) -> str:
    cut = sum(bool(one.cut) for one in changes)
    kept = len(changes) - cut - sum(one.held for one in changes)
    if not changes:
        return f"From {before} to {after} no range can be compared."
    if not cut:
        return f"From {before} to {after} nothing was ruled out."
    parameters = "parameter" if cut == 1 else "parameters"
    rest = f"; {kept} kept all that they had" if kept else ""
    return f"{before} ruled out parts of {cut} {parameters} for {after}{rest}:"


def _sentences(changes: Sequence[Change]) -> list[str]:
    cuts = sorted((one for one in changes if one.cut), key=lambda one: -one.lost)
    said = [f"{one.name} {one.cut}" + (f": {one.why}" if one.why else "") for one in cuts[:MOST_CUTS]]
    if len(cuts) > MOST_CUTS:
        said.append(f"and parts of {len(cuts) - MOST_CUTS} more, see the ranges")
    grown = [f"{one.name} {one.added}" for one in changes if one.added]
    if grown:
        said.append(f"searched further out: {', '.join(grown[:MOST_CUTS])}{_more(grown)}")
    held = [one.name for one in changes if one.held]
    if held:
        said.append(f"held at one value: {', '.join(held[:MOST_CUTS])}{_more(held)}")
    return said


def _more(of: Sequence[object]) -> str:
    return f" and {len(of) - MOST_CUTS} more" if len(of) > MOST_CUTS else ""


def _why(reason: str) -> str:
    """Return what a reason says of the evidence: the first two clauses that do."""
    what, colon, rest = reason.partition(": ")
    # What became of the range is said already, in the values themselves.
    clauses = (rest if colon and what.startswith(("narrowed", "moved", "kept")) else reason).split("; ")
    return "; ".join([one for one in clauses if not one.startswith(_HOW_SURE)][:2])


def _without(values: Sequence[Any], others: Sequence[Any]) -> list[Any]:
    there = [(type(other), other) for other in others]  # True equals 1, and is another value
    return [value for value in values if (type(value), value) not in there]


def _constant(spec: Mapping[str, Any]) -> bool:
    if "values" in spec:
        return len(spec["values"]) < 2
    return bool(spec.get("low") == spec.get("high"))


def _ends(spec: Mapping[str, Any]) -> tuple[float, float]:
    low, high = float(spec["low"]), float(spec["high"])
    return (math.log(low), math.log(high)) if spec.get("log") and low > 0 else (low, high)


def _listed(values: Sequence[Any]) -> str:
    shown = [show(value) for value in values[:MOST_VALUES]]
    return ", ".join(shown) + (f" and {len(values) - MOST_VALUES} more" if len(values) > MOST_VALUES else "")


def _sides(*sides: tuple[str, bool]) -> str:
    return " and ".join(text for text, there in sides if there)


def at_an_edge(space: Space, params: Mapping[str, Any], within: float = 0.03) -> Iterator[str]:
    """Say which of a setting's numbers lie at an end of their range that is no hard limit (practice, A10)."""
    for name, spec in space.items():
        value = params.get(name)
        if "values" in spec or _constant(spec) or isinstance(value, bool | str) or value is None:
            continue
        low, high = _ends(spec)
        place = (_place(float(value), spec) - low) / (high - low)
        limits = spec.get("limits") or (None, None)
        for end, side, there, limit in (
            ("lower", spec["low"], place <= within, limits[0]),
            ("upper", spec["high"], place >= 1 - within, limits[1]),
        ):
            if there and limit != side:
                yield f"the best {name}, {show(value)}, lies at the {end} end of its range, {show(side)}"


def _place(value: float, spec: Mapping[str, Any]) -> float:
    return math.log(value) if spec.get("log") and value > 0 and spec["low"] > 0 else value
