"""The largest batch that fits: a power of two, found by trying on a GPU and by reckoning on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from orchestrator.data.streaming import memory_limit
from orchestrator.training.precision import computing
from orchestrator.training.run import Run

LEAST, LARGEST_CPU = 32, 1024
# An epoch keeps so many updates at least: with fewer there is little to learn from it.
LEAST_UPDATES = 8
# Of a GPU's memory, what one update may take. On a CPU it may take what data.streaming keeps in memory.
GPU_SHARE = 0.9


def largest_batch(begin: Callable[[int], Run]) -> int:
    """Return the largest power of two that fits the device and leaves an epoch `LEAST_UPDATES` updates.

    Args:
        begin: gives a run with a batch size, which is thrown away.
    """
    size = LEAST
    run = begin(size)
    gpu = run.train.device.type == "cuda"
    limit = len(run.train) // LEAST_UPDATES if gpu else min(len(run.train) // LEAST_UPDATES, LARGEST_CPU)
    if gpu:
        # Upwards: a try costs as much as all before it together, so what is spent is twice the last.
        while 2 * size <= limit and _fits_gpu(begin, 2 * size):
            size *= 2
        return size if size <= limit else _power_below(limit)
    limit = min(limit, int(memory_limit(None) / max(1.0, sample_bytes(run))))
    return _power_below(limit)


def sample_bytes(run: Run) -> float:
    """Return the bytes that the gradient's computation keeps for one sample, from batches of two and four."""
    kept = [0, 0]
    for place, count in enumerate((2, 4)):

        def pack(tensor: Tensor, place: int = place) -> Tensor:
            kept[place] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            _forward(run, count)
    return (kept[1] - kept[0]) / 2


def _forward(run: Run, count: int) -> Tensor:
    rows = torch.arange(count) % len(run.train)
    inputs, targets = run.train.take(rows)
    run.model.train()
    with computing(run.dtype, run.train.device):
        return run.loss(run.forward(inputs), targets)


def _fits_gpu(begin: Callable[[int], Run], size: int) -> bool:
    """Say whether one whole update with a batch of a size leaves a tenth of the memory free."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = begin(size)
    try:
        _forward(run, size).backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
    except torch.OutOfMemoryError:
        return False
    finally:
        del run
        torch.cuda.empty_cache()
    _, whole = torch.cuda.mem_get_info()
    return torch.cuda.max_memory_reserved() <= GPU_SHARE * whole


def _power_below(limit: int) -> int:
    return 1 << max(1, limit).bit_length() - 1
