"""The members that a file of predictions gets, one after another, and those that are left out with a note."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from orchestrator.ensemble import stored
from orchestrator.ensemble.members import Candidate, Predictions
from orchestrator.ensemble.stored import Unusable, Writer
from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory

Predict = Callable[[DictConfig, Path, str], Predictions]


class Collected:
    """The members that one file gets, and those that were left out."""

    def __init__(self, directory: SweepDirectory) -> None:
        self._directory = directory
        self.candidates: list[Candidate] = []
        self.skipped: list[dict[str, str]] = []
        self.first: dict[str, Predictions] = {}

    def take(self, candidate: Candidate, predict: Predict, writers: dict[str, Writer]) -> None:
        """Predict with a candidate and write that down, or note why not."""
        try:
            given = {split: predict(candidate.config, candidate.checkpoint, split) for split in writers}
            fitting = self.fitting(given)
        except UserError:
            raise
        # Whatever a damaged file makes a user's own predict raise, the other members are still good.
        except Exception as error:
            self.skip(str(candidate.checkpoint), error)
        else:
            self.add(candidate, fitting, writers)

    def add(self, candidate: Candidate, fitting: dict[str, Predictions], writers: dict[str, Writer]) -> None:
        """Write a candidate's predictions down."""
        for split, each in fitting.items():
            writers[split].add(stored.member_name(candidate), each)
        self.first = self.first or fitting
        self.candidates.append(candidate)

    def fitting(self, given: dict[str, Predictions]) -> dict[str, Predictions]:
        """Return predictions as they are stored, in the first member's order; raises Unusable."""
        return {split: self._fitting(split, stored.as_usable(each)) for split, each in given.items()}

    def skip(self, what: str, error: Exception) -> None:
        """Note what was left out, and why."""
        text = (str(error).splitlines() or [""])[0]
        why = text if isinstance(error, Unusable) else f"{type(error).__name__}: {text}"
        self.skipped.append({"checkpoint": what, "why": why})

    def _fitting(self, split: str, given: Predictions) -> Predictions:
        """Bring the samples into the first member's order."""
        first = self.first.get(split, given)
        if (mine := given.probabilities.shape[1]) != (theirs := first.probabilities.shape[1]):
            raise Unusable(f"it tells {mine} classes apart, the first candidate {theirs}")
        order = stored.order_of(given.ids, first.ids)
        if order is not None:
            given = Predictions(given.probabilities[order], given.labels[order], given.ids[order])
        if not np.array_equal(given.labels, first.labels):
            raise Unusable("its labels are not those of the first candidate")
        return given

    def said(self, split: str, role: str) -> dict[str, Any]:
        """Return what the file says of itself."""
        first, labels = self.candidates[0], self.first[split]
        return {
            "role": role,
            "trial_id": first.trial_id,
            "setting_id": first.setting_id,
            "seed": first.seed,
            "model": first.model,
            "split": split,
            "task": stored.task_of(labels),
            "config": OmegaConf.to_yaml(first.config, resolve=True),
            "members": [self._member(each) for each in self.candidates],
            "skipped": self.skipped,
        }

    def _member(self, candidate: Candidate) -> dict[str, Any]:
        return {
            "name": stored.member_name(candidate),
            "step": candidate.step,
            "kind": candidate.kind,
            "checkpoint": inside(self._directory, candidate.checkpoint),
            "parts": [inside(self._directory, Path(part)) for part in candidate.parts],
        }


def inside(directory: SweepDirectory, path: Path) -> str:
    """Return a path as it is told from the sweep's directory, which may be moved; another one as it is."""
    for root, each in ((directory.path, path), (directory.path.resolve(), path.resolve())):
        if each.is_relative_to(root):
            return each.relative_to(root).as_posix()
    return str(path)
