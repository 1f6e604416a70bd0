"""Which samples a pass sees, and in what order: balancing the classes.

- none: every sample once.
- over: every class as often as the largest is there; a small class's samples come several times.
- under: every class as often as the smallest; of a large class a new choice comes in every pass.
- both: every class as often as the geometric mean of the classes' counts.
- batch: every batch has all classes equally often, and a pass is as long as there are samples.

What is measured during such a pass (`train/loss`, `train/accuracy`) is over what was seen, not over the data
as they are; validation is never balanced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from orchestrator.errors import UserError, nearest

RULES = ("none", "over", "under", "both", "batch")


def epoch_order(labels: Tensor, rule: str, generator: torch.Generator) -> Tensor:
    """Return the samples of one pass in the order in which they are seen.

    Args:
        labels: (n,) int64 on the CPU; classes without samples count for nothing.
        rule: one of RULES. With `batch` the classes take turns, so that they are equally often, within one
            sample, in a run of any length, and so in batches of any size.
        generator: the only source of chance.

    Returns:
        (m,) int64, samples' numbers. A sample comes again only after all others of its class have come.

    Raises:
        UserError: there is no such rule, or the labels are no classes.
    """
    if rule not in RULES:
        raise UserError(f"there is no rule '{rule}'", key="balance", hint=nearest(rule, RULES))
    if rule == "none":
        return torch.randperm(len(labels), generator=generator)
    if labels.is_floating_point():
        raise UserError("values have no classes to balance", key="balance", hint="Say none")
    members = _members(labels)
    if rule == "batch":
        return _in_turns(members, len(labels), generator)
    counts = torch.tensor([len(each) for each in members], dtype=torch.float64)
    wanted = {"over": counts.max(), "under": counts.min(), "both": counts.log().mean().exp()}[rule]
    order = torch.cat([_repeated(each, round(wanted.item()), generator) for each in members])
    return order[torch.randperm(len(order), generator=generator)]


def _members(labels: Tensor) -> list[Tensor]:
    """Return the samples of each class that has any, by class."""
    counts = torch.bincount(labels)
    by_class = torch.split(labels.argsort(stable=True), counts.tolist())
    return [each for each in by_class if len(each)]


def _repeated(samples: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return `count` of the samples (k,), shuffled anew each time that all have come."""
    rounds = -(-count // len(samples))
    shuffled = [samples[torch.randperm(len(samples), generator=generator)] for _ in range(rounds)]
    return torch.cat(shuffled)[:count]


def _in_turns(members: list[Tensor], total: int, generator: torch.Generator) -> Tensor:
    """Return `total` samples, the classes taking turns in an order that chance decides."""
    classes = torch.randperm(len(members), generator=generator)
    turns = classes.repeat(-(-total // len(members)))[:total]
    order = torch.empty(total, dtype=torch.int64)
    for number, samples in enumerate(members):
        places = (turns == number).nonzero()[:, 0]
        order[places] = _repeated(samples, len(places), generator)
    return order
