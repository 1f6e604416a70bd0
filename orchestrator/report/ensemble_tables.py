"""Tables of what the ensemble came to, from `ensemble.json`: heads and rows, with nothing of how they look.

Files of version 1 have fewer parts; a part that is absent, or no number, is left out of what is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from orchestrator.results.ensemble_parts import (
    KINDS,
    METHODS,
    figure,
    kinds,
    mappings,
    method_name,
    pair,
    part,
    score_name,
)

OTHERS = {"log_loss_scaled": "log loss, with temperature"}
DASH = "–"

Head: TypeAlias = Sequence[str]
Rows: TypeAlias = list[list[object]]


def short(value: float, sign: str = "") -> str:
    """Return a score as a person reads it: four decimals, and fewer of what is large."""
    size = abs(value)
    return f"{value:{sign},.{4 if size < 10 else 2 if size < 1000 else 0}f}"


def interval(low: object, high: object) -> str:
    """Return "0.951 … 0.987"; a dash where an end is unknown."""
    bottom, top = figure(low), figure(high)
    return DASH if bottom is None or top is None else f"{short(bottom)} … {short(top)}"


def gain(found: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    """Return a gain with its interval: "+1.3 points (0.4 to 2.2)" of accuracy, else in the score's own unit.

    A gain is positive where the ensemble is better, also of a loss.
    """
    value, low, high = (figure(one.get(key)) for key in ("value", "low", "high"))
    if value is None:
        return DASH
    if found.get("score") == "accuracy":
        ends = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
        return f"{100 * value:+.1f} points{ends}"
    ends = "" if low is None or high is None else f" ({short(low)} to {short(high)})"
    return f"{short(value, '+')}{ends}"


def scores_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return the figures of everything that was measured: validation, test, its interval, other scores."""
    sides = [part(found, "validation"), part(found, "test")]
    others = {
        str(name): measured
        for name, measured in part(found, "other_scores").items()
        if isinstance(measured, Mapping)
    }
    intervals = part(found, "test_intervals")
    rows: Rows = []
    for key, name in KINDS.items():
        if all(figure(side.get(key)) is None for side in sides):
            continue
        shown = f"{name} ({method_name(found)})" if key == "ensemble" and method_name(found) else name
        ends = pair(intervals.get(key))
        rest = [figure(measured.get(key)) for measured in others.values()]
        rows.append([shown, *(figure(side.get(key)) for side in sides), interval(*ends), *rest])
    head = [score_name(found), "validation", "held-out test", "95% interval"]
    return [*head, *(f"test {OTHERS.get(name, name.replace('_', ' '))}" for name in others)], rows


def methods_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return every way of combining: by nested validation, which chose, and on test data, which did not."""
    nested, tested = part(part(found, "nested"), "methods"), part(found, "methods")
    names = [name for name in METHODS if name in nested or name in tested]
    rows: Rows = []
    for name in names:
        inner, outer = part(nested, name), part(tested, name)
        mark = " (chosen)" if name == found.get("combine") else ""
        gained, error = figure(inner.get("gain")), figure(inner.get("gain_error"))
        over = (
            DASH if gained is None else short(gained, "+") + ("" if error is None else f" ± {short(error)}")
        )
        ends = interval(outer.get("low"), outer.get("high"))
        rows.append(
            [METHODS[name] + mark, figure(inner.get("value")), over, figure(outer.get("value")), ends]
        )
    head = ["combined by", "nested validation", "over the best single", "held-out test", "95% interval"]
    return head, rows


def ablation_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return what the ensemble is worth when only some kinds of members may differ."""
    rows: Rows = []
    for one in mappings(found.get("ablation")):
        change = {"value": one.get("gain"), "low": one.get("gain_low"), "high": one.get("gain_high")}
        ends = interval(one.get("low"), one.get("high"))
        over = gain(found, change)
        rows.append([kinds(one), figure(one.get("members")), figure(one.get("value")), ends, over])
    return ["may differ", "members", "held-out test", "95% interval", "over the best single"], rows


def members_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return the members, the heaviest first; a weight is a share of all."""
    members = mappings(found.get("members"))
    weights = [figure(one.get("weight")) or 0.0 for one in members]
    total = sum(weights) or 1.0
    columns = {"member": "trial_id", "setting": "setting_id", "seed": "seed", "step": "step"}
    columns |= {"model": "model"} if any(one.get("model") for one in members) else {}
    columns |= {"kind": "kind"} if any(one.get("kind") for one in members) else {}
    order = sorted(range(len(members)), key=lambda place: -weights[place])
    rows: Rows = [
        [*(members[place].get(key) for key in columns.values()), f"{weights[place] / total:.1%}"]
        for place in order
    ]
    return [*columns, "weight"], rows


def skipped_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return the checkpoints that were passed over, and why."""
    rows: Rows = [[one.get("checkpoint"), one.get("why")] for one in mappings(found.get("skipped"))]
    return ["passed over", "why"], rows


def students_table(found: Mapping[str, Any]) -> tuple[Head, Rows]:
    """Return the sizes of student that were tried, each beside the same network trained on labels."""
    student = part(found, "student")
    chosen = part(student, "chosen").get("params")
    rows: Rows = []
    for one in mappings(student.get("sizes")):
        params = part(one, "params")
        size = ", ".join(f"{key} {value}" for key, value in params.items()) or "the best single model's own"
        mark = " (chosen)" if chosen is not None and dict(params) == chosen else ""
        keys = ("parameters", "validation", "labels_validation", "test", "labels_test")
        rows.append([size + mark, *(figure(one.get(key)) for key in keys)])
    head = ["student", "parameters", "validation", "on labels", "held-out test", "on labels"]
    return head, rows
