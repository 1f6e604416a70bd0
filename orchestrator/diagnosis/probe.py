"""What is looked at in a sampled update: activations as they pass, gradients, and what the update changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from orchestrator.diagnosis.samples import LAST, Layer

# Layers whose units can be off for good, and those whose values can lie at the ends of their range.
RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Threshold)
BOUNDED: Mapping[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-0.97, 0.97),
    nn.Sigmoid: (0.03, 0.97),
    nn.Hardtanh: (-0.99, 0.99),
    nn.Hardsigmoid: (0.01, 0.99),
    nn.Softsign: (-0.97, 0.97),
}
UNITS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
# So many weights are measured, evenly through the model: what they say is alike, and a copy of each is made.
MOST_WEIGHTS = 12
BINS = 40


class Probe:
    """Looks at one model in sampled updates.

    Args:
        model: whose modules and weights are looked at.
        hooked: activations too; not where the model is compiled, which would compile it again.
        detailed: keep histograms of activations and gradients of the last sampled update.

    Attributes:
        layers: what was seen of the activations, by the name of the layer.
    """

    def __init__(self, model: nn.Module, *, hooked: bool, detailed: bool = False) -> None:
        self.layers: dict[str, Layer] = {}
        self._model, self._hooked, self._detailed = model, hooked, detailed
        self._histograms: dict[str, dict[str, Any]] = {}
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [(name, p) for name, p in named if p.dim() > 1] or named
        chosen = matrices[:: -(-len(matrices) // MOST_WEIGHTS)] if matrices else []
        self._weights = dict(chosen)
        self._before: list[Tensor] = []
        kinds: tuple[type[nn.Module], ...] = (*RECTIFIERS, *BOUNDED)
        self._activations = [(name, one) for name, one in model.named_modules() if isinstance(one, kinds)]
        # Rectified by a function of the forward pass, a unit that is off shows by its gradient alone.
        self._units = [
            (name, module.weight)
            for name, module in list(model.named_modules())[:-1]
            if isinstance(module, UNITS) and not self._activations
        ][:MOST_WEIGHTS]
        self._on: dict[str, deque[Tensor]] = {}
        self._ends: dict[str, Tensor] = {}
        self._outputs: dict[str, Tensor] = {}
        self._result: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Look at the activations of the next forward passes, until `detach`."""
        if self._handles or not self._hooked:
            return
        for name, module in self._activations:
            self._handles.append(module.register_forward_hook(self._hook(name)))
        if self._activations:
            self._handles.append(self._model.register_forward_hook(self._finished))

    def detach(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._outputs.clear()
        self._result = None

    def _hook(self, name: str) -> Any:
        def seen(module: nn.Module, args: Any, output: Any) -> None:
            if torch.is_grad_enabled() and isinstance(output, Tensor):
                # One module may be called at several places: each of them is a layer.
                key, number = name, 1
                while key in self._outputs:
                    number += 1
                    key = f"{name}#{number}"
                self._outputs[key] = output.detach()

        return seen

    def _finished(self, module: nn.Module, args: Any, output: Any) -> None:
        self._result = output if isinstance(output, Tensor) else None

    def before_step(self) -> None:
        """Look at the activations that passed and at the gradients, and copy the weights."""
        modules = dict(self._activations)
        given = self._result.data_ptr() if self._result is not None else None
        for key, output in self._outputs.items():
            module = modules[key.partition("#")[0]]
            if output.dim() < 2 or output.data_ptr() == given:
                continue  # the model's own outputs may well lie at an end
            if isinstance(module, RECTIFIERS):
                self._remember(key, output.amax(_but_units(output)) > 0)
            else:
                low, high = BOUNDED[type(module)]
                self._ends[key] = ((output < low) | (output > high)).float().mean()
        if self._detailed:
            self._draw()
        for name, weight in self._units:
            if weight.grad is not None:
                self._remember(name, weight.grad.flatten(1).any(1))
        self.detach()
        self._before = [weight.detach().clone() for weight in self._weights.values()]

    def after_step(self) -> dict[str, float]:
        """Return by weight the norm of what the update changed over the norm of the weight."""
        if not self._before:
            return {}
        now = [weight.detach() for weight in self._weights.values()]
        changed = torch._foreach_norm(torch._foreach_sub(now, self._before))
        measured = torch._foreach_div(changed, torch._foreach_norm(self._before))
        self._before = []
        dead = {
            name: 1 - torch.stack(list(masks)).any(0).float().mean()
            for name, masks in self._on.items()
            if len(masks) == LAST
        }
        # All that was measured is read at once: a GPU is waited for only here.
        numbers = torch.stack([value.float() for value in (*measured, *dead.values(), *self._ends.values())])
        values = iter(numbers.tolist())
        ratios = {name: next(values) for name in self._weights}
        for name in dead:
            self.layers.setdefault(name, Layer()).dead = next(values)
        # No gradient comes through a layer that is wholly off: it says nothing of those before.
        units = [name for name, _ in self._units]
        last = max(
            (units.index(name) for name in dead if name in units and self.layers[name].dead == 1), default=0
        )
        for name in units[:last]:
            self.layers.pop(name, None)
        for name in self._ends:
            self.layers.setdefault(name, Layer()).saturated.append(next(values))
        self._ends.clear()
        return ratios

    def described(self) -> dict[str, Any]:
        """Return what was seen, and the histograms by layer or weight where they were kept."""
        seen = {
            name: {"dead": one.dead, "saturated": one.saturated[-1:]} for name, one in self.layers.items()
        }
        return {"seen": seen, **self._histograms}

    def _draw(self) -> None:
        gradients = {name: one.grad for name, one in self._weights.items() if one.grad is not None}
        for kind, tensors in (("activations", self._outputs), ("gradients", gradients)):
            self._histograms[kind] = {name: histogram(tensor) for name, tensor in tensors.items()}

    def _remember(self, name: str, on: Tensor) -> None:
        masks = self._on.setdefault(name, deque(maxlen=LAST))
        # The last batch of an unrolled or a differently sized input has other units.
        if masks and masks[-1].shape != on.shape:
            masks.clear()
        masks.append(on)


def histogram(tensor: Tensor) -> dict[str, Any]:
    """Return the counts of a tensor's finite values in `BINS` equal bins from low to high."""
    values = tensor.detach().float().flatten()
    values = values[torch.isfinite(values)]
    if not len(values):
        return {"low": 0.0, "high": 0.0, "counts": []}
    low, high = values.min().item(), values.max().item()
    counts = torch.histc(values.cpu(), BINS, low, high)
    return {"low": low, "high": high, "counts": [int(count) for count in counts]}


def _but_units(output: Tensor) -> tuple[int, ...]:
    """Return all dimensions but that of the units: the second, or of a sequence of vectors the last."""
    units = output.dim() - 1 if output.dim() == 3 else 1
    return tuple(number for number in range(output.dim()) if number != units)
