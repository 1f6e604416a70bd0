"""From a checkpoint to a network that can be handed over, and what goes into it."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from orchestrator.checks.setup import as_setup
from orchestrator.data.dataset import Splits, open_dataset
from orchestrator.data.source import CLASSIFICATION
from orchestrator.errors import UserError
from orchestrator.export.program import Finished
from orchestrator.export.sequences import unpacked
from orchestrator.export.subjects import Subject
from orchestrator.schema import SweepConfig
from orchestrator.training.build import network, target_scale
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.losses import logit_scale
from orchestrator.training.settings import read_job
from orchestrator.training.weights import State, fill, plain_names, read_weights
from orchestrator.worker.job import load_function

BUILT_IN = "orchestrator.training.supervised.predict"
# What a network's outputs are.
LOGITS, VALUES, PROBABILITIES = "logits", "values", "probabilities"
_EXAMPLES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """One network, ready to be written.

    Attributes:
        state: its weights, by the names in its checkpoint.
        module: gives logits, values or probabilities for (n, *shape); None where only the weights are known.
        example: some samples as they go into it.
        why: there is no module.
        outputs: LOGITS, VALUES or PROBABILITIES.
        classes: their names; empty where they are not known, and for values.
        data: where its samples come from; None for a job that prepares them itself.
        scale, center: what the module does to the outputs of the network with these weights.
        job: the config of its run.
    """

    state: State
    module: nn.Module | None
    example: Tensor | None
    why: str
    outputs: str
    classes: tuple[str, ...]
    data: Splits | None
    scale: float
    center: float
    job: Mapping[str, Any]


def build_network(subject: Subject, config: SweepConfig, *, is_classes: bool) -> Network:
    """Build the network of a subject, with its weights, for classes or for values.

    Raises:
        UserError: its checkpoint cannot be read or is of another model, or its data are not what they were.
    """
    try:
        state = read_weights(subject.checkpoint).state
        if config.jobs.predict == BUILT_IN:
            return _built_in(subject, state)
        return _own(subject, state, config, is_classes=is_classes)
    except UnreadableCheckpoint as error:
        raise UserError(
            f"cannot be read ({error})", file=subject.checkpoint, hint="Is it cut short, or of another model?"
        ) from error


@functools.lru_cache(maxsize=4)
def opened(dataset: str) -> Splits:
    """Open a dataset, given as JSON, as the built-in job's predictions see it: its first fold."""
    data = open_dataset(json.loads(dataset))
    return data.fold(0) if data.folds > 1 else data


def _built_in(subject: Subject, state: State) -> Network:
    """Build a network of the built-in job."""
    job = _plain(subject)
    settings = read_job(job)
    data = opened(json.dumps(dict(settings.dataset), sort_keys=True))
    model = network(settings, data)
    fill(model, state, subject.checkpoint)
    is_classes = data.task == CLASSIFICATION
    center, scale = (0.0, logit_scale(settings.loss)) if is_classes else target_scale(data)
    return Network(
        state=plain_names(state),
        module=Finished(unpacked(model), scale=scale, center=center),
        example=_made_up((_EXAMPLES, *data.shape), data.vocabulary),
        why="",
        outputs=LOGITS if is_classes else VALUES,
        classes=data.class_names,
        data=data,
        scale=scale,
        center=center,
        job=job,
    )


def _own(subject: Subject, state: State, config: SweepConfig, *, is_classes: bool) -> Network:
    """Build a network of the user's own job by its `setup`, where it has one."""
    module = example = None
    classes: tuple[str, ...] = ()
    outputs, why = VALUES, "the job has no `setup`, which would build its model"
    if config.jobs.setup is not None:
        setup = as_setup(load_function(config.jobs.setup, "jobs.setup")(subject.config))
        fill(setup.model, state, subject.checkpoint)
        module, example, classes = setup.model.cpu().eval(), setup.inputs[:_EXAMPLES].cpu(), setup.class_names
        outputs, why = _kind(module, example, is_classes=is_classes), ""
    return Network(
        state=plain_names(state),
        module=module,
        # Of the same shape, but nobody's data.
        example=None if example is None else torch.zeros_like(example),
        why=why,
        outputs=outputs,
        classes=classes,
        data=None,
        scale=1.0,
        center=0.0,
        job=_plain(subject),
    )


def _kind(model: nn.Module, example: Tensor, *, is_classes: bool) -> str:
    """Return what a user's network gives: rows that are all positive and sum to 1 are probabilities."""
    if not is_classes:
        return VALUES
    with torch.no_grad():
        outputs = model(example)
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        return LOGITS
    sums = outputs.double().sum(dim=1)
    is_share = bool((outputs >= 0).all()) and bool(((sums - 1).abs() < 1e-4).all())
    return PROBABILITIES if is_share else LOGITS


def _made_up(shape: tuple[int, ...], vocabulary: int | None) -> Tensor:
    """Return samples of a shape that tell nothing of anybody's data; of tokens 0 is padding."""
    count = math.prod(shape)
    if vocabulary is not None:
        return (torch.arange(count) % max(1, vocabulary - 1) + 1).reshape(shape)
    return torch.linspace(-1, 1, count).reshape(shape)


def _plain(subject: Subject) -> dict[str, Any]:
    plain = OmegaConf.to_container(subject.config, resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
