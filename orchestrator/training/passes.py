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
from orchestrator.training.batching import Samples, Shares, batch_sizes, share_of, shares, together
from orchestrator.training.finetune import hold_frozen, unfreeze
from orchestrator.training.global_norm import left_out
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
    parts = shares(list(torch.split(order[: sum(sizes)], sizes)), run.peers)
    run.forward.train()
    if run.settings.finetune.freeze:
        unfreeze(run.model, run.settings.finetune, run.epoch)
        hold_frozen(run.model, run.settings.finetune, run.epoch)
    if run.position == 0:
        run.sums.zero_()
        run.rate = run.optimizer.param_groups[-1]["lr"]
    for first in range(run.position, len(sizes), at_once):
        last = min(first + at_once, len(sizes))
        _train_batches(run, parts, first, last, watch_loss)
        run.position = last
        tick()
    # What a module of the user's own keeps count of may differ from process to process.
    run.peers.lead(list(run.model.buffers()))
    seen = max(1, sum(sizes))
    total, right = run.peers.total(run.sums).tolist()
    classes = not run.train.targets.is_floating_point()
    return {"train/loss": total / seen} | ({"train/accuracy": right / seen} if classes else {})


def _train_batches(
    run: Run,
    parts: Shares,
    first: int,
    last: int,
    watch_loss: Callable[[Tensor, Tensor], object] | None,
) -> None:
    """Take the batches from `first` to before `last` of a pass, and add up what they gave."""
    rows, seen, factors = parts.rows[first:last], parts.seen[first:last], parts.factors[first:last]
    here = [len(each) for each in rows]
    inputs, targets = run.train.take(torch.cat(list(rows)))
    parameters = [each for group in run.optimizer.param_groups for each in group["params"]]
    context = computing(run.dtype, run.train.device)
    losses, guesses = [], []
    pieces = zip(torch.split(inputs, here), torch.split(targets, here), rows, seen, factors, strict=True)
    for x, y, own, count, factor in pieces:
        goal = y if run.goals is None else run.goals(y, own)
        if run.augment is not None:
            x, goal = run.augment(x, goal)
        with context if count else left_out(run.model, context):
            outputs = run.forward(x)
            if outputs.shape != (len(x), run.outputs):
                raise _misfit(outputs, len(x), run.outputs)
            loss = run.loss(outputs, goal)
        if loss.dim():
            raise _no_scalar(loss)
        if watch_loss is not None:
            watch_loss(loss, x)
        run.optimizer.zero_grad()
        _step(run, loss if run.peers.alone else loss * factor, parameters)
        losses.append(loss.detach())
        guesses.append(outputs.detach())
    # Sums stay on the device, a few batches at a time: reading a number each step makes a GPU wait.
    counts = torch.tensor(seen, dtype=torch.float64, device=run.sums.device)
    run.sums[0] += torch.stack(losses).double() @ counts
    if not targets.is_floating_point():
        right = torch.cat(guesses).argmax(1) == targets
        if 0 in seen:
            right &= torch.repeat_interleave(counts > 0, torch.tensor(here, device=counts.device))
        run.sums[1] += right.sum()


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


def outputs_for(run: Run, part: Samples) -> Tensor:
    """Return logits or values of a run's model for a part, without dropout: (n, outputs) float32.

    Of several processes each computes its share, and all of them get the whole.
    """
    run.forward.eval()
    share, sizes = (part, [len(part)]) if run.peers.alone else share_of(part, run.peers)
    outputs = predict_outputs(run.forward, share, run.dtype) if len(share) else _none(run)
    return run.peers.whole(outputs, sizes) * run.logit_scale


@torch.inference_mode()
def predict_outputs(forward: Callable[[Tensor], Tensor], part: Samples, dtype: torch.dtype | None) -> Tensor:
    """Return float32 outputs (n, outputs) for a part's inputs, on its device; the model is in eval mode."""
    size = EVALUATION_BATCH_CPU if part.device.type == "cpu" else EVALUATION_BATCH_GPU
    with computing(dtype, part.device):
        return torch.cat([forward(piece) for piece in part.pieces(size)]).float()


def _none(run: Run) -> Tensor:
    return torch.empty((0, run.outputs), device=run.train.device)


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
