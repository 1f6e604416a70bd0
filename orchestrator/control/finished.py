"""What a phase's trials gave, as promotion, samplers and narrowing take it; larger is always better."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.planning.finished import Finished
from orchestrator.planning.plan import Plan
from orchestrator.planning.sampling.observation import Observation
from orchestrator.sweep.facts import PhaseFacts
from orchestrator.sweep.records import FAILED, PRUNED


def finished(known: PhaseFacts, plan: Plan) -> list[Finished]:
    """Return a phase's trials that have a result; a diverged one has the objective -inf."""
    found = []
    for spec in known.trials:
        outcome = known.outcomes.get(spec.trial_id)
        if outcome is None or outcome.state == FAILED:
            continue
        value = outcome.metrics.get(plan.metric, math.nan)
        signed = value if plan.mode == "max" else -value
        found.append(
            Finished(
                spec=spec,
                objective=signed if math.isfinite(signed) else -math.inf,
                settled=outcome.state != PRUNED,
                step=outcome.step,
            )
        )
    return found


def observations(found: Sequence[Finished], scale: float) -> tuple[Observation, ...]:
    """Return a phase's results as observations at a scale, a share of a full-scale training."""
    return tuple(Observation(item.spec.params, item.objective, scale, item.settled) for item in found)


def has_result(known: PhaseFacts, metric: str) -> bool:
    """Say whether any trial of a phase gave a finite objective."""
    return any(
        outcome.state != FAILED and math.isfinite(outcome.metrics.get(metric, math.nan))
        for outcome in known.outcomes.values()
    )
