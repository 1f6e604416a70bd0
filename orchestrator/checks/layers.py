"""D9: every layer gets a gradient, and moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import Adam

from orchestrator.checks.fitting import quiet
from orchestrator.checks.repeat import an_optimizer
from orchestrator.checks.result import CheckResult, failed, passed
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject

UPDATES, BATCH = 8, 32
SHOWN = 4
# Modules whose weights are there to be learned; a user's own parameters may be fixed for good reason.
_LAYERS = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase, nn.Embedding)


def all_learn(subject: Subject) -> CheckResult:
    """D9: over a few updates of the job's own optimizer each layer gets a gradient, and changes.

    A layer counts as a whole: a bias before batch normalization never gets a gradient, and should not.
    """
    model = quiet(subject.model())
    still = [] if subject.setup.frozen else _wants_none(model)
    if still:
        return failed(
            "D9",
            f"{_names(still)} {'has' if len(still) == 1 else 'have'} requires_grad=False",
            "layers that are frozen",
            "Unfreeze them; if it is on purpose, as in fine-tuning: return frozen=True from setup, or skip "
            "D9",
            {"frozen": still},
        )
    trained = {name: _own(module) for name, module in model.named_modules() if _own(module)}
    if not trained:
        return failed("D9", "no weight wants a gradient", "all layers are frozen", "Unfreeze some")
    reached, moved = _trained(subject, model, trained)
    without = [name for name in trained if name not in reached]
    if without:
        return failed(
            "D9",
            f"no gradient reaches {_names(without)} in {UPDATES} updates",
            "a detach(), torch.no_grad() or .data between it and the loss, a layer that forward never "
            "calls, or "
            "activations that are zero for all samples",
            "Follow the values of that layer to the loss",
            {"frozen": without},
        )
    unmoved = [name for name in trained if name not in moved]
    if unmoved and moved:
        return failed(
            "D9",
            f"{_names(unmoved)} got gradients and never changed",
            "an optimizer that was not given all of the model's parameters",
            "Build it from model.parameters()",
            {"frozen": unmoved},
        )
    if unmoved:
        return failed(
            "D9",
            f"nothing changed in {UPDATES} updates",
            "an optimizer with a learning rate of zero, or without the model's parameters",
            "Look at how the optimizer is built",
            {"frozen": unmoved},
        )
    kept = " (others are frozen on purpose)" if subject.setup.frozen else ""
    return passed("D9", f"all {len(trained)} layers with weights learn{kept}")


def _wants_none(model: nn.Module) -> list[str]:
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _LAYERS)
        and any(True for _ in module.parameters(recurse=False))
        and not any(each.requires_grad for each in module.parameters(recurse=False))
    ]


def _own(module: nn.Module) -> list[nn.Parameter]:
    return [each for each in module.parameters(recurse=False) if each.requires_grad]


def _trained(
    subject: Subject, model: nn.Module, layers: dict[str, list[nn.Parameter]]
) -> tuple[set[str], set[str]]:
    """Train a little; return which layers got a gradient other than zero, and which changed."""
    setup = subject.setup
    before = {name: [each.detach().clone() for each in own] for name, own in layers.items()}
    reached: set[str] = set()
    with seeded(setup.inputs.device):
        optimizer = an_optimizer(setup, model)
        for update in range(UPDATES):
            rows = torch.arange(update * BATCH, (update + 1) * BATCH) % len(setup.inputs)
            inputs, targets = (
                setup.inputs[rows[: len(setup.inputs)]],
                setup.targets[rows[: len(setup.inputs)]],
            )
            model.zero_grad()
            setup.loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
            reached |= {name for name, own in layers.items() if any(_nonzero(each.grad) for each in own)}
            try:
                optimizer.step()
            except TypeError:
                # Some, as LBFGS, want to compute the loss themselves; that says nothing about layers.
                optimizer = Adam([each for own in layers.values() for each in own], lr=1e-3)
                optimizer.step()
    moved = {
        name
        for name, own in layers.items()
        if any(not torch.equal(one, each) for one, each in zip(before[name], own, strict=True))
    }
    return reached, moved


def _nonzero(gradient: Tensor | None) -> bool:
    if gradient is None:
        return False
    return bool((gradient.coalesce().values() if gradient.is_sparse else gradient).ne(0).any())


def _names(layers: list[str]) -> str:
    shown = ", ".join(f"'{name or 'the model'}'" for name in layers[:SHOWN])
    return f"{shown} and {len(layers) - SHOWN} more" if len(layers) > SHOWN else shown
