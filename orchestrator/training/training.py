"""A trial's training as plain data: its runs, where it stands, and the trial that it tells."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from orchestrator.training.run import Run
from orchestrator.training.settings import JobSettings
from orchestrator.training.stopping import Best, Plateau

TRAIN, DONE = "train", "done"
Build = Callable[[int], Run]


class Trial(Protocol):
    """What the loop needs of the trial it runs in; `alive` and `watch` are used where it has them."""

    @property
    def checkpoint_dir(self) -> Path:
        """Private to the trial; what lies there survives a requeue."""

    def report(self, step: int, metrics: dict[str, float]) -> object:
        """Record metrics of a step; may raise StopTrial."""

    def keep(self, path: Path, step: int, best: bool = False) -> object:
        """Offer a checkpoint as a member for the ensemble; again after a requeue."""


@dataclass(slots=True, kw_only=True)
class Training:
    """A trial's training, however often it is taken up again.

    Attributes:
        runs: one for each fold that is trained.
        build: gives the run of a fold from the start.
        settings: of the job.
        task: classification or regression.
        trial: gets reports and checkpoints.
        fingerprint: of everything that a saved state has to agree with.
        extra: metrics that are reported besides.
        phase: train, retrain, go_on or done.
        epoch: passes done in this phase.
        reported: the last step that was reported.
        best: the best epoch.
        kept: the epochs whose models were kept when they came.
        plateaus: what was found where training goes on in spite of patience.
        target: in go_on, the training loss to reach on the validation data.
    """

    runs: list[Run]
    build: Build
    settings: JobSettings
    task: str
    trial: Trial
    fingerprint: str
    extra: Mapping[str, float] = field(default_factory=dict)
    phase: str = TRAIN
    epoch: int = 0
    reported: int = 0
    best: Best = field(default_factory=Best)
    kept: set[int] = field(default_factory=set)
    plateaus: list[Plateau] = field(default_factory=list)
    target: float = math.nan
    saved: float = field(default_factory=time.monotonic)
    shown: float = field(default_factory=time.monotonic)

    @property
    def last(self) -> Path:
        """Where the state is saved to go on from."""
        return self.trial.checkpoint_dir / "last.pt"
