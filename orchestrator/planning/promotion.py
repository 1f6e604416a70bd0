"""Promotion: which settings of one stage run again in the next, and the settings of a whole phase."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.planning.plan import Phase
from orchestrator.planning.samplers import Observation, sample
from orchestrator.space import Parameter, setting_id
from orchestrator.sweep.directory import FINAL, TrialSpec

SURVIVOR, CONTROL, SAMPLED = "survivor", "control", "sampled"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """A finished trial: its spec and objective, larger always better, -inf when it diverged."""

    spec: TrialSpec
    objective: float


def rank(finished: Sequence[Finished]) -> list[Finished]:
    """Return one finished trial for each setting, the best first; equal ones in an order of no meaning."""

    def place(item: Finished) -> tuple[float, str, str]:
        objective = item.objective if math.isfinite(item.objective) else -math.inf
        return -objective, item.spec.setting_id, item.spec.trial_id

    ordered = sorted(finished, key=place)
    unique: dict[str, Finished] = {}
    for item in ordered:
        unique.setdefault(item.spec.setting_id, item)
    return list(unique.values())


def survivors(finished: Sequence[Finished], count: int) -> list[Finished]:
    """Return the best settings that did not diverge."""
    return [item for item in rank(finished) if math.isfinite(item.objective)][:count]


def controls(finished: Sequence[Finished], count: int, chosen: Sequence[Finished]) -> list[Finished]:
    """Return settings from all over the rest of the ranking, so that two scales' rankings can be compared."""
    taken = {item.spec.setting_id for item in chosen}
    rest = [
        item for item in rank(finished) if item.spec.setting_id not in taken and math.isfinite(item.objective)
    ]
    count = min(count, len(rest))
    return [rest[int((i + 0.5) * len(rest) / count)] for i in range(count)]


def stage_trials(
    phase: Phase,
    space: Sequence[Parameter],
    seed: int,
    before: Sequence[Finished],
    history: Sequence[Observation],
) -> list[TrialSpec]:
    """Work out a stage's trials: survivors and controls of the stage before, then new settings.

    Args:
        phase: the stage.
        space: its ranges.
        seed: the sweep's seed.
        before: the finished trials of the stage before; empty for the first stage.
        history: all earlier results, for samplers that learn.
    """
    best = survivors(before, phase.survivors)
    others = controls(before, phase.controls, best)
    settings = [(item.spec.params, SURVIVOR, item.spec.trial_id) for item in best]
    settings += [(item.spec.params, CONTROL, item.spec.trial_id) for item in others]
    fresh = sample(space, phase.trials - len(settings), phase.sampler, _seed(seed, phase.name), history)
    settings += [(params, SAMPLED, "") for params in fresh]
    return [
        TrialSpec(
            trial_id=f"{phase.name}-{index:05d}",
            setting_id=setting_id(params),
            params=dict(params),
            seed=_seed(seed, phase.name, index),
            origin=origin,
            parent=parent,
        )
        for index, (params, origin, parent) in enumerate(settings)
    ]


def final_trials(phase: Phase, seeds: int, seed: int, before: Sequence[Finished]) -> list[TrialSpec]:
    """Work out the final runs: the best settings times the seeds, every setting's first seed first."""
    chosen = survivors(before, phase.survivors)
    return [
        TrialSpec(
            trial_id=f"{FINAL}-{repeat * len(chosen) + index:05d}",
            setting_id=item.spec.setting_id,
            params=item.spec.params,
            seed=seed + repeat,
            origin=SURVIVOR,
            parent=item.spec.trial_id,
        )
        for repeat in range(seeds)
        for index, item in enumerate(chosen)
    ]


def _seed(*parts: object) -> int:
    """Derive a seed that is the same on any machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
