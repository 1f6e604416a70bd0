"""Samplers: new settings for a stage, from points, from a grid, or learned from what was measured."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orchestrator.planning.sampling import points
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.points import Draw, Setting
from orchestrator.space import CHOICE, Parameter, active, setting_id

if TYPE_CHECKING:
    from orchestrator.planning.sampling.pooling import Scored

# How often what turned out to be there already is drawn again, before the rest is filled up without a plan.
ROUNDS = 4
# A finite space of at most so many assignments is gone through to find what it still holds.
GONE_THROUGH = 200_000
POINTS = {"sobol": points.sobol, "random": points.random}


def sample(
    space: Sequence[Parameter],
    count: int,
    sampler: str,
    seed: int,
    history: Sequence[Observation] = (),
    *,
    scale: float | None = None,
    taken: Sequence[Mapping[str, Any]] = (),
) -> list[Setting]:
    """Propose settings inside the ranges, all different.

    A setting holds only the parameters that exist in it. One that history already holds at the same scale is
    proposed again only when the space has nothing else left.

    Args:
        space: the ranges of this stage.
        count: how many settings.
        sampler: one of schema.SAMPLERS.
        seed: the same seed gives the same settings in any process on any machine.
        history: earlier results at any scale, for samplers that learn.
        scale: the scale that the settings will run at; None is the highest in the history.
        taken: settings that the stage has already; they are never proposed.

    Returns:
        The settings, fewer than asked for where the space or the grid holds no more.
    """
    if count <= 0:
        return []
    if scale is None:
        scale = max((seen.scale for seen in history), default=1.0)
    batch = _Batch(space, count, {setting_id(params) for params in taken})
    seen = {setting_id(trial.params) for trial in history if trial.scale == scale}
    if sampler == "grid":
        batch.add(points.grid(space, count), seen)
        return batch.settings
    draw = _drawer(space, count, sampler, seed, history, taken)
    for _ in range(ROUNDS):
        if missing := batch.missing:
            batch.add(draw(missing), seen)
    _fill(batch, space, seed, seen)
    _fill(batch, space, seed, ())
    return batch.settings


def _drawer(
    space: Sequence[Parameter],
    count: int,
    sampler: str,
    seed: int,
    history: Sequence[Observation],
    taken: Sequence[Mapping[str, Any]],
) -> Draw:
    """Return what draws full assignments, or settings without what doesn't exist in them."""
    fixed = {p.name: p.from_unit(0.5) for p in space if p.constant}
    varying = [p for p in space if not p.constant]
    if not varying:
        return lambda count: [fixed]
    if sampler == "model":
        from orchestrator.planning.sampling.model import propose

        proposals = iter(propose(space, count, seed, history, taken=taken))
        return lambda count: [setting for setting, _ in zip(proposals, range(count), strict=False)]
    if sampler in POINTS:
        draw = POINTS[sampler](varying, seed)
    else:
        from orchestrator.planning.sampling.optuna_samplers import learner

        draw = learner(varying, sampler, seed, _evidence(space, history))
    return lambda count: [fixed | setting for setting in draw(count)]


def _evidence(space: Sequence[Parameter], history: Sequence[Observation]) -> list[Scored]:
    """Return what is known inside the ranges of the parameters that vary.

    A stage that holds a parameter may hold it where hardly any result lies, and what the others do is much
    the same nearby. Another option of a choice without order may change it altogether (Adam and SGD want
    other learning rates), so the results with the one that is left are taken alone where they suffice.
    """
    from orchestrator.planning.sampling.optuna_samplers import STARTUP
    from orchestrator.planning.sampling.pooling import pool, usable

    pooled = pool(history)
    deciding = [p for p in space if not p.constant or (p.kind == CHOICE and not p.ordered)]
    alike = usable(pooled, deciding)
    return alike if len(alike) >= STARTUP else usable(pooled, [p for p in space if not p.constant])


class _Batch:
    """The settings of one call, each once."""

    def __init__(self, space: Sequence[Parameter], count: int, taken: set[str]) -> None:
        self.settings: list[Setting] = []
        self._space, self._count, self._taken = space, count, taken

    @property
    def missing(self) -> int:
        return self._count - len(self.settings)

    def add(self, assignments: Iterable[Setting], avoid: Collection[str]) -> None:
        """Take what is new, until the batch is full."""
        for assignment in assignments:
            if not self.missing:
                return
            there = active(self._space, assignment)
            setting = {p.name: there[p.name] for p in self._space if p.name in there}
            key = setting_id(setting)
            if key not in self._taken and key not in avoid:
                self._taken.add(key)
                self.settings.append(setting)


def _fill(batch: _Batch, space: Sequence[Parameter], seed: int, avoid: Collection[str]) -> None:
    """Fill a batch up from all that the space holds, in a random order."""
    if not batch.missing:
        return
    if points.cardinality(space) <= GONE_THROUGH:
        batch.add(points.everything(space, seed), avoid)
        return
    draw = points.random(space, seed)
    for _ in range(ROUNDS * math.ceil(math.log2(batch.missing + 1))):
        batch.add(draw(max(2 * batch.missing, 64)), avoid)
