"""The built-in job: train a classifier by config, and predict from its checkpoints.

What is heavy is imported here at the top: a task imports this module once, and its trials are children of
a fork server that share it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
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
from orchestrator.data.dataset import Part, Splits, open_dataset
from orchestrator.ensemble.members import Predictions
from orchestrator.errors import UserError
from orchestrator.training.checkpoints import load_member
from orchestrator.training.loop import Samples, State, Trial, batches, fit, predict_logits
from orchestrator.training.models import build_model, choose_device
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.schedules import build_schedule
from orchestrator.training.settings import JobSettings, read_job

# Not used here: what the sources import when they are called, preloaded for the trials.
_PRELOADED = (PIL.ImageDraw, PIL.ImageFont, pyarrow.parquet, sklearn.datasets, orchestrator.data.glyphs)


def train(config: DictConfig, trial: Trial) -> dict[str, float]:
    """Train one setting at one scale; the job contract.

    Args:
        config: as in jobs/classify.yaml, with the dataset's config at `dataset`.
        trial: gets a report after each epoch (`train/loss`, `train/accuracy`, `val/loss`, `val/accuracy`,
            `lr`), and checkpoints where `config.checkpoints` is above 0.

    Returns:
        The metrics of the best epoch by validation accuracy, and its number as `best_epoch`. All NaN where
        training diverged.

    Raises:
        UserError: a key or value in the config is wrong.
        StopTrial: the trial was abandoned in `report`.
    """
    settings = _settings(config)
    data = open_dataset(settings.dataset)
    device = choose_device(settings.device)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.manual_seed(settings.seed)
    model = build_model(settings.model, data.shape, data.num_classes).to(device)
    optimizer = build_optimizer(model.parameters(), settings.optimizer)
    training, validation = _samples(data.train, device), _samples(data.validation, device)
    schedule = build_schedule(
        optimizer,
        settings.schedule,
        epochs=settings.epochs,
        epoch_updates=len(batches(len(training), settings.batch_size)),
    )
    return fit(State(model, optimizer, schedule), training, validation, settings, trial)


def predict(config: DictConfig, checkpoint: Path, split: str) -> Predictions:
    """Predict one part of the data with one checkpoint of a run of `config`.

    Args:
        config: as `train` got it.
        checkpoint: a file that a trial kept.
        split: "train", "validation" or "test"; "test" is read only when it is asked for here.

    Raises:
        UserError: a key or value in the config is wrong.
        UnreadableCheckpoint: the checkpoint is missing, cut short, or of another model.
    """
    settings = _settings(config)
    data = _opened(json.dumps(dict(settings.dataset), sort_keys=True))
    device = choose_device(settings.device)
    model = build_model(settings.model, data.shape, data.num_classes).to(device)
    load_member(Path(checkpoint), model, device)
    part = data.part(split)
    logits = predict_logits(model, torch.from_numpy(part.inputs).to(device))
    probabilities = torch.softmax(logits.double(), dim=1).cpu().numpy().astype(np.float32)
    return Predictions(probabilities=probabilities, labels=part.labels, ids=part.ids)


def _settings(config: DictConfig | Mapping[str, Any]) -> JobSettings:
    """Resolve a config into checked settings."""
    plain = OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
    if not isinstance(plain, dict):
        raise UserError("the config should be a mapping")
    return read_job({str(key): value for key, value in plain.items()})


@functools.lru_cache(maxsize=2)
def _opened(dataset: str) -> Splits:
    """Open a dataset, given as JSON, once for all the checkpoints that predict it."""
    return open_dataset(json.loads(dataset))


def _samples(part: Part, device: torch.device) -> Samples:
    """Put a part on the device."""
    return Samples(torch.from_numpy(part.inputs).to(device), torch.from_numpy(part.labels).to(device))
