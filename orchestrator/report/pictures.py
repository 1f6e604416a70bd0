"""Pictures on the page: the worst mistakes, the first layer's weights, the inputs as the network sees them.

Files that a job writes are not trusted: what is not of the form that is expected is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.diagnosis import detail
from orchestrator.report.markup import folded, paragraph, pictures, table
from orchestrator.results.load import Results
from orchestrator.sweep.directory import SweepDirectory

INPUTS = "D6"  # the check that shows what goes into the network
MOST_NUMBERS = 12


def mistakes(found: Mapping[str, Any]) -> str:
    """Return the worst mistakes of a run as pictures and as a table; empty where none are known."""
    worst = _mappings(_part(found, "predictions").get("worst"))
    shown = pictures(
        (one.get("picture"), f"{_short(one.get('target'))} taken for {_short(one.get('predicted'))}")
        for one in worst
    )
    columns = ("id", "target", "predicted", "confidence")
    rows = [[_short(one.get(key)) for key in columns] for one in worst]
    listed = table(("sample", "true", "predicted", "confidence"), rows)
    return shown + (folded("As a table", listed) if shown else listed)


def weights(found: Mapping[str, Any]) -> str:
    """Return the weights of a run's first layer as pictures, one for each unit or kernel."""
    images = _part(found, "weights").get("pictures")
    listed = images if isinstance(images, list) else []
    return pictures((image, f"unit {number}") for number, image in enumerate(listed, start=1))


def inputs(results: Results) -> str:
    """Return samples as they went into the network, with their labels, as the check D6 saw them."""
    checks = _mappings(detail.read(SweepDirectory(results.path).checks_result).get("checks"))
    check = next((one for one in checks if one.get("id") == INPUTS), {})
    samples = _mappings(_part(check, "details").get("samples"))
    shown = pictures((one.get("picture"), _short(one.get("label"))) for one in samples)
    rows = [
        [_short(one.get("label")), ", ".join(_short(value) for value in one["values"][:MOST_NUMBERS])]
        for one in samples
        if isinstance(one.get("values"), list)
    ]
    if not shown and not rows:
        return ""
    return paragraph(str(check.get("saw") or "")) + shown + table(("label", "first values"), rows)


def _part(found: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    inner = found.get(key)
    return inner if isinstance(inner, Mapping) else {}


def _mappings(found: object) -> list[Mapping[str, Any]]:
    return [one for one in found if isinstance(one, Mapping)] if isinstance(found, list) else []


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)[:48] if value is not None else "–"
