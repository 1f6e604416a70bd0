"""Reading what the ensemble step wrote, whatever is missing in it: names, numbers and parts.

Files of version 1 have fewer parts; a part that is absent, or no number, is as if it was not there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

KINDS = {
    "best_single": "best single model",
    "average_member": "average member",
    "ensemble": "ensemble",
    "soup": "averaged weights (soup)",
    "student": "student",
    "student_labels": "same network on labels",
}
METHODS = {
    "average": "plain average",
    "logits": "average of logits",
    "greedy": "greedy selection",
    "blend": "linear blend",
    "stacking": "stacking",
}


def figure(value: object) -> float | None:
    """Return a finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping inside another one; an empty one where it is absent or null."""
    inner = found.get(key)
    return inner if isinstance(inner, Mapping) else {}


def score_name(found: Mapping[str, Any]) -> str:
    """Return what the score is called for a person."""
    return str(found.get("score", "score")).replace("_", " ")


def kinds(one: Mapping[str, Any]) -> str:
    """Return which kinds of members may differ: "seeds, checkpoints"."""
    named = one.get("kinds")
    return ", ".join(str(kind) for kind in named) if isinstance(named, list) and named else "nothing"


def method_name(found: Mapping[str, Any]) -> str:
    """Return how the members are combined, for a person."""
    name = found.get("combine")
    name = name if isinstance(name, str) else ""
    return METHODS.get(name, name)


def pair(value: object) -> tuple[Any, Any]:
    """Return the two of a list of two; else twice None."""
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the mappings of a list; none where there is no list."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
