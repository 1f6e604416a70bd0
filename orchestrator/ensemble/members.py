"""What may become a member: checkpoints of final runs, and what they predict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from orchestrator.errors import UserError, nearest

KINDS = ("seeds", "settings", "checkpoints")


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
    """One checkpoint of one final run, with the config that its run had."""

    trial_id: str
    setting_id: str
    seed: int
    step: int
    checkpoint: Path
    config: DictConfig


def check_kinds(members: Sequence[str]) -> None:
    """Refuse an unknown kind of member.

    Raises:
        UserError: with the nearest right one.
    """
    for kind in members:
        if kind not in KINDS:
            raise UserError(
                f"'{kind}' is no kind of member", key="ensemble.members", hint=nearest(kind, KINDS)
            )


def allowed(candidates: Sequence[Candidate], members: Sequence[str]) -> list[Candidate]:
    """Keep the candidates that `members` lets in, as far as that needs no predictions.

    Without "checkpoints" only the last checkpoint of each run; without "seeds" only each setting's runs of
    its lowest seed. ("settings" needs scores: see `of_best_setting`.) The order stays.

    Raises:
        UserError: an unknown kind of member.
    """
    check_kinds(members)
    chosen = list(candidates)
    if "seeds" not in members:
        first: dict[str, int] = {}
        for each in chosen:
            first[each.setting_id] = min(each.seed, first.get(each.setting_id, each.seed))
        chosen = [each for each in chosen if each.seed == first[each.setting_id]]
    if "checkpoints" not in members:
        last: dict[str, int] = {}
        for each in chosen:
            last[each.trial_id] = max(each.step, last.get(each.trial_id, each.step))
        chosen = [each for each in chosen if each.step == last[each.trial_id]]
    return chosen


def of_best_setting(candidates: Sequence[Candidate], merits: Sequence[float]) -> list[int]:
    """Return the positions of the candidates of one setting: the one with the highest mean merit.

    Args:
        candidates: that were scored on validation data.
        merits: one for each, higher is better.
    """
    by_setting: dict[str, list[float]] = {}
    for each, merit in zip(candidates, merits, strict=True):
        by_setting.setdefault(each.setting_id, []).append(merit)
    best = max(by_setting, key=lambda setting: float(np.mean(by_setting[setting])))
    return [place for place, each in enumerate(candidates) if each.setting_id == best]
