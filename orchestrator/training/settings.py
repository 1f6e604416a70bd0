"""The built-in job's config as dataclasses: every key, its type and its default.

jobs/*.yaml list the same keys for users; a test keeps the two together. Each group of keys is read by the
module that its docstring names, and nobody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.data.typed import read
from orchestrator.errors import UserError

LARGEST = "largest"


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSettings:
    """The network; see orchestrator.training.models and, for initial values, training.initial."""

    name: str = "mlp"
    """mlp, highway: any data; cnn, residual: images; lstm, gru: sequences."""
    target: str | None = None
    """Dotted path of a function or class of the user's own in place of `name`; called with shape,
    outputs, vocabulary (as far as it takes them) and `arguments`, it returns a module."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    width: int = 64
    """Units of a hidden layer (mlp, highway, lstm, gru) or channels of the first block (cnn, residual)."""
    depth: int = 2
    """Hidden layers (mlp, highway, lstm, gru) or blocks (cnn, residual)."""
    first_width: int | None = None
    """Units of the first hidden layer of an mlp; null is `width`."""
    kernel: int = 3
    """Side of the convolutions: 3 or 5."""
    embedding: int = 128
    """Numbers that stand for one token (lstm, gru)."""
    bidirectional: bool = False
    """Read sequences from both ends (lstm, gru)."""
    dropout: float = 0.0
    """Chance to drop an activation, after every hidden layer or block; whole channels in cnn, residual."""
    input_dropout: float = 0.0
    """Chance to drop an input value."""
    activation: str = "relu"
    batch_norm: bool = False
    init: str = "auto"
    """How weights begin; auto follows the activation (He; Xavier for tanh), recurrent ones orthogonal."""
    output_bias: str = "zero"
    """How the last bias begins: zero, or data: the log odds of the classes, or the mean of the values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SwitchSettings:
    """Another optimizer from some moment on; see orchestrator.training.switch."""

    to: str | None = None
    """Its name; null: no switch."""
    at: float | None = None
    """Epoch after which it takes over; null: when `patience` epochs brought no better validation loss."""
    patience: int = 3
    lr: float | None = None
    """Its rate; null: 10 times the rate before for sgd after an adaptive one, else the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerSettings:
    """The optimizer; see orchestrator.training.optimizers."""

    name: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    """For sgd; the others have their own, or none."""
    momentum_start: float | None = None
    """Momentum to begin with, growing linearly to `momentum` in `momentum_epochs`; null: no growth."""
    momentum_epochs: float = 5.0
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    rho: float = 0.95
    """For adadelta; 0.9 to 0.99."""
    alpha: float = 0.99
    """For rmsprop: how slowly the mean of squares forgets."""
    eps: float | None = None
    """Null: 1e-8, 1e-6 for adadelta, 1e-10 for adagrad."""
    clip: float | None = None
    """The largest norm that the gradient of all weights together may have; 5, 10 and 15 are usual."""
    switch: SwitchSettings = field(default_factory=SwitchSettings)


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSettings:
    """How the learning rate changes; see orchestrator.training.schedules."""

    name: str = "none"
    """none, step, exponential, inverse_time, cosine, cyclical, one_cycle, plateau."""
    warmup_epochs: float = 0.0
    """Epochs, or a part of one, in which the rate rises linearly to its value."""
    step_epochs: float = 5.0
    """For step: epochs from one cut to the next."""
    step_factor: float = 0.5
    """For step and plateau: what each cut multiplies the rate by."""
    final_ratio: float = 1e-3
    """For exponential: the last rate over the first. For cosine: too, where it is to end above zero."""
    decay: float = 0.1
    """For inverse_time: k in lr / (1 + k t), with t in epochs."""
    cycle_epochs: float = 4.0
    """For cyclical: epochs from one low to the next."""
    cycle_ratio: float = 0.1
    """For cyclical and one_cycle: the lowest rate over `optimizer.lr`, which is the highest."""
    cycle_momentum: bool = True
    """For cyclical and one_cycle: momentum falls to `cycle_momentum_low` while the rate rises, and back."""
    cycle_momentum_low: float = 0.85
    plateau_epochs: int = 3
    """For plateau: epochs without a better validation loss before a cut."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSettings:
    """The loss that is minimized; see orchestrator.training.losses."""

    name: str = "auto"
    """auto: cross_entropy for classes, mse for values. Or cross_entropy, ldam, focal; mse, mae, huber."""
    class_weights: str = "none"
    """none, inverse, inverse_sqrt, effective."""
    label_smoothing: float = 0.0
    margin: float = 0.5
    """For ldam: the margin of the rarest class."""
    scale: float = 30.0
    """For ldam: what the normalized logits are multiplied by."""
    focus: float = 2.0
    """For focal: how much less the well-classified samples count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoppingSettings:
    """Early stopping; see orchestrator.training.stopping."""

    patience: int | None = None
    """Epochs without a better result after which training ends; null: never."""
    min_gain: float = 0.0
    """The least that counts as better, in units of what is watched."""
    then: str = "stop"
    """stop; retrain: from the start on training and validation data together, for as many updates; go_on:
    with both from the best epoch until the loss on the validation data is below the training loss there;
    report: training goes on, and a finding says where it seemed to have ended and whether it had.
    What comes of retrain and go_on is `all-data.pt`, in runs that keep checkpoints."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentationSettings:
    """Random changes of the training inputs; see orchestrator.training.augment."""

    enabled: bool = True
    """The planner writes false here in the first stages."""
    flip: bool = False
    """Mirror images left to right, half of the time."""
    shift: int = 0
    """Pixels that an image is moved at most, either way (crop after padding)."""
    rotate: float = 0.0
    """Degrees that an image is turned at most, either way."""
    noise: float = 0.0
    """Standard deviation of what is added to every input value, in units after the transform."""
    mixup: float = 0.0
    """alpha of mixup's Beta distribution; 0: none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneSettings:
    """Start from a checkpoint; see orchestrator.training.finetune."""

    checkpoint: str | None = None
    layer_decay: float = 1.0
    """The rate of a layer over that of the layer after it."""
    freeze: int = 0
    """So many layers from the input on stay as they are."""
    unfreeze_epochs: float | None = None
    """One more layer is trained every so many epochs, the last frozen one first; null: they stay frozen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSettings:
    """Learning from what another model predicts; see orchestrator.training.teacher."""

    predictions: str | None = None
    """A Parquet file with sample_id and probabilities for the training samples; null: no teacher."""
    temperature: float = 2.0
    """How much softer both probabilities are made before they are compared; values have none."""
    weight: float = 0.5
    """The share of the loss that is against the teacher; the rest is `loss` against the labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JobSettings:
    """The whole config of the built-in job."""

    dataset: Mapping[str, Any] = field(default_factory=dict)
    model: ModelSettings = field(default_factory=ModelSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    stopping: StoppingSettings = field(default_factory=StoppingSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    balance: str = "none"
    """How often a class's samples are seen: none, over, under, both, batch; see training.balance."""
    batch_size: int | str = 64
    """A number, or largest: what fits the device; then `optimizer.lr` is for 256, scaled with the size."""
    scaling: str = "linear"
    """What several processes make of it: linear (each takes `batch_size` samples, and the rate is multiplied
    by their number) or none (they share them); see training.scaling."""
    epochs: int = 10
    seed: int = 0
    select: str | None = None
    """The reported metric that decides which epoch is best; null: val/accuracy, or val/loss for values."""
    checkpoints: int | Sequence[str] = 0
    """Checkpoints kept for the ensemble: so many, spread over the second half of the epochs, and the best; or
    the moments, such as [best, last, cycles, every 10]; see training.moments. 0 keeps none."""
    save_seconds: float = 30.0
    """Least time between two states written for resuming."""
    device: str = "auto"
    precision: str = "float32"
    """float32, bfloat16, float16, or auto: bfloat16 on a GPU that has it."""
    compile: bool = False
    """Compile the model first: pays for long runs on a GPU."""


def read_job(config: Mapping[str, Any]) -> JobSettings:
    """Check a job's config and turn it into settings.

    Raises:
        UserError: an unknown key, a value of the wrong type, a number below its least.
    """
    settings = read(JobSettings, config)
    if isinstance(settings.batch_size, str) and settings.batch_size != LARGEST:
        raise UserError(
            f"{settings.batch_size!r} is no size", key="batch_size", hint="Say a number, or largest"
        )
    for key in ("batch_size", "epochs"):
        value = getattr(settings, key)
        if not isinstance(value, str) and value < 1:
            raise UserError(f"{value} is below 1", key=key)
    if settings.model.batch_norm and settings.batch_size == 1:
        raise UserError(
            "is 1, which batch normalization cannot do with", key="batch_size", hint="Use 2 or more"
        )
    return settings
