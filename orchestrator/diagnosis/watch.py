"""A watch on any PyTorch training: a few hooks, cheap enough to be always on.

The loss is taken at every update; layers, gradients and weights are looked at only at sampled updates: 1, 4,
16 and so on, and at most every `EVERY`th. On a GPU no update is waited for but the first ones and every
`FLUSH`th. A watch draws no random numbers and changes nothing: a training has the same bits with and without.

What runs at every update is kept short on purpose: next to a small network, each line of Python shows.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from orchestrator.diagnosis import curves, detail, origin, samples
from orchestrator.diagnosis.finding import LR_TOO_SMALL, RATIO_LOW, Finding
from orchestrator.diagnosis.losses import Losses
from orchestrator.diagnosis.probe import Probe
from orchestrator.errors import UserError

EVERY = 512
# Losses on a GPU are read one by one for so many updates, and then so many at once.
PROMPT, FLUSH = 64, 32
# Samples whose predictions are followed, and the updates from one look at them to the next, at least.
FIXED, APART = 16, 96
SLOW = (LR_TOO_SMALL, RATIO_LOW)
# Epochs that are remembered; a training that reports more often than that is thinned.
MOST_EPOCHS = 1000


def _harmless(method: Callable[..., None]) -> Callable[..., None]:
    """Turn the watch off, saying so, where it fails: no training ends because of it."""

    @functools.wraps(method)
    def guarded(watch: Watch, *args: Any) -> None:
        if watch.on:
            try:
                method(watch, *args)
            except Exception as error:
                watch.stop()
                print(f"the diagnosis is off: {type(error).__name__}: {error}", file=sys.stderr)

    return guarded


class Watch:
    """Watches one training, from its making until `close`.

    Args:
        model: called once for each update, or more often where gradients are accumulated.
        optimizer: of the model; after a change of optimizers see `follow`.
        send: takes each finding when the watch is closed.
        folder: where `diagnosis.json` goes; None: nothing is written.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        send: Callable[[Finding], object] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.on = True
        self.losses = Losses()
        self.ratios: list[tuple[int, Mapping[str, float]]] = []
        self.epochs: list[dict[str, float]] = []
        self.flips: list[float] = []
        self.updates = 0
        self._send, self._folder = send, folder
        # What compiles or distributes a model is passed by: it would compile, or wait for others, again.
        compiled = getattr(model, "_orig_mod", model)
        inner = getattr(compiled, "module", compiled)
        self._model: nn.Module = inner if isinstance(inner, nn.Module) else model
        self._probe = Probe(self._model, hooked=inner is model, detailed=folder is not None)
        # The last call of the model, and its first samples at the first update.
        self._calls: dict[object, tuple[Any, ...]] = {}
        self._named: dict[str, Any] = {}
        self._fixed: origin.Call | None = None
        self._autocast: tuple[str, torch.dtype] | None = None
        self._predicted: Tensor | None = None
        self._looked = -APART
        self._sampled = 1
        # Whether the training began here; False where it was taken up again.
        self._fresh = True
        # Whether the loop calls `epoch`; otherwise reports stand for it.
        self._told = False
        self._nan: Finding | None = None
        self._values: list[float] = []
        self._pending: list[Tensor] = []
        self._findings: tuple[Finding, ...] | None = None
        self._forward = model.register_forward_pre_hook(self._first_forward, with_kwargs=True)
        self._listening = True
        self._steps: list[RemovableHandle] = []
        self.follow(optimizer)

    def follow(self, optimizer: Optimizer) -> None:
        """Go on with another optimizer in place of the one before."""
        for handle in self._steps:
            handle.remove()
        self._optimizer = optimizer
        self._steps.clear()
        if self.on:
            self._steps.append(optimizer.register_step_post_hook(self._after_step))
            self._await_sample()

    def loss(self, loss: Tensor | float, *inputs: Any) -> None:
        """Take the loss of an update, before its backward pass.

        Args:
            loss: one number.
            inputs: what the model was called with. Where they are given the model's calls need not be
                listened to, which is a third of what a watch costs next to a small network.

        Raises:
            UserError: it is not one number.
        """
        if inputs:
            self._calls[None] = inputs
            if self._listening:
                self._listening = False
                self._forward.remove()
        if isinstance(loss, Tensor):
            if loss.is_cuda and self.updates >= PROMPT:
                self._queue(loss)
                return
            try:
                value = loss.item()
            except RuntimeError:
                raise UserError(
                    f"the loss has shape {tuple(loss.shape)}, and should be one number", hint="Take its mean"
                ) from None
        else:
            value = float(loss)
        self._values.append(value)
        # Of a number that is not finite this is NaN.
        if value - value != 0:
            self._broke(loss)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of an epoch, such as train/loss and val/accuracy."""
        if not self._told:
            self._told = True
            self.epochs.clear()
        self._epoch(metrics)

    def reported(self, metrics: Mapping[str, float]) -> None:
        """Take what a trial reported, where its loop never calls `epoch`."""
        if not self._told:
            self._epoch(metrics)

    def close(self) -> tuple[Finding, ...]:
        """Take the hooks away, judge, and send what was found; once is enough."""
        if self._findings is None:
            self._findings = ()
            self._conclude()
            self.stop()
        return self._findings

    def stop(self) -> None:
        """Take the hooks away, and with them all hold on batches."""
        self.on = False
        for handle in (self._forward, *self._steps):
            handle.remove()
        self._steps.clear()
        self._probe.detach()
        self._calls.clear()
        self._pending.clear()
        self._fixed = self._predicted = None

    def judge(self) -> tuple[Finding, ...]:
        """Return what is found of all that was seen so far."""
        typical = samples.typical_ratio(self.ratios)
        rate = curves.judge_rate(self.losses, typical, self._fresh)
        if self._nan is not None:
            return (self._nan,) if rate is None else (self._nan, rate)
        layers = samples.judge_layers(self._probe.layers, self.updates)
        # Of the rate the curve says more than the ratio.
        rate = rate or samples.judge_ratio(self.ratios)
        if rate is not None and rate.code in SLOW and (layers or not self._fresh or self._fell()):
            # Through such layers nothing is learned at any rate; and what has converged moves little.
            rate = None
        first = self.losses.first[0] if self.losses.first and self._fresh else None
        fit = curves.judge_fit(self.epochs, first, self.updates) if rate is None else None
        found = (rate, fit, *layers, samples.judge_predictions(self.flips, self.updates))
        return tuple(one for one in found if one is not None)

    def _fell(self) -> bool:
        """Say whether the loss has come down."""
        parts = self.losses.parts(8)
        return len(parts) > 1 and parts[-1] < curves.HIGH * self.losses.first[0]

    def _first_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.updates == 0 and self._fixed is None:
            self._begin(args, kwargs)
        self._calls[module], self._named = args, kwargs
        if not kwargs and self.on:
            # From now on a function of the interpreter's own remembers the call, which costs a tenth.
            self._forward.remove()
            self._forward = module.register_forward_pre_hook(self._calls.__setitem__)

    @_harmless
    def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # A training that is taken up again brings its optimizer's state along.
        self._fresh = not any(self._optimizer.state.values())
        self._fixed = (
            tuple(_some(value) for value in args),
            {name: _some(value) for name, value in kwargs.items()},
        )
        kinds = [value.device.type for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if kinds and torch.is_autocast_enabled(kinds[0]):
            self._autocast = kinds[0], torch.get_autocast_dtype(kinds[0])

    def _await_sample(self) -> None:
        """Look at the next update, where that is one to be sampled."""
        if self.updates + 1 == self._sampled and self.on:
            self._steps.append(self._optimizer.register_step_pre_hook(self._before_step))
            self._probe.attach()

    def _before_step(self, *_: object) -> None:
        self._sample_before()

    def _after_step(self, *_: object) -> None:
        self.updates += 1
        if self.updates == self._sampled:
            self._sample_after()
        elif self.updates + 1 == self._sampled:
            self._await_sample()

    @_harmless
    def _sample_before(self) -> None:
        self._probe.before_step()

    @_harmless
    def _sample_after(self) -> None:
        while len(self._steps) > 1:
            self._steps.pop().remove()
        # A ratio that is not finite says nothing of the rate.
        ratios = {name: one for name, one in self._probe.after_step().items() if math.isfinite(one)}
        if ratios:
            self.ratios.append((self.updates, ratios))
        self._sampled += min(3 * self._sampled, EVERY)
        self._take()

    @_harmless
    def _queue(self, loss: Tensor) -> None:
        self._pending.append(loss.detach())
        if len(self._pending) >= FLUSH or self.updates + 1 == self._sampled:
            self._take()

    def _take(self) -> None:
        """Take up the losses that were only put down."""
        for value in self._values:
            self.losses.add(value)
        self._values.clear()
        if self._pending:
            values = torch.stack(self._pending).tolist()
            self._pending.clear()
            for value in values:
                self.losses.add(value)
            if self.losses.broken and self._nan is None:
                self._trace(None)

    @_harmless
    def _conclude(self) -> None:
        self._take()
        self._findings = self.judge()
        for one in self._findings:
            if self._send is not None:
                self._send(one)
        if self._folder is not None:
            parts = {"layers": self._probe.described(), "weights": detail.first_layer(self._model)}
            detail.write(self._folder, findings=self._findings, flips=self.flips, **parts)

    @_harmless
    def _broke(self, loss: Tensor | float) -> None:
        self._take()
        if self._nan is None:
            self._trace(loss if isinstance(loss, Tensor) else None)

    def _trace(self, loss: Tensor | None) -> None:
        first = self.losses.first[0] if self._fresh else math.nan
        grown = None
        if self.losses.broken > 1 or not self._fresh:
            grown = abs(self.losses.last / first) if math.isfinite(first) and first else 1.0
        # What the loop gave counts before what was listened to.
        args = self._calls.get(None, next(iter(self._calls.values()), None))
        call = (args, self._named) if args is not None else None
        with origin.precision(self._autocast):
            self._nan = origin.trace(self._model, call, loss, self.losses.broken, grown)
        self._forward.remove()
        self._calls.clear()

    @_harmless
    def _epoch(self, metrics: Mapping[str, float]) -> None:
        self._take()
        # A batch of validation data, which is not to be held.
        self._calls.clear()
        given: Mapping[str, Any] = metrics
        numbers = {
            str(name): value.item() if isinstance(value, Tensor) else float(value)
            for name, value in given.items()
        }
        self.epochs.append(curves.plain(numbers))
        if len(self.epochs) > MOST_EPOCHS:
            self.epochs = self.epochs[::-2][::-1]
        if self._fixed is not None and self.updates - self._looked >= APART:
            self._looked = self.updates
            self._look(self._fixed)

    def _look(self, fixed: origin.Call) -> None:
        """Predict the fixed batch, and count the predictions that have changed."""
        with origin.evaluating(self._model), origin.precision(self._autocast):
            outputs = self._model(*fixed[0], **fixed[1])
        if not isinstance(outputs, Tensor) or outputs.dim() < 2 or outputs.shape[1] < 2:
            self._fixed = None
            return
        predicted = outputs.argmax(1)
        if self._predicted is not None:
            self.flips.append((predicted != self._predicted).float().mean().item())
        self._predicted = predicted


def _some(value: Any) -> Any:
    """Return a copy of a batch's first samples."""
    return value[:FIXED].detach().clone() if isinstance(value, Tensor) and value.dim() else value


def watch(model: nn.Module, optimizer: Optimizer, *, folder: Path | None = None) -> Watch:
    """Watch a training that is no trial's, as in a notebook; `close` returns what was found.

    Args:
        model: a module, before its first update.
        optimizer: its optimizer.
        folder: where `diagnosis.json` goes; None: nowhere.
    """
    return Watch(model, optimizer, folder=folder)
