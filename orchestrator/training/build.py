"""From settings and data to a run that can begin: model, loss, optimizer and what goes with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from orchestrator.data.dataset import Splits
from orchestrator.data.source import CLASSIFICATION
from orchestrator.training import finetune
from orchestrator.training.augment import build_augment
from orchestrator.training.batching import Samples, batch_sizes, samples
from orchestrator.training.distributed import ALONE, Peers
from orchestrator.training.global_norm import synchronized
from orchestrator.training.initial import set_output_bias
from orchestrator.training.losses import build_loss, logit_scale, wants_normalized
from orchestrator.training.models import build_model, normalize_last
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.parallel import distributed
from orchestrator.training.passes import pass_order
from orchestrator.training.precision import build_scaler, choose_dtype
from orchestrator.training.randomness import capture, seed_all, seed_of
from orchestrator.training.run import Loss, Run
from orchestrator.training.schedules import build_schedule
from orchestrator.training.settings import JobSettings
from orchestrator.training.switch import build_switch


@dataclass(frozen=True, kw_only=True, slots=True)
class Fold:
    """Training and validation samples on their way to a model.

    Attributes:
        number: from 0; 0 also without folds.
        data: the dataset they are from.
        train, validation: the targets of a regression are standardized, by the training part's center and
            deviation: a network's outputs and its learning rates are of the order of one.
        center, deviation: 0 and 1 for classes.
    """

    number: int
    data: Splits
    train: Samples
    validation: Samples
    center: float = 0.0
    deviation: float = 1.0


def load_fold(data: Splits, number: int, device: torch.device) -> Fold:
    """Load the training and validation samples of one fold; of a plain split where there are no folds."""
    data = data.fold(number) if data.folds > 1 else data
    train, validation = data.train, data.validation
    if data.task == CLASSIFICATION:
        return Fold(
            number=number,
            data=data,
            train=samples(train, device),
            validation=samples(validation, device),
        )
    center, deviation = target_scale(data)
    return Fold(
        number=number,
        data=data,
        train=samples(train, device, _standardized(torch.from_numpy(train.targets), center, deviation)),
        validation=samples(
            validation, device, _standardized(torch.from_numpy(validation.targets), center, deviation)
        ),
        center=center,
        deviation=deviation,
    )


def target_scale(data: Splits) -> tuple[float, float]:
    """Return mean and standard deviation of a regression's training targets; 1 where they are all equal."""
    values = torch.from_numpy(data.train.targets).double()
    deviation = values.std(correction=0).item()
    return values.mean().item(), deviation if deviation > 0 else 1.0


def build_run(settings: JobSettings, fold: Fold, device: torch.device, peers: Peers = ALONE) -> Run:
    """Build a run as it begins; its random numbers follow from the seed and the fold alone.

    Args:
        settings: with a number as batch size.
        fold: what it learns from.
        device: where the model goes.
        peers: who train it together; all of them build it at the same time. Of their random numbers, those of
            process 0 are a lone process's, and the others have their own.

    Raises:
        UserError: settings that are wrong, or do not fit the data.
    """
    seed_all(settings.seed + (fold.number << 44), device)
    dtype = choose_dtype(settings.precision, device)
    model = network(settings, fold.data)
    if settings.model.output_bias == "data":
        classes = fold.data.num_classes if fold.data.task == CLASSIFICATION else None
        set_output_bias(model, fold.train.targets.cpu(), classes)
    if settings.finetune.checkpoint is not None:
        finetune.load(model, Path(settings.finetune.checkpoint))
    model = model.to(device)
    if not peers.alone:
        model = synchronized(model, peers)
    groups = finetune.parameter_groups(model, settings.finetune, settings.optimizer.lr)
    optimizer = build_optimizer(groups, settings.optimizer)
    run = Run(
        settings=settings,
        fold=fold.number,
        train=fold.train,
        validation=fold.validation,
        outputs=fold.data.outputs,
        center=fold.center,
        deviation=fold.deviation,
        model=model,
        forward=_forward(settings, model, fold, peers, dtype),
        peers=peers,
        loss=loss_for(settings, fold, device),
        logit_scale=logit_scale(settings.loss),
        augment=build_augment(settings.augmentation, fold.data.shape, fold.data.num_classes or None),
        optimizer=optimizer,
        schedule=None,
        switch=build_switch(settings.optimizer),
        scaler=build_scaler(dtype, device),
        dtype=dtype,
        sums=torch.zeros(2, dtype=torch.float64, device=device),
    )
    run.epoch_updates = len(batch_sizes(len(pass_order(run)), run.size))
    run.schedule = build_schedule(
        optimizer,
        settings.schedule,
        epochs=settings.epochs,
        epoch_updates=run.epoch_updates,
        momentum=settings.optimizer,
    )
    if not peers.leads:
        seed_all(seed_of(settings.seed, fold.number, peers.rank), device)
    run.random = capture(device)
    return run


def network(settings: JobSettings, data: Splits) -> nn.Module:
    """Build the model for a dataset, on the CPU, its initial values from torch's global random state."""
    return bare_network(settings, data.shape, data.outputs, data.vocabulary)


def bare_network(
    settings: JobSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Module:
    """Build the model for samples of a shape, as `network` does for a dataset's."""
    model = build_model(settings.model, shape, outputs, vocabulary=vocabulary)
    return normalize_last(model) if wants_normalized(settings.loss) else model


def loss_for(settings: JobSettings, fold: Fold, device: torch.device) -> Loss:
    """Return the loss that is minimized, which may weigh classes by their counts in the training part."""
    counts: Tensor | None = None
    if fold.data.task == CLASSIFICATION:
        counts = torch.bincount(fold.train.targets.cpu(), minlength=fold.data.num_classes)
    return build_loss(settings.loss, task=fold.data.task, counts=counts, device=device)


def _forward(
    settings: JobSettings, model: nn.Module, fold: Fold, peers: Peers, dtype: torch.dtype | None
) -> nn.Module:
    """Return what is called in training: distributed, then compiled, where that is wanted.

    In this order: compiled as a whole, a model would send its gradients only when it has all of them.
    """
    forward = model
    if not peers.alone:
        inputs, _ = fold.train.take(torch.arange(2) % len(fold.train))
        frozen = settings.finetune.freeze > 0
        forward = distributed(model, peers, inputs, dtype=dtype, frozen=frozen)
    return _compiled(forward) if settings.compile else forward


def _compiled(model: nn.Module) -> nn.Module:
    compiled = torch.compile(model)
    assert isinstance(compiled, nn.Module), "a module gives a module"
    return compiled


def _standardized(values: Tensor, center: float, deviation: float) -> Tensor:
    return ((values.double() - center) / deviation).float()
