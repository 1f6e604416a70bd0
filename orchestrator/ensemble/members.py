"""What may become a member: checkpoints of final runs, and what they predict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from orchestrator.errors import UserError, nearest
from orchestrator.schema import MEMBERS

CHECKPOINT, AVERAGE, STUDENT = "checkpoint", "average", "student"


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one checkpoint predicts for one part of the data.

    Attributes:
        probabilities: (n, classes) float32, rows sum to 1.
        labels: (n,) int64, the right classes.
        ids: (n,) int64, which samples these are.
    """

    probabilities: NDArray[np.float32]
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One checkpoint of one final run, with the config that its run had.

    Attributes:
        trial_id: of its run; of a soup over several runs, that of the best of them.
        step: of a mean of checkpoints, the last one's.
        kind: checkpoint, or average: its weights are a mean of others'.
        model: which kind of model it is, as `ensemble.model_key` tells them apart.
        parts: of an average, the checkpoints that it is made of.
    """

    trial_id: str
    setting_id: str
    seed: int
    step: int
    checkpoint: Path
    config: DictConfig
    kind: str = CHECKPOINT
    model: str = ""
    parts: tuple[str, ...] = ()


def check_kinds(members: Sequence[str]) -> None:
    """Refuse an unknown kind of member.

    Raises:
        UserError: with the nearest right one.
    """
    for kind in members:
        if kind not in MEMBERS:
            raise UserError(
                f"'{kind}' is no kind of member", key="ensemble.members", hint=nearest(kind, MEMBERS)
            )


def allowed(
    candidates: Sequence[Candidate], merits: Sequence[tuple[float, ...]], kinds: Sequence[str]
) -> list[int]:
    """Return the places of the candidates that may be members together, in their order.

    What is not among `kinds` does not differ between members: the best on validation data is taken. Without
    "models" the best checkpoint's model, without "settings" each model's best setting, without "seeds" each
    setting's best run, without "checkpoints" each run's best checkpoint; averages of weights with "averages"
    alone. So with no kind at all there is one: the best checkpoint.

    Args:
        candidates: all that there are.
        merits: of each on validation data, higher is better.
        kinds: of `MEMBERS`.

    Raises:
        UserError: an unknown kind of member.
    """
    check_kinds(kinds)
    ranked = sorted(range(len(candidates)), key=lambda place: merits[place], reverse=True)
    places = [place for place in ranked if candidates[place].kind == CHECKPOINT]
    levels: tuple[tuple[str, Callable[[Candidate], tuple[object, ...]]], ...] = (
        ("models", lambda each: (each.model,)),
        ("settings", lambda each: (each.model, each.setting_id)),
        ("seeds", lambda each: (each.model, each.setting_id, each.trial_id)),
        ("checkpoints", lambda each: (each.trial_id, each.step)),
    )
    above: Callable[[Candidate], tuple[object, ...]] = lambda each: ()  # noqa: E731
    for kind, key in levels:
        if kind not in kinds:
            best: dict[tuple[object, ...], tuple[object, ...]] = {}
            for place in places:
                best.setdefault(above(candidates[place]), key(candidates[place]))
            places = [p for p in places if key(candidates[p]) == best[above(candidates[p])]]
        above = key
    if "averages" in kinds:
        runs = {candidates[place].trial_id for place in places}
        places += [p for p in ranked if candidates[p].kind == AVERAGE and candidates[p].trial_id in runs]
    return sorted(places)
