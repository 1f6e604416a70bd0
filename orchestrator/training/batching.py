"""Batches: where a part's samples lie, in which order a pass takes them, and how they reach the model.

Samples that fit lie on the device. Larger ones stay in memory, or on disk as an `np.memmap`, and go over a
few batches at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from orchestrator.data.dataset import Part
from orchestrator.training.distributed import Peers, bounds

# Batches that are fetched together, as far as they are small: for a narrow network fetching each one alone
# takes a tenth of the time.
TOGETHER = 16
TOGETHER_BYTES = 8 * 2**20
# A part goes onto a GPU when it takes at most this share of what is free there.
GPU_SHARE = 0.5


class Stacked:
    """Arrays of samples one after another, which are on disk and so are not copied together."""

    def __init__(self, parts: Sequence[NDArray[Any]]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self.dtype: np.dtype[Any] = parts[0].dtype
        self.shape: tuple[int, ...] = (int(self._starts[-1]), *parts[0].shape[1:])

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of some samples: (k, ...)."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(len(self)))
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for part, start in zip(self._parts, self._starts[:-1], strict=True):
            inside = (rows >= start) & (rows < start + len(part))
            out[inside] = part[rows[inside] - start]
        return out


Inputs = Tensor | NDArray[Any] | Stacked


@dataclass(frozen=True, slots=True)
class Samples:
    """Samples for a model on `device`.

    Attributes:
        inputs: (n, *shape); a tensor on the device, or an array that is fetched from piece by piece.
        targets: (n,) on the device; int64 classes or float32 values.
        device: where the model is.
    """

    inputs: Inputs
    targets: Tensor
    device: torch.device

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.targets)

    @property
    def sample_bytes(self) -> int:
        """Memory of one sample's input."""
        one = self.inputs.element_size() if isinstance(self.inputs, Tensor) else self.inputs.dtype.itemsize
        return int(one) * int(np.prod(self.inputs.shape[1:], dtype=np.int64))

    def take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some samples, on the device; `rows` is int64 (k,), on the CPU."""
        if isinstance(self.inputs, Tensor):
            there = rows.to(self.device)
            return self.inputs.index_select(0, there), self.targets.index_select(0, there)
        inputs = self._sent(np.ascontiguousarray(self.inputs[rows.numpy()]))
        return inputs, self.targets.index_select(0, rows.to(self.device))

    def pieces(self, size: int) -> Iterator[Tensor]:
        """Yield all inputs in their order, `size` at a time, on the device."""
        if isinstance(self.inputs, Tensor):
            yield from torch.split(self.inputs, size)
            return
        for start in range(0, len(self), size):
            yield self._sent(np.array(self.inputs[start : start + size]))

    def _sent(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # Pinned memory is what lets the copy go on beside the computation.
        return tensor.pin_memory().to(self.device, non_blocking=True)


def samples(part: Part, device: torch.device, targets: Tensor | None = None) -> Samples:
    """Put a part on the device, or leave it where it is when it is too large for that.

    Args:
        part: of a dataset.
        device: where the model is.
        targets: in place of the part's own, (n,).
    """
    inputs: Inputs = part.inputs
    if not isinstance(part.inputs, np.memmap) and (
        device.type != "cuda" or _fits(part.inputs.nbytes, device)
    ):
        inputs = torch.from_numpy(np.require(part.inputs, requirements="W")).to(device)
    own = torch.from_numpy(np.require(part.targets, requirements="W")) if targets is None else targets
    return Samples(inputs, own.to(device), device)


def joined(first: Samples, second: Samples) -> Samples:
    """Return two parts as one, the first one's samples first."""
    targets = torch.cat([first.targets, second.targets])
    if isinstance(first.inputs, Tensor) and isinstance(second.inputs, Tensor):
        return Samples(torch.cat([first.inputs, second.inputs]), targets, first.device)
    arrays = [
        each.inputs.cpu().numpy() if isinstance(each.inputs, Tensor) else each.inputs
        for each in (first, second)
    ]
    return Samples(Stacked(arrays), targets, first.device)  # type: ignore[arg-type]


def batch_sizes(count: int, size: int) -> list[int]:
    """Return the sizes of a pass's batches; a rest of one sample joins the batch before.

    One sample has no variance to normalize by, and its gradient alone is the noisiest step of the pass.
    """
    whole, rest = divmod(count, size)
    if rest == 1 and whole:
        return [size] * (whole - 1) + [size + 1]
    return [size] * whole + [rest] * bool(rest)


def together(sizes: Sequence[int], sample_bytes: int) -> int:
    """Return how many batches to fetch at a time; the same all through a run."""
    return max(1, min(TOGETHER, TOGETHER_BYTES // max(1, max(sizes, default=1) * sample_bytes)))


@dataclass(frozen=True, slots=True)
class Shares:
    """The batches of a pass as one process takes them.

    Attributes:
        rows: of each batch this process's samples: (k,) int64 on the CPU, k >= 1.
        sizes: of the whole batches.
        seen: how many of its samples count: 0 where a batch has fewer samples than there are processes, and
            none for this one, which then takes the first one along.
        factors: what the mean loss of its samples is multiplied by: the mean over the processes is then the
            whole batch's, however unequal the parts are.
    """

    rows: Sequence[Tensor]
    sizes: Sequence[int]
    seen: Sequence[int]
    factors: Sequence[float]


def shares(batches: Sequence[Tensor], peers: Peers) -> Shares:
    """Split each batch (n,) over the processes, in the order of their ranks, the larger parts first."""
    sizes = [len(batch) for batch in batches]
    if peers.alone:
        return Shares(batches, sizes, sizes, [1.0] * len(sizes))
    ends = [bounds(size, peers.count)[peers.rank : peers.rank + 2] for size in sizes]
    seen = [end - start for start, end in ends]
    rows = [
        batch[start:end] if end > start else batch[:1]
        for batch, (start, end) in zip(batches, ends, strict=True)
    ]
    factors = [count * peers.count / size for count, size in zip(seen, sizes, strict=True)]
    return Shares(rows, sizes, seen, factors)


def share_of(part: Samples, peers: Peers) -> tuple[Samples, list[int]]:
    """Return this process's consecutive share of a part, and the sizes of all shares by rank."""
    ends = bounds(len(part), peers.count)
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    here = slice(ends[peers.rank], ends[peers.rank + 1])
    return Samples(part.inputs[here], part.targets[here], part.device), sizes


def _fits(nbytes: int, device: torch.device) -> bool:
    free, _ = torch.cuda.mem_get_info(device)
    return nbytes <= GPU_SHARE * free
