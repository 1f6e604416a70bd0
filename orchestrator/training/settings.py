"""The built-in job's config as dataclasses: every key, its type and its default.

jobs/classify.yaml lists the same keys for users; a test keeps the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestrator.data.typed import read
from orchestrator.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """The network; see orchestrator.training.models."""

    name: str = "mlp"
    width: int = 64
    """Units of a hidden layer (mlp) or channels of the first block (cnn)."""
    depth: int = 2
    """Hidden layers (mlp) or blocks (cnn)."""
    dropout: float = 0.0
    """Chance to drop an activation, after every hidden layer or block."""
    activation: str = "relu"
    batch_norm: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """The optimizer; see orchestrator.training.optimizers."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    """For sgd; the others have their own."""
    nesterov: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSettings:
    """How the learning rate changes; see orchestrator.training.schedules."""

    name: str = "none"
    warmup_epochs: float = 0.0
    """Epochs, or a part of one, in which the rate rises linearly to its value."""
    step_epochs: float = 5.0
    """For step: epochs from one cut to the next."""
    step_factor: float = 0.5
    """For step: what each cut multiplies the rate by."""
    final_ratio: float = 1e-3
    """For exponential: the last rate over the first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """The loss that is minimized: cross-entropy."""

    label_smoothing: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSettings:
    """The whole config of the built-in job."""

    dataset: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    batch_size: int = 64
    epochs: int = 10
    seed: int = 0
    checkpoints: int = 0
    """Checkpoints kept for the ensemble, spread over the second half of the epochs; 0 keeps none."""
    save_seconds: float = 30.0
    """Least time between two states written for resuming."""
    device: str = "auto"


def read_job(config: Mapping[str, Any]) -> JobSettings:
    """Check a job's config and turn it into settings.

    Raises:
        UserError: an unknown key, a value of the wrong type, a number below its least.
    """
    settings = read(JobSettings, config)
    for key in ("batch_size", "epochs"):
        if getattr(settings, key) < 1:
            raise UserError(f"{getattr(settings, key)} is below 1", key=key)
    if settings.model.batch_norm and settings.batch_size == 1:
        raise UserError(
            "is 1, which batch normalization cannot do with", key="batch_size", hint="Use 2 or more"
        )
    return settings
