"""From a dataset's config to its source, checked against what was declared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from orchestrator.data.fingerprint import fingerprint
from orchestrator.data.labels import declared_classes_problem
from orchestrator.data.settings import DatasetSettings, locate, read_settings, source_arguments
from orchestrator.data.source import TASKS, Source
from orchestrator.errors import UserError, nearest


def open_source(config: Mapping[str, Any]) -> Source:
    """Open the whole dataset that a config describes, before anything is split or taken.

    Args:
        config: the content of a datasets/*.yaml.

    Raises:
        UserError: a key or value is wrong, the data are not there, not what was declared, or not what they
            were when the sweep was planned.
    """
    settings, _ = read_settings(config)
    function = locate(config.get("_target_"))
    arguments = source_arguments(function, config)
    _check_unchanged(config, settings)
    opened = function(**arguments)
    if not isinstance(opened, Source):
        opened = _wrapped(opened, str(config["_target_"]), settings)
    _check_source(opened, str(config["_target_"]))
    _check_declared(opened, settings)
    return opened


def _wrapped(opened: object, target: str, settings: DatasetSettings) -> Source:
    """Make a source of a map-style dataset, such as a torch Dataset."""
    if not (hasattr(opened, "__len__") and hasattr(opened, "__getitem__")):
        raise UserError(
            f"returned {type(opened).__name__}, not a Source",
            key=target,
            hint="Nor has it __len__ and __getitem__, as a dataset of (input, label) pairs has",
        )
    from orchestrator.data.map_style import map_style

    return map_style(opened, task=settings.task, resolution=settings.resolution, name=target)


def _check_source(source: Source, target: str) -> None:
    """Refuse labels that fit neither the class names nor each other; ours fit, a user's may not."""
    labels, classes = source.labels, len(source.class_names)
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise UserError("its labels are no array (n,) of whole numbers", key=target)
    if not len(labels):
        raise UserError("has no samples", key=target)
    if source.targets is not None:
        if source.targets.shape != labels.shape or not np.isfinite(source.targets).all():
            raise UserError("its targets are not one finite value for each sample", key=target)
        return
    if classes < 2:
        raise UserError(f"it has {classes} class, and two are needed", key=target)
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        first = int(outside.argmax())
        raise UserError(
            f"label {labels[first]} of sample {first} is not from 0 to {classes - 1}, and {classes} "
            "class names are given",
            key=target,
        )


def _check_declared(source: Source, settings: DatasetSettings) -> None:
    """Compare what was declared with what is there."""
    if settings.task is not None and settings.task not in TASKS:
        hint = nearest(settings.task, TASKS)
        raise UserError(f"there is no task '{settings.task}'", key="datasets.task", hint=hint)
    if settings.task not in (None, source.task):
        problem = f"{settings.task} is declared, and the data are for {source.task}"
        raise UserError(problem, key="datasets.task")
    actual = len(source.labels)
    if settings.samples not in (None, actual):
        raise UserError(
            f"{settings.samples} are declared, and the data have {actual}",
            key="datasets.samples",
            hint=f"Correct it to {actual}, or find out why the data changed",
        )
    classes = len(source.class_names)
    if settings.num_classes not in (None, classes):
        raise UserError(
            declared_classes_problem(settings.num_classes or 0, source.class_names),
            key="datasets.num_classes",
            hint=f"Correct it to {classes}, or find out why the data changed"
            if classes
            else "Leave it null: the data have values to predict",
        )


def _check_unchanged(config: Mapping[str, Any], settings: DatasetSettings) -> None:
    """Compare the files with what they were when the sweep was planned."""
    if settings.fingerprint is None:
        return
    now = fingerprint(config)
    if now != settings.fingerprint:
        raise UserError(
            f"has changed since the sweep was planned: {settings.fingerprint} then, {now or 'no files'} now",
            file=config.get("path"),
            hint="Put the old files back, or plan a new sweep: results on different data don't compare",
        )
