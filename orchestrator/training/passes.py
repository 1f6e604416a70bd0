"""One pass over the training samples, and the outputs for a part of them.

The order of a pass depends on (seed, fold, pass) alone, and everything else random comes from generators
whose states are part of a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from orchestrator.errors import UserError
from orchestrator.training.balance import epoch_order
from orchestrator.training.batching import Samples, batch_sizes, together
from orchestrator.training.finetune import hold_frozen, unfreeze
from orchestrator.training.precision import computing
from orchestrator.training.run import Run

# Samples evaluated at a time: on a CPU what its cache holds (a cnn is 1.5 times as fast as at 1024).
EVALUATION_BATCH_CPU = 256
EVALUATION_BATCH_GPU = 2048


def train_pass(
    run: Run,
    tick: Callable[[], object],
    watch_loss: Callable[[Tensor, Tensor], object] | None,
    limit: int | None = None,
) -> dict[str, float]:
    """Take a pass over the training samples, or the rest of one that was broken off.

    Args:
        run: is changed; `run.position` says how far the pass is.
        tick: called every few batches, where a state may be saved.
        watch_loss: called with each batch's loss, and its inputs, before its gradient.
        limit: updates of the run after which the pass ends.

    Returns:
        train/loss and, for classes, train/accuracy: means over the pass as they were when each batch came.

    Raises:
        UserError: the outputs do not fit the targets, or the loss is no scalar.
    """
    order = pass_order(run)
    sizes = batch_sizes(len(order), run.size)
    at_once = together(sizes, run.train.sample_bytes)
    if limit is not None:
        sizes = sizes[: max(0, run.position + limit - run.updates)]
    batches = list(torch.split(order[: sum(sizes)], sizes))
    weights = torch.tensor(sizes, dtype=torch.float64, device=run.sums.device)
    parameters = [each for group in run.optimizer.param_groups for each in group["params"]]
    classes = not run.train.targets.is_floating_point()
    run.forward.train()
    if run.settings.finetune.freeze:
        unfreeze(run.model, run.settings.finetune, run.epoch)
        hold_frozen(run.model, run.settings.finetune, run.epoch)
    context = computing(run.dtype, run.train.device)
    if run.position == 0:
        run.sums.zero_()
        run.rate = run.optimizer.param_groups[-1]["lr"]
    for first in range(run.position, len(batches), at_once):
        last = min(first + at_once, len(batches))
        inputs, targets = run.train.take(torch.cat(batches[first:last]))
        losses, guesses = [], []
        here = sizes[first:last]
        for x, y in zip(torch.split(inputs, here), torch.split(targets, here), strict=True):
            goal = y
            if run.augment is not None:
                x, goal = run.augment(x, y)
            with context:
                outputs = run.forward(x)
                if outputs.shape != (len(x), run.outputs):
                    raise _misfit(outputs, len(x), run.outputs)
                loss = run.loss(outputs, goal)
            if loss.dim():
                raise _no_scalar(loss)
            if watch_loss is not None:
                watch_loss(loss, x)
            run.optimizer.zero_grad()
            _step(run, loss, parameters)
            losses.append(loss.detach())
            guesses.append(outputs.detach())
        # Sums stay on the device, a few batches at a time: reading a number each step makes a GPU wait.
        run.sums[0] += torch.stack(losses).double() @ weights[first:last]
        if classes:
            run.sums[1] += (torch.cat(guesses).argmax(1) == targets).sum()
        run.position = last
        tick()
    seen = max(1, sum(sizes))
    total, right = run.sums.tolist()
    return {"train/loss": total / seen} | ({"train/accuracy": right / seen} if classes else {})


def _step(run: Run, loss: Tensor, parameters: list[Any]) -> None:
    """Change the weights by one batch's gradient, and the rate as its schedule says."""
    clip = run.settings.optimizer.clip
    if run.scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            clip_grad_norm_(parameters, clip)
        run.optimizer.step()
    else:
        run.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        if clip is not None:
            run.scaler.unscale_(run.optimizer)
            clip_grad_norm_(parameters, clip)
        run.scaler.step(run.optimizer)
        run.scaler.update()
    run.updates += 1
    if run.schedule is not None:
        run.schedule.step()


def pass_order(run: Run) -> Tensor:
    """Return the samples of a run's next pass in their order: (m,) int64 on the CPU."""
    seed = ((run.settings.seed << 20) + (run.fold << 44) + run.epoch + 1) % 2**63
    shuffle = torch.Generator().manual_seed(seed)
    if run.settings.balance == "none":
        return torch.randperm(len(run.train), generator=shuffle)
    if run.train.targets.is_floating_point():
        raise UserError("values have no classes to balance", key="balance", hint="Say none")
    return epoch_order(run.train.targets.cpu(), run.settings.balance, shuffle)


@torch.inference_mode()
def predict_outputs(forward: Callable[[Tensor], Tensor], part: Samples, dtype: torch.dtype | None) -> Tensor:
    """Return float32 outputs (n, outputs) for a part's inputs, on its device; the model is in eval mode."""
    size = EVALUATION_BATCH_CPU if part.device.type == "cpu" else EVALUATION_BATCH_GPU
    with computing(dtype, part.device):
        return torch.cat([forward(piece) for piece in part.pieces(size)]).float()


def _misfit(outputs: Any, batch: int, wanted: int) -> UserError:
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    what = "one for each class" if wanted > 1 else "one value"
    return UserError(
        f"for {batch} samples the model gives {shape}, not ({batch}, {wanted}): {what}", key="model.target"
    )


def _no_scalar(loss: Tensor) -> UserError:
    return UserError(
        f"the loss of a batch has shape {tuple(loss.shape)}, not one number",
        key="loss",
        hint="Return its mean",
    )
