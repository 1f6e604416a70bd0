"""The keys of a dataset's YAML file that are not its source's own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from orchestrator.data.typed import read
from orchestrator.errors import UserError, nearest

# Common keys that a source's function gets too where it has a parameter of that name.
_SHARED = ("samples", "num_classes", "task", "resolution")


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """How the whole dataset is divided, before any stage takes its part."""

    validation: float = 0.2
    """Fraction of each class for validation."""
    test: float = 0.2
    """Fraction of each class held out; no stage reads it."""
    seed: int = 0
    folds: int | str = 1
    """1: one split. k: training and validation samples are divided anew into k folds, each of them the
    validation part once. auto: 5 where the validation part has fewer than 100 samples, otherwise 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSettings:
    """What a stage sees of a dataset; datasets/*.yaml says the same in YAML."""

    samples: int | None = None
    """Declared size, so that planning need not open the data."""
    num_classes: int | None = None
    """Declared number of classes, for the same reason."""
    task: str | None = None
    """classification or regression, for a source that can give both; null: what the source gives."""
    fraction: float = 1.0
    """Of the training part of the chosen classes: a fraction up to 1, or a count above 1."""
    classes: int | Sequence[int | str] | None = None
    """A count, a list of class names, or null for all."""
    class_rule: str = "first"
    """How a count chooses: first, random, confusable (those that a linear model mixes up most)."""
    validation_size: float | None = None
    """At most so much of the validation part (a fraction up to 1, or a count above 1); null for all."""
    split: SplitSettings = field(default_factory=SplitSettings)
    subset_seed: int = 0
    """Which samples the subsets take, and which classes the random rule."""
    transform: str | Sequence[str] = "none"
    """One of orchestrator.data.transforms.TRANSFORMS, or a list of them in the order of application."""
    resolution: int | None = None
    """Pixels of a side that images are resized to; null: as they are, or what their source chooses."""
    memory_gb: float | None = None
    """A part that takes more is kept in a temporary file; null: a quarter of this process's memory."""
    fingerprint: str | None = None
    """Of the data's files when the sweep was planned; the planner writes it, see data.fingerprint."""


def read_settings(config: Mapping[str, Any]) -> tuple[DatasetSettings, dict[str, Any]]:
    """Divide a dataset's config into the common settings and its source's own arguments.

    Raises:
        UserError: an unknown key below `split`, or a value of the wrong type.
    """
    names = {each.name for each in fields(DatasetSettings)}
    common = {key: value for key, value in config.items() if key in names}
    own = {key: value for key, value in config.items() if key not in names and key != "_target_"}
    return read(DatasetSettings, common, "datasets."), own


def source_arguments(function: Callable[..., Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a source's function out of a dataset's config.

    `samples` and `num_classes` go to a function that takes them (a generated dataset has the size that is
    declared); for others they are what the data are checked against. So it is with `task` and `resolution`.

    Raises:
        UserError: a key that neither the function nor a dataset knows, or one that is missing.
    """
    _, arguments = read_settings(config)
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        raise UserError("does not say what arguments it takes", key=str(config.get("_target_"))) from None
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for key in arguments:
        if key not in parameters and not takes_any:
            known = {*parameters, *(each.name for each in fields(DatasetSettings))}
            raise UserError("no such key", key=f"datasets.{key}", hint=nearest(key, known))
    arguments |= {key: config[key] for key in _SHARED if key in parameters and config.get(key) is not None}
    for name, each in parameters.items():
        required = each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if required and arguments.get(name) in (None, "???"):
            raise UserError("has no value", key=f"datasets.{name}", hint=f"Say datasets.{name}=...")
    return arguments


def locate(target: object) -> Callable[..., Any]:
    """Find a function by its dotted path.

    Raises:
        UserError: there is none, or its module does not import.
    """
    module, _, name = str(target or "").rpartition(".")
    if not module:
        raise UserError(f"{target!r} is no dotted path", key="datasets._target_", hint="Say package.function")
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        raise UserError(f"'{module}' does not import: {error}", key="datasets._target_") from error
    except AttributeError:
        choices = [each for each in dir(import_module(module)) if not each.startswith("_")]
        raise UserError(
            f"'{module}' has no '{name}'", key="datasets._target_", hint=nearest(name, choices)
        ) from None
    if not callable(found):
        raise UserError(f"'{target}' cannot be called", key="datasets._target_")
    return found  # type: ignore[no-any-return]
