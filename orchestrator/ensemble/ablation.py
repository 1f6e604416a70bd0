"""How much each kind of member adds: the ensemble anew with some of the kinds alone (F1 to F4, and F6)."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.ensemble.members import Candidate, allowed
from orchestrator.schema import MEMBERS


def rows(
    candidates: Sequence[Candidate], merits: Sequence[tuple[float, ...]], kinds: Sequence[str]
) -> list[tuple[tuple[str, ...], list[int]]]:
    """Return which kinds are let in together, and the places of the candidates that these let in.

    First each kind alone, then all of them one after another in the order of `MEMBERS`. A kind that does not
    differ between the candidates is left out, and so is a row that lets in what the one before it does.

    Args:
        candidates: all that there are.
        merits: of each on validation data, higher is better.
        kinds: that the ensemble may have.
    """
    wanted = [kind for kind in MEMBERS if kind in kinds]
    alone = [(kind,) for kind in wanted]
    added = [tuple(wanted[:count]) for count in range(2, len(wanted) + 1)]
    found: list[tuple[tuple[str, ...], list[int]]] = []
    for some in (*alone, *added):
        places = allowed(candidates, merits, some)
        if len(places) < 2 or any(places == before for _, before in found):
            continue
        found.append((some, places))
    return found
