"""A model in several processes, wrapped so that its gradients are the means over all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from orchestrator.training.distributed import Peers
from orchestrator.training.precision import computing
from orchestrator.training.randomness import capture, restore


def distributed(
    model: nn.Module, peers: Peers, inputs: Tensor, *, dtype: torch.dtype | None, frozen: bool
) -> DistributedDataParallel:
    """Wrap a model, all processes together; its weights become those of process 0.

    Args:
        model: on its device, with `global_norm.synchronized` batch normalization.
        peers: more than one.
        inputs: two samples or more, for first backward passes that change nothing.
        dtype: what the model computes in.
        frozen: some of the weights will at times have no gradient.
    """
    with _unchanged(model, peers.device):
        _backward(model, inputs, dtype)
        unused = any(each.requires_grad and each.grad is None for each in model.parameters())
        model.zero_grad()
        wrapped = DistributedDataParallel(
            model, process_group=peers.gradients, find_unused_parameters=frozen or unused
        )
        # Batch normalization is in step, and other buffers are made so at the end of each pass.
        wrapped.broadcast_buffers = False
        if not frozen and not unused:
            # After a first backward pass the gradients are grouped anew, by the order in which they came, and
            # each group's sum is rounded in its own way. A run that is taken up again has to begin with that.
            _backward(wrapped, inputs, dtype)
            model.zero_grad()
    return wrapped


def _backward(model: nn.Module, inputs: Tensor, dtype: torch.dtype | None) -> None:
    with computing(dtype, inputs.device):
        nothing = model(inputs).float().sum() * 0.0
    nothing.backward()


@contextmanager
def _unchanged(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Train the model, and put its buffers and mode, and the generators, back afterwards."""
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    training, random = model.training, capture(device)
    model.train()
    try:
        yield
    finally:
        model.train(training)
        restore(random, device)
        with torch.no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
