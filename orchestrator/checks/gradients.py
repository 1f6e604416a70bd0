"""D8: analytic and numeric gradients of a user's own layers agree."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import GradcheckError, gradcheck
from torch.func import functional_call

from orchestrator.checks.result import CheckResult, failed, passed, skipped
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject

SAMPLES, MOST = 2, 8
# Where an activation has a kink, numeric gradients differ; another place has none.
TRIES = 3
NOISE = 0.05
# Of a gradient along one random direction.
RELATIVE, ABSOLUTE = 1e-2, 1e-4
_SOUND = ("torch.", "orchestrator.training.")


def own_gradients(subject: Subject) -> CheckResult:
    """D8: torch's gradcheck, in double precision, of the innermost modules that are neither torch's nor ours.

    Each gets the inputs that it has in the model, with a little noise, and is checked for these and its
    weights.
    """
    model = subject.model().eval()
    own = _own_layers(model)
    if not own:
        return skipped("D8", "the model is made of torch's layers and the built-in ones")
    inputs = subject.setup.inputs[:SAMPLES]
    with seeded(inputs.device), torch.backends.cudnn.flags(enabled=False):
        given = _arguments(model, own, inputs)
        results = {name: _agrees(own[name], arguments) for name, arguments in given.items()}
    wrong = {name: saw for name, saw in results.items() if isinstance(saw, str)}
    if wrong:
        name, saw = next(iter(wrong.items()))
        layer = (
            f"'{name}' ({type(own[name]).__name__})" if name else f"the model ({type(own[name]).__name__})"
        )
        return failed(
            "D8",
            f"{layer}: {saw}",
            "a backward that is not the derivative of its forward, or values that leave the graph (detach, "
            ".data, "
            "NumPy)",
            "Compare it with torch.autograd.gradcheck; if it is on purpose (straight-through): skip D8",
        )
    checked = [name for name, result in results.items() if result is True]
    if not checked:
        return skipped("D8", "no own layer runs alone in double precision on this input")
    names = ", ".join(sorted({type(own[name]).__name__ for name in checked}))
    return passed("D8", f"numeric gradients agree in {names}")


def _own_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Return the innermost modules of other origin, one of each class."""
    ours = {name: each for name, each in model.named_modules() if not _known(each)}
    found: dict[str, nn.Module] = {}
    for name, module in ours.items():
        holds_own = any(not _known(each) for each in module.modules() if each is not module)
        if not holds_own and type(module) not in {type(each) for each in found.values()}:
            found[name] = module
    return dict(list(found.items())[:MOST])


def _known(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_SOUND)


def _arguments(model: nn.Module, own: dict[str, nn.Module], inputs: Tensor) -> dict[str, tuple[Any, ...]]:
    """Return what each of the layers gets in a pass through the model."""
    given: dict[str, tuple[Any, ...]] = {}

    def record(name: str) -> Any:
        return lambda module, arguments: given.setdefault(name, arguments) and None

    handles = [each.register_forward_pre_hook(record(name)) for name, each in own.items()]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return given


def _agrees(layer: nn.Module, arguments: tuple[Any, ...]) -> bool | str | None:
    """Return True, what differs, or None where it can't be said."""
    try:
        layer = copy.deepcopy(layer).cpu().double().eval()
        saw: bool | str | None = None
        for attempt in range(TRIES):
            saw = _check(layer, _noisy(arguments, attempt))
            if not isinstance(saw, str):
                return saw
        return saw
    except Exception:
        # Made for one precision, or with arguments that can't be copied: nothing to say.
        return None


def _noisy(arguments: tuple[Any, ...], seed: int) -> tuple[Any, ...]:
    """Return arguments as doubles, moved a little: equal values, as of a background, make kinks."""
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for each in arguments:
        if isinstance(each, Tensor):
            each = each.detach().cpu()
            if each.is_floating_point():
                each = each.double()
                size = float(each.std()) if each.numel() > 1 else 1.0
                each = each + NOISE * max(size, 1e-3) * torch.randn(each.shape, generator=generator).double()
        moved.append(each)
    return tuple(moved)


def _check(layer: nn.Module, arguments: tuple[Any, ...]) -> bool | str | None:
    names = [name for name, each in layer.named_parameters()]
    weights = [each.detach().clone().requires_grad_() for each in layer.parameters()]
    places = [i for i, each in enumerate(arguments) if isinstance(each, Tensor) and each.is_floating_point()]
    inputs = [arguments[i].clone().requires_grad_() for i in places]

    def run(*values: Tensor) -> Tensor:
        full = list(arguments)
        for place, value in zip(places, values, strict=False):
            full[place] = value
        named = dict(zip(names, values[len(places) :], strict=True))
        output = functional_call(layer, named, tuple(full))
        return output[0] if isinstance(output, tuple) else output  # type: ignore[no-any-return]

    values = (*inputs, *weights)
    with torch.no_grad():
        if not values or not torch.equal(run(*values), run(*values)):
            return None
    if not run(*values).requires_grad:
        return "no gradient comes back from its outputs"
    for place in range(len(values)):
        if (saw := _along(run, values, place)) is not None:
            what = "its input" if place < len(inputs) else names[place - len(inputs)]
            return f"with respect to {what} the gradient is wrong: {saw}"
    return True


def _along(run: Callable[..., Tensor], values: tuple[Tensor, ...], place: int) -> str | None:
    """Compare gradients along a random direction: one number, however large the layer is."""
    direction = torch.randn(values[place].shape).double()
    with torch.no_grad():
        weights = torch.randn(run(*values).shape).double()

    def move(step: Tensor) -> Tensor:
        moved = [each.detach() for each in values]
        moved[place] = moved[place] + step * direction
        return (run(*moved) * weights).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            gradcheck(
                move, torch.zeros((), dtype=torch.float64, requires_grad=True), atol=ABSOLUTE, rtol=RELATIVE
            )
        except GradcheckError as error:
            found = re.findall(r"(numerical|analytical):\s*tensor\(\[*([-+.e\d]+)", str(error))
            return (
                ", ".join(f"{name} {float(value):.4g}" for name, value in found)
                or str(error).split(chr(10))[0]
            )
    return None
