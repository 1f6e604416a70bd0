"""The keys of a dataset's YAML file that are not its source's own arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

from orchestrator.data.typed import read
from orchestrator.errors import UserError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """How the whole dataset is divided, before any stage takes its part."""

    validation: float = 0.2
    """Fraction of each class for validation."""
    test: float = 0.2
    """Fraction of each class held out; no stage reads it."""
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetSettings:
    """What a stage sees of a dataset; datasets/*.yaml says the same in YAML."""

    samples: int | None = None
    """Declared size, so that planning need not open the data."""
    num_classes: int | None = None
    """Declared number of classes, for the same reason."""
    fraction: float = 1.0
    """Of the training part of the chosen classes: a fraction up to 1, or a count above 1."""
    classes: int | Sequence[int | str] | None = None
    """A count, a list of class names, or null for all."""
    class_rule: str = "first"
    """How a count chooses: first, random."""
    validation_size: float | None = None
    """At most so much of the validation part (a fraction up to 1, or a count above 1); null for all."""
    split: SplitSettings = field(default_factory=SplitSettings)
    subset_seed: int = 0
    """Which samples the subsets take, and which classes the random rule."""
    transform: str = "none"
    """One of orchestrator.data.transforms.TRANSFORMS."""


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
    declared); for others they are what the data are checked against.

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
    arguments |= {
        key: config[key] for key in ("samples", "num_classes") if key in parameters and key in config
    }
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
