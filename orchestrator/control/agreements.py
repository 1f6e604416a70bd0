"""Agreements: how far rankings carry over between the phases that have run so far, from facts alone."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.planning.narrowing.trust import Agreement, agreement

if TYPE_CHECKING:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.planning.plan import Plan
    from orchestrator.sweep.facts import PhaseFacts


def agreements(plan: Plan, phases: Sequence[PhaseFacts]) -> tuple[Agreement, ...]:
    """Measure each pair of phases that follow each other, the final runs among them.

    Args:
        plan: the sweep's plan.
        phases: what is known of its phases, in their order; pairs without a setting in common are left out.
    """
    ran = [known for known in phases if known.phase.trains and known.outcomes]
    results = [_results(known, plan) for known in ran] if len(ran) > 1 else []
    pairs = [agreement(low, high) for low, high in itertools.pairwise(results)]
    return tuple(found for found in pairs if found is not None)


def _results(known: PhaseFacts, plan: Plan) -> StageResults:
    from orchestrator.control.finished import finished, observations
    from orchestrator.planning.narrowing.evidence import StageResults

    # The scale does not enter into an agreement.
    return StageResults(
        name=known.phase.name, scale=1.0, observations=observations(finished(known, plan), 1.0)
    )
