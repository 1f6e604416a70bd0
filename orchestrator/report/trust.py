"""Tables of trust between scales and of the parameters' importance, for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.planning.narrowing.trust import Agreement, describe, measured
from orchestrator.results.load import Results
from orchestrator.results.trust import agreements, importances


def agreement_table(
    results: Results, found: Sequence[Agreement] | None = None
) -> tuple[Sequence[str], list[list[object]]]:
    """Return the columns and rows of a table: each pair of phases, and what follows from how they agree.

    Args:
        results: of the sweep.
        found: what `agreements` found, where that is known already.
    """
    rows: list[list[object]] = []
    for one in agreements(results) if found is None else found:
        known = measured(one)
        interval = f"{one.interval[0]:.2f} … {one.interval[1]:.2f}" if known else "–"
        tau = f"{one.correlation:.2f}" if known else "–"
        rows.append([f"{one.low} → {one.high}", one.settings, tau, interval, describe(one)])
    return ("from → to", "settings", "Kendall's tau", "90% interval", "what follows"), rows


def importance_table(
    results: Results, shares: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Sequence[str], list[list[object]]]:
    """Return the columns and rows of a table: each parameter's share of what a stage's results vary by.

    The parameter that matters most in the last stage that can tell comes first.

    Args:
        results: of the sweep.
        shares: what `importances` found, where that is known already.
    """
    found = importances(results) if shares is None else shares
    names = {name: 0.0 for one in found.values() for name in one}
    for one in found.values():
        names.update(one)
    rows: list[list[object]] = [
        [name, *(f"{one[name]:.0%}" if name in one else "–" for one in found.values())]
        for name in sorted(names, key=lambda name: (-names[name], name))
    ]
    return ("parameter", *found), rows
