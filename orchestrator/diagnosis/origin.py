"""Where NaN came from: the input data, an operation, a gradient, or the initial values (practice, E4).

When a loss is not finite, the forward pass of that batch is replayed with the weights that made it, and all
its operations are looked at: the first that turns finite numbers into others is the origin. Where none does,
it is the loss, of which autograd's graph tells the operations. Where the weights themselves are not finite,
an earlier update broke them; which ones it broke says where the gradient broke.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from orchestrator.diagnosis.finding import (
    NAN_GRADIENT,
    NAN_INITIAL,
    NAN_INPUT,
    NAN_OPERATION,
    Finding,
    finding,
)

# They are not defined, or have no gradient, at some finite numbers; others only overflow.
PARTIAL = ("log", "div", "sqrt", "pow", "reciprocal", "norm", "acos", "asin", "atanh", "std", "var", "erfinv")
# Nodes of autograd's graph that are looked at behind a loss.
_MOST_NODES = 200

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


def trace(
    model: nn.Module, call: Call | None, loss: Tensor | None, update: int, grown: float | None
) -> Finding:
    """Say where a loss that is not finite came from, as a finding.

    The model is left as it was: buffers, mode and the random state are put back.

    Args:
        model: with the weights that gave the loss.
        call: what it was called with, positions and keywords; None where that is not known.
        loss: the loss, with its graph as far as there is one.
        update: which one it was, from 1.
        grown: by how much the loss had grown before, as a multiple of the first; None for the first update.
    """
    inputs = dict(_tensors(call)) if call is not None else {}
    broken = {name: tensor for name, tensor in inputs.items() if not finite(tensor)}
    if broken:
        name, tensor = next(iter(broken.items()))
        count = int((~torch.isfinite(tensor)).sum())
        bad = (~torch.isfinite(tensor)).reshape(len(tensor) if tensor.dim() else 1, -1).any(1)
        rows = [int(row) for row in bad.nonzero()] if tensor.dim() else []
        where = f", in samples {_few(rows)} of the batch" if len(rows) else ""
        return finding(NAN_INPUT, f"{count} values of the model's {name} are not finite{where}", update)
    unsound = [name for name, weights in model.named_parameters() if not finite(weights)]
    if unsound:
        return _broken_weights(model, unsound, update, grown)
    place = _replay(model, call) if call is not None else None
    if place is None and loss is not None and (operation := _behind(loss)):
        place = "the loss", operation
    if place is None:
        seen = "the batch's forward pass, done again, is finite" if call else "the batch is not known"
        return finding(NAN_OPERATION, f"the loss is not finite at update {update}: {seen}", update)
    module, operation = place
    said = f"{operation} in {module} first gave what is not finite, at update {update}"
    if any(word in operation.lower() for word in PARTIAL):
        return finding(NAN_OPERATION, said, update)
    if grown is None:
        return finding(NAN_INITIAL, f"{said}; the largest weight is {_largest(model):.3g}", update)
    return finding(
        NAN_GRADIENT, f"{said}; the largest weight is {_largest(model):.3g}{_grown(grown)}", update
    )


def finite(tensor: Tensor) -> bool:
    """Say whether all of a tensor's numbers are finite; whole numbers always are."""
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())


def _tensors(call: Call) -> Iterator[tuple[str, Tensor]]:
    values, named = call
    for number, value in enumerate(values):
        if isinstance(value, Tensor):
            yield "input" if number == 0 else f"input {number + 1}", value
    for name, value in named.items():
        if isinstance(value, Tensor):
            yield f"input '{name}'", value


def _broken_weights(model: nn.Module, bad: Sequence[str], update: int, grown: float | None) -> Finding:
    """Say what weights that are not finite tell of the gradient that broke them.

    What breaks in the backward pass spreads towards the input: of the weights in the model's order, the last
    broken one lies right before the origin.
    """
    if grown is None:
        return finding(
            NAN_INITIAL, f"{_few(bad)} held values that are not finite before the first update", update
        )
    every = [name for name, _ in model.named_parameters()]
    whole = len(bad) == len(every)
    after = (
        "" if whole else f", while {every[every.index(bad[-1]) + 1 :][:1] or every[:1]} and others are sound"
    )
    said = (
        f"the gradient was not finite at update {update - 1}, first at {bad[-1]}: it broke {_few(bad)}{after}"
    )
    if grown > 3:
        return finding(NAN_GRADIENT, f"{said}{_grown(grown)}", update - 1)
    said += ", though the loss was finite and had not grown: an operation after it has no gradient there, as "
    return finding(NAN_OPERATION, said + "sqrt, norm and log at 0", update - 1)


def _grown(grown: float) -> str:
    return f"; the loss had grown to {grown:.3g} times the first" if grown > 3 else ""


class _Watcher(TorchFunctionMode):
    """Remembers the first operation that gave what is not finite of finite numbers, and in which module."""

    def __init__(self) -> None:
        super().__init__()
        self.found: tuple[str, str] | None = None
        self.inside: list[str] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if self.found is None and isinstance(result, Tensor):
            # Looking at a tensor is an operation too.
            with torch._C.DisableTorchFunction():
                given = [value for value in (*args, *(kwargs or {}).values()) if isinstance(value, Tensor)]
                if not finite(result) and all(finite(value) for value in given):
                    name = getattr(func, "__name__", str(func)).strip("_")
                    self.found = (self.inside[-1] if self.inside else "the model"), name
        return result


def _replay(model: nn.Module, call: Call) -> tuple[str, str] | None:
    """Return the module and the operation that first gave what is not finite; None where none did."""
    watcher = _Watcher()
    handles: list[RemovableHandle] = []
    for name, module in model.named_modules():
        label = f"{name or 'the model'} ({type(module).__name__})"

        def enter(module: nn.Module, args: Any, label: str = label) -> None:
            watcher.inside.append(label)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            # What has no Python operation in it, such as an LSTM, is seen by what it gives.
            whole = result[0] if isinstance(result, tuple) and result else result
            if watcher.found is None and isinstance(whole, Tensor):
                with torch._C.DisableTorchFunction():
                    if not finite(whole):
                        watcher.found = watcher.inside[-1], type(module).__name__
            watcher.inside.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with unchanged(model), torch.no_grad(), watcher:
            model(*call[0], **call[1])
    finally:
        for handle in handles:
            handle.remove()
    return watcher.found


@contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Put a model's buffers and the random state back afterwards."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    with _same_randomness(model):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in kept:
                    buffer.copy_(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluate a model without gradients, and put its modes and the random state back afterwards."""
    # Setting a module's attribute takes long, so only where it matters.
    trained = [module for module in model.modules() if module.training]
    with _same_randomness(model), torch.inference_mode():
        try:
            for module in trained:
                module.__dict__["training"] = False
            yield
        finally:
            for module in trained:
                module.__dict__["training"] = True


@contextmanager
def _same_randomness(model: nn.Module) -> Iterator[None]:
    first = next(model.parameters(), None)
    device = first.device if first is not None and first.is_cuda else None
    before, on_device = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device else None
    try:
        yield
    finally:
        torch.set_rng_state(before)
        if on_device is not None and device is not None:
            torch.cuda.set_rng_state(on_device, device)


def precision(autocast: tuple[str, torch.dtype] | None) -> AbstractContextManager[object]:
    """Compute in the mixed precision of a device's type; None: as it is."""
    return nullcontext() if autocast is None else torch.autocast(autocast[0], autocast[1])


def _behind(loss: Tensor) -> str:
    """Return the operations between the model's last weights and the loss; a bad one alone, if there is."""
    names, queue, seen = [], [loss.grad_fn], set[Any]()
    while queue and len(seen) < _MOST_NODES:
        node = queue.pop(0)
        if node is None or node in seen:
            continue
        seen.add(node)
        name = type(node).__name__.removesuffix("0").removesuffix("Backward")
        if name in ("AccumulateGrad", "Addmm", "Mm", "Linear", "Convolution"):
            continue
        if (told := _undefined(name, node)) is not None:
            return told
        names.append(name)
        queue += [parent for parent, _ in node.next_functions]
    partial = [
        name for name in names if any(word in name.lower() for word in PARTIAL) and name != "LogSoftmax"
    ]
    return ", ".join(dict.fromkeys(partial or names[:3]))


def _undefined(name: str, node: Any) -> str | None:
    """Return in words that an operation was given numbers for which it is not defined."""
    given = getattr(node, "_saved_other" if name == "Div" else "_saved_self", None)
    if not isinstance(given, Tensor):
        return None
    if name.startswith("Log") and name not in ("LogSoftmax", "Logsumexp") and bool((given <= 0).any()):
        return f"{name} of {given.min().item():.3g}"
    if name == "Div" and bool((given == 0).any()):
        return "Div by 0"
    return None


def _largest(model: nn.Module) -> float:
    return max(
        (weights.detach().abs().max().item() for weights in model.parameters() if weights.numel()),
        default=0.0,
    )


def _few(names: Sequence[object]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(str(name) for name in names[:3]) + more
