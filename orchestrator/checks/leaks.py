"""D4: what one sample's outputs depend on is that sample alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from orchestrator.checks.fitting import quiet
from orchestrator.checks.result import CheckResult, failed, passed, skipped
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject

SAMPLES = 6
# Differences below this share of the largest value are rounding.
ROUNDING = 1e-4
NEXT = "Flatten from the second dimension on, and normalize over the dimensions of one sample"


def no_leak(subject: Subject) -> CheckResult:
    """D4: a sample's gradient, and a change of it, reach no other (Karpathy 2019, "backprop to chart").

    In training mode batch normalization mixes samples by design: its layers are held in evaluation mode.
    """
    inputs = subject.setup.inputs[:SAMPLES]
    if len(inputs) < 3:
        return skipped("D4", "fewer than three samples")
    if inputs.is_floating_point():
        inputs = torch.nan_to_num(inputs)
    middle = len(inputs) // 2
    with seeded(inputs.device), torch.backends.cudnn.flags(enabled=False):
        if others := _reached(subject.model().eval(), inputs, middle):
            return _leak(subject, inputs, middle, others, "")
        model = _training(subject)
        before = {name: each.clone() for name, each in model.named_buffers()}
        others = _reached(model, inputs, middle)
        keeps = any(not torch.equal(before[name], each) for name, each in model.named_buffers())
    if others and keeps:
        return passed(
            "D4", "samples are mixed in training mode alone, by a layer that keeps running statistics"
        )
    if others:
        return _leak(subject, inputs, middle, others, " in training mode")
    return passed("D4", f"of {len(inputs)} samples a change of one reaches its own outputs alone")


def _training(subject: Subject) -> nn.Module:
    model = quiet(subject.model())
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def _reached(model: nn.Module, inputs: Tensor, middle: int) -> list[int]:
    """Return the samples that another one reaches: its changes reach them, or their gradients reach it."""
    return sorted({*_changed(model, inputs, middle), *_with_gradient(model, inputs, middle)})


def _changed(model: nn.Module, inputs: Tensor, middle: int) -> list[int]:
    with torch.no_grad():
        torch.manual_seed(0)
        before = model(inputs)
        torch.manual_seed(0)
        after = model(_exchanged(inputs, middle))
    return _rows(before, after, middle)


def _exchanged(inputs: Tensor, middle: int) -> Tensor:
    """Return the samples with one in the middle replaced by one of the others, made larger."""
    inputs = inputs.clone()
    inputs[middle] = inputs[0] * 2 + 1 if inputs.is_floating_point() else inputs[0]
    return inputs


def _rows(before: Tensor, after: Tensor, middle: int) -> list[int]:
    """Return the rows, but for the middle one, in which two outputs differ by more than rounding."""
    one, other = (each.float().reshape(len(each), -1) for each in (before, after))
    apart = (one - other).abs().amax(1)
    largest = float(one.abs().max().clamp_min(1e-12))
    return [row for row, gap in enumerate(apart.tolist()) if row != middle and gap > ROUNDING * largest]


def _with_gradient(model: nn.Module, inputs: Tensor, middle: int) -> list[int]:
    """Return the other samples that the gradient of one sample's outputs reaches."""
    if not inputs.is_floating_point():
        return []
    wanted = inputs.clone().requires_grad_()
    torch.manual_seed(0)
    outputs = model(wanted).float().reshape(len(inputs), -1)
    if not outputs.requires_grad:
        return []
    # A sum would not do: probabilities sum to 1, whatever the input is.
    weights = torch.linspace(-1.0, 2.0, outputs.shape[1], device=outputs.device)
    found = torch.autograd.grad((outputs[middle] * weights).sum(), wanted, allow_unused=True)
    gradient: Tensor | None = found[0]
    if gradient is None:
        return []
    size = gradient.float().reshape(len(inputs), -1).abs().amax(1)
    largest = float(size.max())
    return [row for row, each in enumerate(size.tolist()) if row != middle and each > ROUNDING * largest]


def _leak(subject: Subject, inputs: Tensor, middle: int, others: list[int], when: str) -> CheckResult:
    with seeded(inputs.device), torch.backends.cudnn.flags(enabled=False):
        where = _first_module(_training(subject) if when else subject.model().eval(), inputs, middle)
    seen = f"; the first module with a leak in its outputs is {where}" if where else ""
    return failed(
        "D4",
        f"sample {middle} reaches {len(others)} of {len(inputs) - 1} others{when}{seen}",
        "a view or transpose that mixes the batch with another dimension, a norm or mean over the batch, "
        "or a "
        "recurrent layer without batch_first",
        NEXT,
    )


def _first_module(model: nn.Module, inputs: Tensor, middle: int) -> str:
    """Return the first innermost module whose outputs for other samples change with one sample."""
    with _recorded(model) as runs, torch.no_grad():
        for given in (inputs, _exchanged(inputs, middle)):
            torch.manual_seed(0)
            runs.append({})
            model(given)
    for name, one in runs[0].items():
        other = runs[1].get(name)
        if other is None or one.shape != other.shape or len(one) % len(inputs):
            continue
        # Where batch and another dimension became one, its rows still lie together.
        if _rows(one.reshape(len(inputs), -1), other.reshape(len(inputs), -1), middle):
            return f"{name} ({type(model.get_submodule(name)).__name__})"
    return ""


@contextmanager
def _recorded(model: nn.Module) -> Iterator[list[dict[str, Tensor]]]:
    """Write each innermost module's outputs into the last of a list of dicts, by its name."""
    runs: list[dict[str, Tensor]] = []

    def recorder(name: str) -> object:
        def record(module: nn.Module, arguments: object, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim and runs:
                runs[-1].setdefault(name, output.detach().clone())

        return record

    innermost = [(name, each) for name, each in model.named_modules() if name and not list(each.children())]
    handles = [each.register_forward_hook(recorder(name)) for name, each in innermost]
    try:
        yield runs
    finally:
        for handle in handles:
            handle.remove()
