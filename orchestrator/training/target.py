"""A network of the user's own, by dotted path, checked before anything is trained."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from orchestrator.data.settings import locate
from orchestrator.errors import UserError, nearest
from orchestrator.training.settings import ModelSettings

_KEY = "model.target"


def build_target(
    settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> nn.Module:
    """Call the user's function or class and check what it gives by one pass of two samples.

    Args:
        settings: `target` and `arguments`; the latter win over shape, outputs and vocabulary.
        shape: of one sample.
        outputs: classes, or 1.
        vocabulary: number of tokens, None where the samples are numbers.

    Raises:
        UserError: there is no such function, it does not take the arguments, it fails, what it returns is no
            module, or that does not give (2, outputs) floats for (2, *shape).
    """
    function = _located(settings)
    arguments = _arguments(function, settings, {"shape": shape, "outputs": outputs, "vocabulary": vocabulary})
    try:
        model = function(**arguments)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{settings.target}: {_said(error)}", key=_KEY) from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{settings.target} returned {type(model).__name__}, not a torch module", key=_KEY)
    _check_output(model, settings, shape, outputs, vocabulary)
    return model


def _located(settings: ModelSettings) -> Callable[..., Any]:
    try:
        return locate(settings.target)
    except UserError as error:
        raise UserError(error.problem, key=_KEY, hint=error.hint) from error


def _arguments(
    function: Callable[..., Any], settings: ModelSettings, known: dict[str, Any]
) -> dict[str, Any]:
    """Return the user's arguments, and of what is known all that the function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:
        return dict(settings.arguments)
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    for key in settings.arguments:
        if key not in parameters and not takes_any:
            hint = nearest(key, parameters)
            raise UserError(f"{settings.target} takes no '{key}'", key="model.arguments", hint=hint)
    fitting = {key: value for key, value in known.items() if takes_any or key in parameters}
    arguments = fitting | dict(settings.arguments)
    for name, each in parameters.items():
        needed = each.default is each.empty and each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
        if needed and name not in arguments:
            raise UserError(
                f"{settings.target} wants '{name}'",
                key="model.arguments",
                hint=f"Say model.arguments.{name}=...",
            )
    return arguments


def _check_output(
    model: nn.Module, settings: ModelSettings, shape: tuple[int, ...], outputs: int, vocabulary: int | None
) -> None:
    """Pass two samples through, without a trace in the weights, statistics and random numbers."""
    dtype = torch.float32 if vocabulary is None else torch.int64
    sample = torch.ones((2, *shape), dtype=dtype)
    training = model.training
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            found = model.eval()(sample)
    except Exception as error:
        raise UserError(
            f"{settings.target} fails on two samples of shape {shape}: {_said(error)}", key=_KEY
        ) from error
    model.train(training)
    got = f"a {type(found).__name__}"
    if isinstance(found, torch.Tensor):
        if found.shape == (2, outputs) and found.is_floating_point():
            return
        got = f"{tuple(found.shape)} of {str(found.dtype).removeprefix('torch.')}"
    raise UserError(
        f"{settings.target} gives {got} for two samples, not (2, {outputs}) of float32",
        key=_KEY,
        hint="The last size is the number of classes, or 1 for values",
    )


def _said(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
