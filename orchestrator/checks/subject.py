"""A set-up under examination: what several checks need of it, worked out once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from orchestrator.checks.fitting import FEWEST, SAMPLES, Fitted, fit_small_batch, small_batch
from orchestrator.checks.quick import Quick, quick_models
from orchestrator.checks.seeding import seeded
from orchestrator.checks.setup import Setup
from orchestrator.checks.yardstick import Yardstick, yardstick

# Samples of the first loss.
FIRST = 512


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A set-up under examination.

    Attributes:
        make: builds the set-up anew, the same each time.
        setup: what it built first; its model is never trained, copies of it are.
        human_accuracy: what people reach, from 0 to 1.
        train: trains at the smallest scale and returns metrics; called twice.
    """

    make: Callable[[], Setup]
    setup: Setup
    human_accuracy: float | None = None
    train: Callable[[], Mapping[str, float]] | None = None

    def model(self) -> nn.Module:
        """Return a copy of the model as it is before its first update."""
        try:
            return copy.deepcopy(self.setup.model)
        except (RuntimeError, TypeError):
            # Some modules hold what can't be copied; building them again takes longer, and gives the same.
            return self.make().model

    @cached_property
    def first(self) -> tuple[Tensor, Tensor]:
        """The first samples: inputs and targets."""
        return self.setup.inputs[:FIRST], self.setup.targets[:FIRST]

    @cached_property
    def outputs(self) -> Tensor:
        """What the model gives for the first samples before training, in training mode."""
        with seeded(self.setup.inputs.device), torch.no_grad():
            return self.model().train()(self.first[0])  # type: ignore[no-any-return]

    @cached_property
    def scale(self) -> Yardstick:
        """The scale of the loss on the first samples."""
        return yardstick(self.setup.loss, self.outputs, self.first[1])

    @cached_property
    def fitted(self) -> Fitted:
        """The model after it was fitted to a few samples, as far as it could be."""
        attempts = []
        # A linear model of few inputs can't fit ten samples, and is sound if it fits two.
        for size in (SAMPLES, FEWEST):
            inputs, targets = small_batch(self.setup.inputs, self.setup.targets, size)
            attempts.append(fit_small_batch(self.model, self.setup.loss, inputs, targets))
            if attempts[-1].enough:
                return attempts[-1]
        return attempts[0]

    @cached_property
    def quick(self) -> Quick | None:
        """Simple models of the same data; None where there are none for such data."""
        return quick_models(self.setup)
