"""How often the labels of the test data were looked at: once for each choice that was measured on them.

A look is written down before the labels are read, under a name that follows from what was chosen. So a step
that dies and runs again has looked once, and a person who chooses anew has looked again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import create_exclusive

# Of a candidate's description, what tells it from the others.
_NAMES = ("trial_id", "kind", "step")


def look(directory: SweepDirectory, choice: Mapping[str, Any]) -> int:
    """Write down that a choice is about to be measured on test labels, and return how many were."""
    folder = directory.choice.parent / "looks"
    said = {key: choice[key] for key in ("score", "asked", "combine", "candidates")}
    create_exclusive(folder / f"{digest(choice)[:16]}.json", json.dumps(said, indent=1) + "\n")
    return looks(directory)


def looks(directory: SweepDirectory) -> int:
    """Return how many choices were measured on test labels."""
    return len(list((directory.choice.parent / "looks").glob("[!.]*.json")))


def digest(choice: Mapping[str, Any]) -> str:
    """Return what tells one choice from another (SHA-256), wherever the sweep's folder lies."""
    named = [[each[key] for key in _NAMES] for each in (*choice["members"], choice["best_single"])]
    content = [named, *(choice[key] for key in ("score", "asked", "combine", "combination"))]
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
