"""D1, D3 and D2: the first loss, a small batch that is fitted, and what it is worth without its inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from orchestrator.checks.result import CheckResult, failed, passed, skipped
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject
from orchestrator.checks.yardstick import BINARY, CLASSES, PROBABILITIES, VALUES, asked

# The first cross-entropy may be so much above that of outputs alike for all classes. Sound networks on
# standardized inputs have up to three times as much (a wide cnn on digits: 6.9 of 2.3).
ABOVE, MARGIN = 3.0, 3.0
# From here on a smaller last layer would spare the first epoch some work.
WIDE = 2.0
# What the last bias alone may cost: with zero, or the log odds, it costs nothing.
BIAS = 1.0
ABOVE_VALUES = 10.0
# A first loss below this share of the ignorant one knows something already.
KNOWS = 0.5
# What inputs are worth at least, as a share of the ignorant loss, in a model that was fitted.
WORTH = 0.02


def first_loss(subject: Subject) -> CheckResult:
    """D1: the first loss is what saying nothing costs, or better (Karpathy 2019, "verify loss @ init").

    Outputs for classes are judged by their cross-entropy, whatever the job's own loss is: weights, margins
    and focus change what an equally good beginning looks like.
    """
    scale, targets = subject.scale, subject.first[1]
    if not scale.known:
        return skipped("D1", "the loss has no scale that can be worked out")
    first = asked(subject.setup.loss, subject.outputs, targets)
    details = {"first": first, "expected": scale.ignorant}
    if scale.kind == VALUES:
        saw = f"{first:.4g}; the targets' mean alone has {scale.ignorant:.4g}"
        if first > ABOVE_VALUES * scale.ignorant:
            return failed(
                "D1",
                f"the first loss is {saw}",
                "targets far from zero or of another order of magnitude than the outputs, and a last bias "
                "of zero",
                "Standardize the targets, or set the last bias to their mean",
                details,
            )
        return passed("D1", saw, details)
    saw = f"{first:.4g}; outputs alike for all classes have {scale.ignorant:.4g}"
    if scale.kind == BINARY:
        entropy, alike = _entropy(subject.outputs, targets), math.log(2)
    else:
        logs = subject.outputs.clamp_min(1e-12).log() if scale.kind == PROBABILITIES else subject.outputs
        entropy, alike = _entropy(logs, targets), math.log(logs.shape[1])
        details["odds"] = _odds(targets)
        saw += f" (the class odds: {details['odds']:.4g} of cross-entropy)"
    details["cross_entropy"] = entropy
    if (bias := _last_bias(subject.setup.model, subject.outputs)) is not None:
        lean = _entropy(bias.expand_as(subject.outputs), targets)
        if lean > alike + BIAS:
            highest = int(bias.flatten().argmax())
            return failed(
                "D1",
                f"the first loss is {saw}; the last bias alone has a cross-entropy of {lean:.4g}, where "
                f"{alike:.4g} "
                "is that of none",
                f"a wrong bias in the last layer: all samples lean to output {highest}",
                "Begin with a bias of zero, or the log of the classes' shares in their order",
                details,
            )
    if entropy > ABOVE * alike + MARGIN:
        spread = float(subject.outputs.float().std())
        return failed(
            "D1",
            f"the first loss is {saw}, the cross-entropy {entropy:.4g}",
            f"too large initial values or inputs (outputs have a standard deviation of {spread:.2g}), or a "
            "wrong bias",
            "Scale the inputs to about one, and initialize the weights by their activation (He, Xavier)",
            details,
        )
    if entropy > WIDE * alike:
        saw += "; a last layer that begins smaller would save the first epoch some work"
    elif entropy < KNOWS * min(alike, details.get("odds", alike)):
        saw += ": less than knowing nothing, so the model was trained before"
    return passed("D1", saw, details)


def small_batch_is_fitted(subject: Subject) -> CheckResult:
    """D3: a few samples can be fitted to nearly no loss."""
    fitted = subject.fitted
    details = {"first": fitted.first, "last": fitted.last, "updates": fitted.updates, "rate": fitted.rate}
    scale, count = fitted.scale, len(fitted.targets)
    if count < 2 or (scale.known and scale.ignorant - scale.perfect < 1e-6):
        return skipped("D3", "fewer than two samples that differ")
    least = f" (the least there is: {scale.perfect:.3g})" if scale.known else ""
    right = f", {fitted.right:.0%} of them right" if scale.kind in CLASSES else ""
    saw = (
        f"{count} samples: loss {fitted.first:.3g} → {fitted.last:.3g}{least}{right}, "
        f"{fitted.updates} updates"
    )
    if fitted.enough:
        return passed("D3", saw, details)
    if not scale.known:
        return skipped("D3", f"{saw}; the loss has no scale that can be worked out", details)
    if math.isnan(fitted.last):
        return failed(
            "D3",
            saw,
            "values that are not finite",
            "Look at D6, and at logs and divisions in model and loss",
            details,
        )
    return failed(
        "D3",
        f"{saw} with Adam at its best of several rates",
        "outputs that can't take every value (a softmax or ReLU at the end), frozen layers, a loss that "
        "does not "
        "follow the outputs, or too small a model",
        "Look at the last layer and the loss; train these few samples alone until they fit",
        details,
    )


def uses_input(subject: Subject) -> CheckResult:
    """D2: a fitted model does worse with zeroed inputs, and with those of other samples."""
    fitted, loss = subject.fitted, subject.setup.loss
    if len(fitted.targets) < 2:
        return skipped("D2", "fewer than two samples that differ")
    inputs = fitted.inputs
    real = _without(subject, inputs)
    other = {"exchanged": _without(subject, inputs.roll(1, 0))}
    if inputs.is_floating_point():
        other["zeroed"] = _without(subject, torch.zeros_like(inputs))
    losses = {name: asked(loss, outputs, fitted.targets) for name, outputs in {"own": real, **other}.items()}
    saw = ", ".join(f"{name} inputs {value:.3g}" for name, value in losses.items())
    span = fitted.scale.ignorant - fitted.scale.perfect if fitted.scale.known else abs(losses["own"])
    gap = max(losses[name] for name in other) - losses["own"]
    if gap > WORTH * span:
        return passed("D2", f"loss after fitting: {saw}", losses)
    spread = (real - real.mean(0, keepdim=True)).abs().max() / real.abs().max().clamp_min(1e-12)
    if not fitted.enough and float(spread) > 1e-4:
        return skipped(
            "D2", f"outputs differ from sample to sample, and no more can be said before D3 passes: {saw}"
        )
    return failed(
        "D2",
        f"loss after fitting: {saw}",
        "inputs that are zeroed, constant or overwritten on their way, or a model that drops them",
        "Look at D6, and at what forward does with its argument",
        losses,
    )


def _without(subject: Subject, inputs: Tensor) -> Tensor:
    with seeded(inputs.device), torch.no_grad():
        return subject.fitted.model(inputs)  # type: ignore[no-any-return]


def _odds(targets: Tensor) -> float:
    """Return the loss of the classes' own frequencies: their entropy."""
    share = torch.bincount(targets.reshape(-1).long()).double()
    share = share[share > 0] / share.sum()
    return float(-(share * share.log()).sum())


def _entropy(logits: Tensor, targets: Tensor) -> float:
    """Return the plain cross-entropy of logits."""
    with torch.no_grad():
        if targets.is_floating_point():
            return float(
                binary_cross_entropy_with_logits(logits.float(), targets.reshape(logits.shape).float())
            )
        return float(cross_entropy(logits.float(), targets.long()))


def _last_bias(model: nn.Module, outputs: Tensor) -> Tensor | None:
    """Return the bias of the layer that gives the outputs, as (1, C, ...); None where it can't be told."""
    if outputs.ndim < 2:
        return None
    layers = [each for each in model.modules() if isinstance(each, nn.Linear | nn.modules.conv._ConvNd)]
    bias = layers[-1].bias if layers else None
    if bias is None or bias.numel() != outputs.shape[1]:
        return None
    return bias.detach().reshape(1, -1, *[1] * (outputs.ndim - 2))
