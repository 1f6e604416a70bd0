"""The same random numbers for every check, and the caller's own left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from orchestrator.training.randomness import capture, restore, seed_all


@contextmanager
def seeded(device: torch.device, seed: int = 0) -> Iterator[None]:
    """Seed torch, NumPy and Python, and put their states back in the end."""
    states = capture(device)
    settings = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    seed_all(seed, device)
    try:
        yield
    finally:
        restore(states, device)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = settings
