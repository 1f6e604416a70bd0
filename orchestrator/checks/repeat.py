"""D5: two runs from one seed agree."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from orchestrator.checks.result import CheckResult, failed, passed
from orchestrator.checks.seeding import seeded
from orchestrator.checks.setup import Setup
from orchestrator.checks.subject import Subject

UPDATES, SAMPLES = 3, 64
# On a GPU sums may come in any order.
ROUNDING = 1e-3
NEXT = "Seed torch, NumPy, random and the loader's workers from config.seed, in setup and in train"


def agrees(subject: Subject) -> CheckResult:
    """D5: two set-ups of one seed have the same weights and samples, and the same first losses.

    Before each the global generators are in another state: what does not seed itself differs. Where a
    function that trains is given, it runs twice too.
    """
    runs = []
    for state in (1, 2):
        with seeded(subject.setup.inputs.device, state):
            setup = subject.make()
        runs.append((setup, _losses(setup)))
    (one, first), (other, second) = runs
    if (saw := _differ(one, other) or _apart(one, first, second)) is not None:
        return failed("D5", saw, _cause(saw), NEXT)
    saw = f"two set-ups of one seed: the same weights, samples and first {UPDATES} losses"
    if subject.train is None:
        return passed("D5", saw)
    return trained_twice(subject.train(), subject.train(), saw)


def trained_twice(one: Mapping[str, float], other: Mapping[str, float], saw: str = "") -> CheckResult:
    """Compare the metrics that a training function gave twice, from one seed."""
    saw = f"{saw}; " if saw else ""
    names = [name for name in one if not _same(one[name], other.get(name))]
    if names or set(one) != set(other):
        name = names[0] if names else next(iter(set(one) ^ set(other)))
        return failed(
            "D5",
            f"{saw}trained twice from one seed, {name} is {one.get(name)} and {other.get(name)}",
            "random numbers that config.seed does not decide: the order of samples, augmentation, or a "
            "loader's "
            "workers",
            NEXT,
        )
    shown = ", ".join(f"{name} {value:.6g}" for name, value in list(one.items())[:3])
    return passed("D5", f"{saw}trained twice: {shown} both times")


def _same(one: float, other: float | None) -> bool:
    return other is not None and (one == other or (one != one and other != other))


def _differ(one: Setup, other: Setup) -> str | None:
    pairs = [("training inputs", one.inputs, other.inputs), ("training targets", one.targets, other.targets)]
    if one.validation is not None and other.validation is not None:
        for name, mine, theirs in zip(("inputs", "targets"), one.validation, other.validation, strict=True):
            pairs.append((f"validation {name}", mine, theirs))
    for name, mine, theirs in pairs:
        if mine.shape != theirs.shape:
            return f"{name} have the shapes {tuple(mine.shape)} and {tuple(theirs.shape)}"
        if not _equal(mine, theirs):
            share = float(
                (mine.reshape(len(mine), -1) != theirs.reshape(len(mine), -1)).any(1).double().mean()
            )
            return f"{share:.0%} of the {name} differ"
    mine_all, their_all = one.model.state_dict(), other.model.state_dict()
    for name, tensor in mine_all.items():
        if isinstance(tensor, Tensor) and not _equal(tensor, their_all[name]):
            return f"initial values of {name} differ"
    return None


def _equal(one: Tensor, other: Tensor) -> bool:
    return (
        torch.equal(torch.nan_to_num(one), torch.nan_to_num(other))
        if one.is_floating_point()
        else torch.equal(one, other)
    )


def _losses(setup: Setup) -> list[float]:
    inputs, targets = setup.inputs[:SAMPLES], setup.targets[:SAMPLES]
    with seeded(inputs.device):
        model = copied(setup.model).train()
        optimizer = an_optimizer(setup, model)
        losses = []
        for _ in range(UPDATES):
            optimizer.zero_grad()
            loss = setup.loss(model(inputs), targets)
            losses.append(float(loss.detach()))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return losses


def copied(model: nn.Module) -> nn.Module:
    """Return a copy of a model, or the model where it holds what can't be copied."""
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError):
        return model


def an_optimizer(setup: Setup, model: nn.Module) -> Optimizer:
    """Return the set-up's own optimizer of a model's weights, or Adam."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    return setup.optimizer(parameters) if setup.optimizer is not None else Adam(parameters, lr=1e-3)


def _apart(setup: Setup, first: list[float], second: list[float]) -> str | None:
    for update, (one, other) in enumerate(zip(first, second, strict=True)):
        near = abs(one - other) <= ROUNDING * abs(one) and setup.inputs.is_cuda
        if not near and not _same(one, other):
            return f"the losses after {update} updates are {one!r} and {other!r}"
    return None


def _cause(saw: str) -> str:
    if "initial values" in saw:
        return "the model is built before the seed is set, or from another generator"
    if "losses" in saw:
        return "random numbers in model or loss that no seed decides, or operations without a fixed order"
    return "samples drawn, shuffled or augmented without a seed, as by a loader's workers"
