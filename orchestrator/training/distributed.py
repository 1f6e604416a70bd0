"""Several processes that train one run together: how they agree.

Each process has the whole model and takes its part of every batch; torch's DistributedDataParallel averages
the gradients. What has to be decided, process 0 decides and tells the others, through a group of its own on
the CPU: clocks, and bits of metrics, may differ from one node to the next, and processes that went different
ways would wait for each other for good.

How they find each other: see training.meeting. A run that is alone has nothing to wait for, and nothing here
does anything.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from orchestrator.errors import StopTrial

Value = TypeVar("Value")

CPU = torch.device("cpu")


class Reporting(Protocol):
    """What `report` needs of a trial."""

    def report(self, step: int, metrics: dict[str, float]) -> object:
        """Record metrics of a step; may raise StopTrial."""


@dataclass(frozen=True, slots=True)
class Peers:
    """The processes that train a run together, seen from one of them.

    Every method is to be called by all of them, in the same order.

    Attributes:
        rank: of this process, from 0.
        count: of all of them.
        gradients: the group that tensors on the device go through; None for a run that is alone.
        device: of this process's model.
    """

    rank: int = 0
    count: int = 1
    gradients: dist.ProcessGroup | None = None
    device: torch.device = CPU

    @property
    def alone(self) -> bool:
        """Whether there is no other process."""
        return self.count == 1

    @property
    def leads(self) -> bool:
        """Whether this process decides, reports and writes."""
        return self.rank == 0

    def agreed(self, decide: Callable[[], Value]) -> Value:
        """Return what process 0 decides: tensors and plain values. The others do not even call `decide`."""
        if self.alone:
            return decide()
        packed = _packed(decide()) if self.leads else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor(len(packed))
        dist.broadcast(size, 0)
        if not self.leads:
            packed = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(packed, 0)
        value: Value = _unpacked(packed, self.device)
        return value

    def all_do(self, due: bool) -> bool:
        """Return what process 0 says: the cheap way for a yes or no."""
        if self.alone:
            return due
        said = torch.tensor(due)
        dist.broadcast(said, 0)
        return bool(said)

    def collected(self, value: Value) -> list[Value]:
        """Return every process's value, tensors and plain values, in the order of their ranks."""
        if self.alone:
            return [value]
        packed = _packed(value)
        sizes = [torch.tensor(0) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor(len(packed)))
        padded = torch.zeros(int(max(sizes)), dtype=torch.uint8)
        padded[: len(packed)] = packed
        everyone = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(everyone, padded)
        return [_unpacked(each[: int(size)], self.device) for each, size in zip(everyone, sizes, strict=True)]

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum of all processes' tensors, which have one shape and lie on their devices."""
        if self.alone:
            return tensor
        added = tensor.clone()
        dist.all_reduce(added, group=self.gradients)
        return added

    def whole(self, part: Tensor, sizes: list[int]) -> Tensor:
        """Return all processes' parts one after another: (sum of sizes, ...).

        Args:
            part: this process's, (sizes[rank], ...), on its device.
            sizes: of all parts, by rank.
        """
        if self.alone:
            return part
        padded = part.new_zeros((max(sizes), *part.shape[1:]))
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=self.gradients)
        return torch.cat([each[:size] for each, size in zip(parts, sizes, strict=True)])

    def lead(self, tensors: list[Tensor]) -> None:
        """Make all processes' tensors those of process 0."""
        if not self.alone:
            for tensor in tensors:
                dist.broadcast(tensor, 0, group=self.gradients)


ALONE = Peers()


def report(peers: Peers, trial: Reporting, step: int, metrics: dict[str, float]) -> None:
    """Report as process 0; all of them stop where it is told to.

    Raises:
        StopTrial: the trial was abandoned.
    """
    if peers.alone:
        trial.report(step, metrics)
        return
    stopped: StopTrial | None = None
    if peers.leads:
        try:
            trial.report(step, metrics)
        except StopTrial as stop:
            stopped = stop
    if peers.all_do(stopped is not None):
        raise stopped or StopTrial("process 0 was told to stop")


def bounds(samples: int, count: int) -> list[int]:
    """Return where the parts of `samples` begin, and their end: count + 1 numbers, the larger parts first."""
    whole, rest = divmod(samples, count)
    return [rank * whole + min(rank, rest) for rank in range(count + 1)]


def _packed(value: object) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpacked(packed: Tensor, device: torch.device) -> Any:
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location=device, weights_only=True)
