"""The training loop: samples in memory, one pass after another, validated after each.

The order of an epoch's samples depends on (seed, epoch) alone, and everything else random comes from
torch's global state, which is part of a checkpoint. So a run that was stopped and continued has the same
bits as one that was not (on a CPU with the same number of threads).
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from orchestrator.training import checkpoints
from orchestrator.training.settings import JobSettings

# Samples evaluated at a time: on a CPU what its cache holds (a cnn is 1.5 times as fast as at 1024).
EVALUATION_BATCH_CPU = 256
EVALUATION_BATCH_GPU = 2048
METRICS = ("train/loss", "train/accuracy", "val/loss", "val/accuracy")
DIVERGED = dict.fromkeys((*METRICS, "best_epoch"), math.nan)


class Trial(Protocol):
    """What the loop needs of the trial it runs in."""

    checkpoint_dir: Path

    def report(self, step: int, metrics: dict[str, float]) -> object:
        """Record metrics of a step; may raise StopTrial."""

    def keep(self, path: Path, step: int) -> object:
        """Offer a checkpoint as a member for the ensemble; again after a requeue."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Tensors on the device: inputs (n, *shape) float32, labels (n,) int64."""

    inputs: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.labels)


@dataclass(slots=True)
class State:
    """What changes during a run, and so what a resumed run needs."""

    model: nn.Module
    optimizer: Optimizer
    schedule: LRScheduler | None
    epoch: int = 0
    best: dict[str, float] | None = None


def fit(
    state: State, train: Samples, validation: Samples, settings: JobSettings, trial: Trial
) -> dict[str, float]:
    """Train until `settings.epochs`, from where the trial's `last.pt` left off if there is one.

    Reports METRICS and lr after each epoch, with the epoch (from 1) as step.

    Returns:
        METRICS of the epoch with the best validation accuracy (of equals, the one with the lowest
        validation loss), and `best_epoch`. All NaN, and no further epoch, where a loss is not finite.

    Raises:
        StopTrial: the trial was abandoned in `report`.
    """
    device = train.labels.device
    last = trial.checkpoint_dir / "last.pt"
    fingerprint = json.dumps(asdict(settings), sort_keys=True, default=str)
    resume(state, last, fingerprint, device)
    moments = kept_epochs(settings.epochs, settings.checkpoints)
    saved = time.monotonic()
    for epoch in range(state.epoch + 1, settings.epochs + 1):
        rate = state.optimizer.param_groups[0]["lr"]
        measured = (*train_epoch(state, train, settings, epoch), *evaluate(state.model, validation))
        metrics = dict(zip(METRICS, measured, strict=True))
        state.epoch = epoch
        trial.report(epoch, {**metrics, "lr": rate})
        if not (math.isfinite(metrics["train/loss"]) and math.isfinite(metrics["val/loss"])):
            return dict(DIVERGED)
        if _better(metrics, state.best):
            state.best = {**metrics, "best_epoch": float(epoch)}
            if moments:
                checkpoints.save_member(trial.checkpoint_dir / "best.pt", state.model, epoch)
        if epoch in moments:
            path = trial.checkpoint_dir / f"epoch-{epoch:04d}.pt"
            checkpoints.save_member(path, state.model, epoch)
            trial.keep(path, epoch)
        # After `keep`: a run that dies in between offers the same checkpoint again instead of never.
        if epoch in moments or time.monotonic() - saved >= settings.save_seconds:
            save_state(state, last, fingerprint, device)
            saved = time.monotonic()
    best = state.best or dict(DIVERGED)
    if moments and int(best["best_epoch"]) not in moments:
        trial.keep(trial.checkpoint_dir / "best.pt", int(best["best_epoch"]))
    return best


def train_epoch(state: State, train: Samples, settings: JobSettings, epoch: int) -> tuple[float, float]:
    """Take one pass over the training samples; return mean loss and accuracy as seen during the pass."""
    model, optimizer = state.model, state.optimizer
    device = train.labels.device
    shuffle = torch.Generator().manual_seed(((settings.seed << 20) + epoch) % 2**63)
    order = torch.randperm(len(train), generator=shuffle).to(device)
    total_loss, total_correct = torch.zeros((), device=device), torch.zeros((), device=device)
    model.train()
    for start, stop in batches(len(train), settings.batch_size):
        chosen = order[start:stop]
        labels = train.labels[chosen]
        logits = model(train.inputs[chosen])
        loss = cross_entropy(logits, labels, label_smoothing=settings.loss.label_smoothing)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if state.schedule is not None:
            state.schedule.step()
        # Sums stay on the device: reading a number each step would make a GPU wait.
        total_loss += loss.detach() * (stop - start)
        total_correct += (logits.detach().argmax(1) == labels).sum()
    return total_loss.item() / len(train), total_correct.item() / len(train)


def batches(samples: int, size: int) -> list[tuple[int, int]]:
    """Return the bounds of batches; a rest of one sample joins the batch before.

    One sample has no variance to normalize by, and its gradient alone is the noisiest step of the pass.
    """
    starts = list(range(0, samples, size))
    if len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], samples], strict=True))


def evaluate(model: nn.Module, samples: Samples) -> tuple[float, float]:
    """Return mean cross-entropy (nats, without smoothing) and accuracy."""
    logits = predict_logits(model, samples.inputs)
    loss = cross_entropy(logits, samples.labels).item()
    return loss, (logits.argmax(1) == samples.labels).sum().item() / len(samples)


@torch.inference_mode()
def predict_logits(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return logits (n, classes) for inputs (n, *shape), on the same device."""
    model.eval()
    size = EVALUATION_BATCH_CPU if inputs.device.type == "cpu" else EVALUATION_BATCH_GPU
    return torch.cat([model(batch) for batch in torch.split(inputs, size)])


def kept_epochs(epochs: int, count: int) -> set[int]:
    """Return up to `count` epochs, evenly over the second half, the last one among them."""
    if count <= 0:
        return set()
    half = epochs / 2
    return {max(1, round(epochs - half * back / count)) for back in range(count)}


def save_state(state: State, path: Path, fingerprint: str, device: torch.device) -> None:
    """Write everything that a resumed run needs."""
    content: dict[str, Any] = {
        "fingerprint": fingerprint,
        "epoch": state.epoch,
        "best": state.best,
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "schedule": state.schedule.state_dict() if state.schedule else None,
        "random": torch.get_rng_state(),
        "random_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }
    checkpoints.save(path, content)


def resume(state: State, path: Path, fingerprint: str, device: torch.device) -> None:
    """Continue from a saved state of the same settings; a missing, damaged or other one is passed over."""
    if not path.exists():
        return
    try:
        saved = checkpoints.load(path, device)
    except checkpoints.UnreadableCheckpoint:
        return
    if saved.get("fingerprint") != fingerprint:
        return
    state.model.load_state_dict(saved["model"])
    state.optimizer.load_state_dict(saved["optimizer"])
    if state.schedule is not None:
        state.schedule.load_state_dict(saved["schedule"])
    state.epoch, state.best = saved["epoch"], saved["best"]
    torch.set_rng_state(saved["random"].cpu())
    if device.type == "cuda":
        torch.cuda.set_rng_state(saved["random_cuda"].cpu(), device)


def _better(metrics: dict[str, float], best: dict[str, float] | None) -> bool:
    """Compare by validation accuracy, then by validation loss."""
    if best is None:
        return True
    return (metrics["val/accuracy"], -metrics["val/loss"]) > (best["val/accuracy"], -best["val/loss"])
