"""D0 and D11: do a model's outputs, the targets and the loss fit together?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from orchestrator.checks.result import CheckResult, failed, passed, skipped
from orchestrator.checks.seeding import seeded
from orchestrator.checks.subject import Subject
from orchestrator.checks.yardstick import BINARY, LOGITS, VALUES, asked, sum_to_one

# The share of the ignorant loss that a second softmax leaves at least (two classes: 0.45, ten: 0.63).
TWICE = 0.2


def fits(subject: Subject) -> CheckResult:
    """D0: an output for each sample, a value for each class, a scalar loss that leads back to the weights."""
    return _samples(subject) or _outputs(subject) or _loss(subject)


def one_softmax(subject: Subject) -> CheckResult:
    """D11: outputs that went through a softmax or sigmoid don't meet a loss that takes its own."""
    setup, outputs, targets = subject.setup, subject.outputs.float(), subject.first[1]
    scale = subject.scale
    if scale.kind == LOGITS and outputs.shape[1] > 1:
        if not sum_to_one(outputs):
            return passed("D11", "outputs are no probabilities, and the loss takes the softmax")
        right = torch.nn.functional.one_hot(targets.long(), outputs.shape[1]).movedim(-1, 1).to(outputs)
        least = scale.left(asked(setup.loss, right, targets))
        if least > TWICE:
            return failed(
                "D11",
                f"each sample's outputs sum to 1, and the loss of right ones is still {least:.0%} of one "
                "that "
                "knows nothing",
                "a softmax at the end of the model, and another one inside the loss",
                "Let the model return logits: drop its last softmax",
            )
        return passed("D11", "outputs are probabilities, and the loss goes down to nothing with them")
    if scale.kind == BINARY:
        if bool((outputs > 0).all() and (outputs < 1).all()) and len(outputs) > 1:
            return failed(
                "D11",
                f"all outputs lie between {outputs.min():.2f} and {outputs.max():.2f}, and the loss takes "
                "logits",
                "a sigmoid at the end of the model, and another one inside the loss",
                "Let the model return logits: drop its last sigmoid, or use a loss of probabilities",
            )
        return passed("D11", "outputs are logits, as the loss takes them")
    return skipped("D11", f"the loss takes {scale.kind}, no logits")


def _samples(subject: Subject) -> CheckResult | None:
    inputs = subject.first[0]
    outputs: Any = subject.outputs
    if not isinstance(outputs, Tensor):
        return failed(
            "D0",
            f"the model returns {type(outputs).__name__}",
            "forward returns more than its outputs",
            "Return one tensor, or wrap the model in a module that does",
        )
    if outputs.ndim == 0 or len(outputs) != len(inputs):
        return failed(
            "D0",
            f"outputs have the shape {tuple(outputs.shape)} for {len(inputs)} samples",
            "a view or reshape that moves values between samples, or a mean over the batch",
            "Flatten from the second dimension on: x.flatten(1)",
        )
    return None


def _outputs(subject: Subject) -> CheckResult | None:
    setup, outputs, targets = subject.setup, subject.outputs, subject.setup.targets
    if targets.is_floating_point():
        return None
    names = len(setup.class_names)
    has = outputs.shape[1] if outputs.ndim > 1 else 1
    least, most = int(targets.min()), int(targets.max())
    if least < 0 or (names and most >= names):
        return failed(
            "D0",
            f"labels go from {least} to {most}, and there are {names or 'no'} named classes",
            "labels that are not numbered from 0",
            "Number the classes from 0 to their count - 1",
        )
    single = outputs.ndim == 1 or has == 1
    wanted = max(names, most + 1)
    if targets.ndim == 1 and has < wanted and not (single and wanted <= 2):
        return failed(
            "D0",
            f"the model has {has} outputs, and there are {wanted} classes",
            "the last layer does not fit the classes",
            f"Give the last layer {wanted} outputs",
        )
    return None


def _loss(subject: Subject) -> CheckResult:
    setup = subject.setup
    inputs, targets = subject.first
    with seeded(inputs.device):
        outputs = subject.model().train()(inputs)
        value: Any = setup.loss(outputs, targets)
    if not isinstance(value, Tensor):
        return _detached(f"the loss returns {type(value).__name__}, not a tensor")
    if value.numel() != 1:
        return failed(
            "D0",
            f"the loss is no scalar: its shape is {tuple(value.shape)}",
            "a loss with reduction='none', or one that is not averaged over the batch",
            "Return its mean: loss.mean()",
        )
    if not value.requires_grad:
        if not any(each.requires_grad for each in setup.model.parameters()):
            return failed(
                "D0",
                "no weight of the model wants a gradient",
                "all layers are frozen",
                "Set requires_grad on what is to be trained",
            )
        where = "outputs" if not outputs.requires_grad else "loss"
        return _detached(f"no gradient leads from the {where} to the weights")
    if not bool(torch.isfinite(value)):
        finite = bool(torch.isfinite(outputs).all())
        return failed(
            "D0",
            f"the first loss is {value.item()}, of {'finite' if finite else 'non-finite'} outputs",
            "a log or division of zero in the loss"
            if finite
            else "inputs that are not finite (see D6), or too large initial values",
            "Look at D6; add a small number inside the log",
        )
    if subject.scale.kind == VALUES and subject.scale.perfect > 0.5 * subject.scale.ignorant > 0:
        return failed(
            "D0",
            f"right outputs have a loss of {subject.scale.perfect:.3g}, the mean alone "
            f"{subject.scale.ignorant:.3g}",
            f"outputs {tuple(outputs.shape)} against targets {tuple(targets.shape)}: each is compared with "
            "all",
            "Give both the same shape: outputs.squeeze(1)",
        )
    if subject.scale.kind == LOGITS and not subject.scale.known:
        return failed(
            "D0",
            f"right outputs have a loss of {subject.scale.perfect:.3g}, outputs that say nothing "
            f"{subject.scale.ignorant:.3g}",
            "a loss with the wrong sign, or with its arguments exchanged",
            "Look at the loss: loss(outputs, targets) is to be least where they agree",
        )
    shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)}"
    return passed("D0", f"{shapes}, a first loss of {value.item():.4g}; the loss takes {subject.scale.kind}")


def _detached(saw: str) -> CheckResult:
    return failed(
        "D0",
        saw,
        "a detached loss: .item(), .detach(), torch.no_grad() or NumPy between outputs and loss",
        "Compute the loss from the model's outputs with torch alone",
    )
