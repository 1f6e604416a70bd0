"""One network in training: what changes during it, how that is saved, and how it is taken up again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from orchestrator.training.batching import Samples
from orchestrator.training.distributed import ALONE, Peers
from orchestrator.training.schedules import Schedule, build_schedule
from orchestrator.training.settings import JobSettings
from orchestrator.training.switch import Switch, after_switch

Loss = Callable[[Tensor, Tensor], Tensor]
Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Goals = Callable[[Tensor, Tensor], Tensor]
"""(labels (k,), their rows in the training part (k,) int64 on the CPU) to what the loss takes."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One network in training.

    Attributes:
        settings: with a number as batch size.
        fold: which fold it holds out; 0 without folds.
        train: what it is trained on.
        validation: what it is measured on.
        outputs: classes, or 1.
        deviation: of the targets of a regression, in the data's own units; they are standardized.
        center: their mean.
        model: holds the weights.
        forward: the model, distributed over several processes and compiled where that is wanted.
        peers: the processes that train it together.
        loss: what is minimized.
        logit_scale: what outputs are multiplied by to be logits; the loss does that itself.
        augment: changes training batches at random, None for none.
        goals: makes of labels and their rows what the loss takes in their place; None: the labels themselves.
        schedule: of the rate, None where it stays.
        switch: to another optimizer, None where there is none.
        scaler: of float16's gradients.
        dtype: what the model computes in, None for float32.
        epoch_updates: batches of a pass, by which schedules count epochs.
        epoch: passes done.
        position: batches done of the pass after that.
        updates: steps of the optimizer.
        rate: the learning rate with which the pass began.
        sums: (2,) float64 on the device: loss times samples, and samples classified right, of the pass;
            of this process's samples.
        metrics: of the last whole pass.
        random: states of the generators, while another fold's run has them.
    """

    settings: JobSettings
    fold: int
    train: Samples
    validation: Samples
    outputs: int
    deviation: float = 1.0
    center: float = 0.0
    model: nn.Module
    forward: nn.Module
    peers: Peers = ALONE
    loss: Loss
    logit_scale: float = 1.0
    augment: Augment | None
    goals: Goals | None = None
    optimizer: Optimizer
    schedule: Schedule | None
    switch: Switch | None
    scaler: torch.amp.GradScaler | None
    dtype: torch.dtype | None
    epoch_updates: int = 0
    epoch: int = 0
    position: int = 0
    updates: int = 0
    rate: float = 0.0
    sums: Tensor
    metrics: dict[str, float] = field(default_factory=dict)
    random: dict[str, Any] | None = None

    @property
    def size(self) -> int:
        """Samples of a batch, of all processes together."""
        assert isinstance(self.settings.batch_size, int), "`largest` was resolved before"
        return self.settings.batch_size

    def end_epoch(self, loss: float) -> None:
        """Count a pass as done, and let schedule and switch act on the validation loss after it."""
        self.epoch, self.position = self.epoch + 1, 0
        if self.schedule is not None:
            self.schedule.epoch_end(loss)
        if self.switch is not None and self.switch.due(self.epoch, loss):
            self._switch_optimizer()

    def _switch_optimizer(self) -> None:
        """Let the other optimizer take over, with a schedule for the epochs that are left."""
        assert self.switch is not None and self.switch.switched_at is not None, "it is due"
        self.optimizer = self.switch.make(self.optimizer)
        self.schedule = build_schedule(
            self.optimizer,
            after_switch(self.settings.schedule),
            epochs=max(1, self.settings.epochs - self.switch.switched_at),
            epoch_updates=self.epoch_updates,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict() if self.schedule is not None else None,
            "switch": self.switch.state_dict() if self.switch is not None else None,
            "scaler": self.scaler.state_dict() if self.scaler is not None else None,
            "epoch": self.epoch,
            "position": self.position,
            "updates": self.updates,
            "rate": self.rate,
            "sums": self.sums,
            "metrics": self.metrics,
            "random": self.random,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint holds; the run is one that has just been built."""
        self.model.load_state_dict(state["model"])
        if self.switch is not None:
            self.switch.load_state_dict(state["switch"])
            if self.switch.switched:
                self._switch_optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])
        if self.scaler is not None:
            self.scaler.load_state_dict(state["scaler"])
        self.epoch, self.position, self.updates = state["epoch"], state["position"], state["updates"]
        self.rate = state["rate"]
        self.sums.copy_(state["sums"])
        self.metrics, self.random = dict(state["metrics"]), state["random"]
