"""Batch normalization by the mean and variance of all processes' samples, on GPUs and on CPUs.

With it several processes normalize as one does, and their running statistics stay the same. torch's own,
SyncBatchNorm, is for GPUs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from orchestrator.training.distributed import Peers


class GpuBatchNorm(nn.SyncBatchNorm):
    """torch's, taking part as `_taken_part` says.

    Attributes:
        counted: whether this process's samples are part of the batch.
    """

    counted: bool = True

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (n, channels, ...)."""
        return _taken_part(self, input, self.counted, super().forward)


class CpuBatchNorm(_BatchNorm):
    """The same on a CPU.

    Attributes:
        counted: whether this process's samples are part of the batch.
    """

    counted: bool = True

    def forward(self, input: Tensor) -> Tensor:
        """Normalize (n, channels, ...)."""
        return _taken_part(self, input, self.counted, self._normalized)

    def _normalized(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        numbers = input.float()
        channels, shape = numbers.shape[1], [1, -1] + [1] * (numbers.dim() - 2)
        others = [place for place in range(numbers.dim()) if place != 1]
        each = torch.tensor([float(numbers.numel() // max(1, channels))])
        sums, counted = torch.split(_total(torch.cat([numbers.sum(others), each])), [channels, 1])
        count = counted.detach()
        mean = sums / count
        # The mean first: the difference of two large sums has few digits.
        centered = numbers - mean.reshape(shape)
        variance = _total(centered.square().sum(others)) / count
        self._remember(mean.detach(), variance.detach(), float(count))
        out = centered * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.affine:
            out = out * self.weight.reshape(shape) + self.bias.reshape(shape)
        result: Tensor = out.to(input.dtype)
        return result

    def _remember(self, mean: Tensor, variance: Tensor, count: float) -> None:
        """Move the running statistics towards those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        unbiased = variance * count / max(1.0, count - 1)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)

    def _check_input_dim(self, input: Tensor) -> None:
        """Take any number of dimensions from two on: those of what it stands for were the same."""


def synchronized(model: nn.Module, peers: Peers) -> nn.Module:
    """Return a model whose batch normalizations are over all processes; all else stays, and all names."""
    if isinstance(model, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return _global(model, peers)
    for name, child in model.named_children():
        setattr(model, name, synchronized(child, peers))
    return model


@contextmanager
def left_out(model: nn.Module, context: AbstractContextManager[object]) -> Iterator[None]:
    """Compute in a context what is not part of the batch: its statistics are without it."""
    layers = [each for each in model.modules() if isinstance(each, GpuBatchNorm | CpuBatchNorm)]
    for layer in layers:
        layer.counted = False
    try:
        with context:
            yield
    finally:
        for layer in layers:
            layer.counted = True


def _taken_part(
    layer: _BatchNorm, input: Tensor, counted: bool, normalized: Callable[[Tensor], Tensor]
) -> Tensor:
    """Normalize with the other processes where they do the same: in training, with gradients.

    A look at the model without gradients is by this process's samples, and must not wait for others. Samples
    that are not counted pass as they are, while this process takes part with none.
    """
    if layer.training and not torch.is_grad_enabled():
        return nn.functional.batch_norm(input, None, None, layer.weight, layer.bias, True, 0.0, layer.eps)
    if layer.training and not counted:
        return torch.cat([normalized(input[:0]), input])
    return normalized(input)


class _Total(Function):
    """The sum over all processes; the gradient is theirs, summed."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        added = tensor.clone()
        dist.all_reduce(added)
        return added

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        added = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(added)
        return added


def _total(tensor: Tensor) -> Tensor:
    added: Tensor = _Total.apply(tensor)  # type: ignore[no-untyped-call]
    return added


def _global(layer: _BatchNorm, peers: Peers) -> _BatchNorm:
    made: _BatchNorm
    plain = (layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    if peers.device.type == "cpu":
        made = CpuBatchNorm(*plain)
    else:
        made = GpuBatchNorm(*plain, process_group=peers.gradients)
    made.weight, made.bias = layer.weight, layer.bias
    made.running_mean, made.running_var = layer.running_mean, layer.running_var
    made.num_batches_tracked = layer.num_batches_tracked
    return made.train(layer.training)
