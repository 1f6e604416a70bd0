"""The built-in job: train a network by config on classes or values, and predict from its checkpoints.

What is heavy is imported here at the top: a task imports this module once, and its trials are children of
a fork server that share it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import PIL.ImageDraw
import PIL.ImageFont
import pyarrow.parquet
import sklearn.datasets
import torch
from omegaconf import DictConfig, OmegaConf

import orchestrator.data.glyphs
import orchestrator.diagnosis.watch
from orchestrator.checks.setup import Setup
from orchestrator.data.dataset import Splits, open_dataset
from orchestrator.data.source import CLASSIFICATION
from orchestrator.diagnosis import detail
from orchestrator.diagnosis.predictions import describe
from orchestrator.ensemble.members import Predictions
from orchestrator.errors import UserError
from orchestrator.sweep.directory import FINAL
from orchestrator.training.batching import Samples, samples
from orchestrator.training.build import build_run, load_fold, network, target_scale
from orchestrator.training.checkpoints import load_member
from orchestrator.training.distributed import ALONE, Peers
from orchestrator.training.keeping import saved_state
from orchestrator.training.loop import fit
from orchestrator.training.losses import logit_scale
from orchestrator.training.meeting import met
from orchestrator.training.metrics import selected
from orchestrator.training.models import choose_device
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.passes import predict_outputs
from orchestrator.training.precision import choose_dtype
from orchestrator.training.run import Run
from orchestrator.training.scaling import REFERENCE_BATCH, check_scaling, resolved, sized
from orchestrator.training.settings import LARGEST, JobSettings, read_job
from orchestrator.training.stopping import check_stopping
from orchestrator.training.teacher import check_teacher, content_hash, taught
from orchestrator.training.training import Training, Trial

# Not used here: what sources and trials import when they are called, preloaded for the trials.
_PRELOADED = (
    PIL.ImageDraw,
    PIL.ImageFont,
    pyarrow.parquet,
    sklearn.datasets,
    orchestrator.data.glyphs,
    orchestrator.diagnosis.watch,
)

# What the sanity checks get: enough for all of them, and quick.
SETUP_SAMPLES = 2000


def train(config: DictConfig | Mapping[str, Any], trial: Trial) -> dict[str, float]:
    """Train one setting at one scale; the job contract.

    Several processes train it together where the environment says so; see training.meeting. Each of them
    calls this; process 0 alone reports, and writes what is kept.

    Args:
        config: as in jobs/classify.yaml, with the dataset's config at `dataset`.
        trial: gets a report after each epoch (see `orchestrator.training.metrics`, and `lr`), and checkpoints
            where `config.checkpoints` is above 0.

    Returns:
        The metrics of the best epoch by `config.select`, and its number as `best_epoch`; with
        `batch_size: largest` also the size. All NaN where training diverged. With folds the means over them,
        unless checkpoints are kept, or several processes train: then fold 0 alone is trained.

    Raises:
        UserError: a key or value in the config is wrong.
        StopTrial: the trial was abandoned in `report`.
        PeerLost: another process of the run failed, or is gone.
    """
    settings = _settings(config)
    with met(settings.device) as peers:
        return _train(settings, trial, peers)


def _train(settings: JobSettings, trial: Trial, peers: Peers) -> dict[str, float]:
    """Train as one of the processes that have met."""
    device = peers.device
    data = open_dataset(settings.dataset)
    selected(settings.select, data.task)
    count = data.folds if settings.checkpoints == 0 and peers.alone else 1
    folds = [load_fold(data, number, device) for number in range(count)]

    def begin(settings: JobSettings, number: int, peers: Peers = peers) -> Run:
        return taught(build_run(settings, folds[number], device, peers), folds[number])

    teacher = content_hash(settings.teacher)
    fingerprint = json.dumps({**asdict(settings), "teacher_content": teacher}, sort_keys=True, default=str)
    state = peers.agreed(lambda: saved_state(trial.checkpoint_dir / "last.pt", fingerprint, device))
    measured = settings.batch_size == LARGEST
    settings = resolved(settings, state, peers, lambda settings: begin(settings, 0, ALONE))
    training = Training(
        runs=[begin(settings, number) for number in range(count)],
        build=functools.partial(begin, settings),
        settings=settings,
        task=data.task,
        trial=trial,
        fingerprint=fingerprint,
        extra={"batch_size": float(settings.batch_size)} if measured else {},
    )
    result = _fitted(training, state)
    best = trial.checkpoint_dir / "best.pt"
    if getattr(trial, "kind", None) == FINAL and settings.checkpoints and peers.leads and best.is_file():
        _describe(settings, folds[0].data, best, device)
    return result


def _fitted(training: Training, state: Mapping[str, Any] | None) -> dict[str, float]:
    """Train; say so where what fails is the compiler.

    Raises:
        UserError: the model cannot be compiled here.
    """
    if not training.settings.compile:
        return fit(training, state)
    from torch._dynamo.exc import TorchDynamoException

    try:
        return fit(training, state)
    except TorchDynamoException as error:
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"the model cannot be compiled here: {why[0]}", key="compile", hint="Say compile=false"
        ) from error


def predict(config: DictConfig | Mapping[str, Any], checkpoint: Path, split: str) -> Predictions:
    """Predict one part of the data with one checkpoint of a run of `config`.

    Args:
        config: as `train` got it.
        checkpoint: a file that a trial kept.
        split: "train", "validation" or "test"; "test" is read only when it is asked for here.

    Returns:
        For classes their probabilities. For values: what is predicted in place of probabilities, (n, 1), and
        the right values as labels, float32.

    Raises:
        UserError: a key or value in the config is wrong.
        UnreadableCheckpoint: the checkpoint is missing, cut short, or of another model.
    """
    settings = _settings(config)
    data = _opened(json.dumps(dict(settings.dataset), sort_keys=True))
    return _predictions(settings, data, Path(checkpoint), split, choose_device(settings.device))


def _predictions(
    settings: JobSettings, data: Splits, checkpoint: Path, split: str, device: torch.device
) -> Predictions:
    """Predict one part of a dataset that is open."""
    model = network(settings, data).to(device)
    load_member(checkpoint, model, device)
    model.eval()
    part = data.part(split)
    outputs = predict_outputs(model, samples(part, device), choose_dtype(settings.precision, device)).double()
    outputs *= logit_scale(settings.loss)
    if data.task == CLASSIFICATION:
        values = torch.softmax(outputs, dim=1)
    else:
        center, deviation = target_scale(data)
        values = outputs * deviation + center
    return Predictions(
        probabilities=values.cpu().numpy().astype(np.float32), labels=part.targets, ids=part.ids
    )


def _describe(settings: JobSettings, data: Splits, checkpoint: Path, device: torch.device) -> None:
    """Write down for the report what a final run's best model gets right and wrong in the validation part."""
    predicted = _predictions(settings, data, checkpoint, "validation", device)
    in_memory = not isinstance(data.validation.inputs, np.memmap)
    described = describe(
        predicted.probabilities,
        predicted.labels,
        predicted.ids,
        data.class_names,
        data.raw("validation").inputs if in_memory else None,
    )
    detail.write(checkpoint.parent, predictions=described)


def setup(config: DictConfig | Mapping[str, Any]) -> Setup:
    """Return what the sanity checks look at: a model as a trial begins with it, its loss and some samples.

    Raises:
        UserError: a key or value in the config is wrong.
    """
    settings = _settings(config)
    settings = settings if settings.batch_size != LARGEST else sized(settings, REFERENCE_BATCH)
    device = choose_device(settings.device)
    fold = load_fold(open_dataset(settings.dataset), 0, device)
    run = build_run(settings, fold, device)
    inputs, targets = _some(fold.train, settings.seed)
    return Setup(
        model=run.model,
        loss=run.loss,
        inputs=inputs,
        targets=targets,
        optimizer=functools.partial(build_optimizer, settings=settings.optimizer),
        validation=_some(fold.validation, settings.seed),
        class_names=fold.data.class_names,
        frozen=settings.finetune.freeze > 0,
    )


def _some(part: Samples, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return up to `SETUP_SAMPLES` samples of a part, chosen at random."""
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(seed))
    return part.take(order[:SETUP_SAMPLES])


def _settings(config: DictConfig | Mapping[str, Any]) -> JobSettings:
    """Resolve a config into checked settings."""
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if not isinstance(plain, dict):
        raise UserError("the config should be a mapping")
    settings = read_job({str(key): value for key, value in plain.items()})
    check_stopping(settings.stopping)
    check_scaling(settings)
    check_teacher(settings.teacher)
    return settings


@functools.lru_cache(maxsize=2)
def _opened(dataset: str) -> Splits:
    """Open a dataset, given as JSON, once for all the checkpoints that predict it; its first fold."""
    data = open_dataset(json.loads(dataset))
    return data.fold(0) if data.folds > 1 else data
