"""Whether a run's share of the disk has room for its checkpoints, reckoned before its first epoch."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError
from orchestrator.sweep.kept import GB
from orchestrator.training.optimizers import build_optimizer
from orchestrator.training.randomness import capture
from orchestrator.training.run import Run
from orchestrator.training.settings import OptimizerSettings
from orchestrator.training.stopping import GO_ON, RETRAIN
from orchestrator.training.switch import after

# What a state has besides tensors and generators; a tensor's entry in a file, and the file's name in that.
_PLAIN_BYTES, _ENTRY_BYTES, _NAME_BYTES = 4096, 512, 64


def check_room(run: Run, then: str, limit: float) -> None:
    """Refuse a share of the disk that has no room for one checkpoint beside what the run needs itself.

    That is the state to go on from, the best model so far, and what a continuation on all data writes.

    Args:
        run: as it was built.
        then: `stopping.then`.
        limit: bytes of the share.

    Raises:
        UserError: with what each of them takes, and how much the share would have to grow.
    """
    model, state = member_bytes(run), state_bytes(run)
    extra = {GO_ON: state + model, RETRAIN: model}.get(then, 0)
    needed = state + 2 * model + extra
    if needed > limit:
        others = f", a continuation on all data {extra / GB:.3g} GB" if extra else ""
        raise UserError(
            f"a checkpoint takes {model / GB:.3g} GB, the best one so far as much, the state to go on from "
            f"{state / GB:.3g} GB{others}; together {needed / GB:.3g} GB, and this run's share of "
            f"final.disk_gb is {limit / GB:.3g} GB",
            key="final.disk_gb",
            hint=f"Make it at least {1.1 * needed / limit:.2g} times as large, or null for no limit",
        )


def member_bytes(run: Run) -> int:
    """Return the bytes of a member's file."""
    model = run.model.state_dict()
    return written_bytes({"epoch": run.epoch, "model": model}) + (len(model) + 8) * _NAME_BYTES


def state_bytes(run: Run) -> int:
    """Return, within a few per cent, the bytes of the state to go on from when its optimizer has begun."""
    generators = [capture(run.train.device) for _ in range(run.peers.count)]
    begun = written_bytes({"run": run.state_dict() | {"random": None}, "random": generators})
    weights = [each for each in run.model.parameters() if each.requires_grad]
    numbers, entries = remembered(run.settings.optimizer)
    memory = sum(numbers * each.numel() * each.element_size() + entries * _ENTRY_BYTES for each in weights)
    return begun + _PLAIN_BYTES + memory


def remembered(settings: OptimizerSettings) -> tuple[int, int]:
    """Return how many numbers an optimizer remembers of each weight, and in how many tensors of each layer.

    It is asked with a few weights; where optimizers are switched it is the one that remembers more.
    """
    found = []
    for each in (settings, after(settings)):
        weights = nn.Parameter(torch.zeros(1000))
        weights.grad = torch.zeros(1000)
        optimizer = build_optimizer([{"params": [weights], "lr": each.lr}], each)
        optimizer.step()
        state = [value for value in optimizer.state[weights].values() if isinstance(value, Tensor)]
        found.append((sum(value.numel() for value in state) // 1000, len(state)))
    return max(found)


class _Counter(io.BytesIO):
    """Counts what is written to it, and keeps none of it."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        self.count += size
        return size


def written_bytes(content: dict[str, Any]) -> int:
    """Return the bytes of a checkpoint's file without writing it."""
    counter = _Counter()
    torch.save(content, counter)
    return counter.count
