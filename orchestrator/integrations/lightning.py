"""PyTorch Lightning in a trial: a callback that reports and stops, a place for checkpoints, and taking up.

Nothing is written or put back into the queue by a signal handler: Lightning's own, which are active on SLURM,
save within the handler and requeue the job beside the sweep's own bookkeeping. Here a request to end ends the
process at once, as it does every trial's, and the trial goes on from its last whole checkpoint.

Imports `lightning` 2.x, or `pytorch_lightning` where the training function has imported that one.
"""

from __future__ import annotations

import importlib
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from orchestrator.integrations.lightning_trainer import (
    package,
    place_checkpoints,
    requeue_nothing,
    trainer_options,
)
from orchestrator.integrations.reporting import EPOCHS, Members, Reporter, newest_whole, numbers_of

if TYPE_CHECKING:
    from orchestrator.worker.trial import Trial

__all__ = ["ReportCallback", "resume_from", "trainer_options"]

# Below the checkpoint_dir: states to go on from, and what is kept for the ensemble.
STATES, MEMBERS = "lightning", "members"
# How a cluster or a terminal asks a process to end; Lightning takes these for its own.
_REQUESTS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


_Callback: Any = importlib.import_module(package()).Callback


class ReportCallback(_Callback):  # type: ignore[misc]
    """Reports what is measured, stops an abandoned trial, and sees to its checkpoints.

    After each validation the metrics that it logged are reported, and after each epoch those of training
    (`self.log(..., on_epoch=True)` in `training_step`), by the main process. The check of the validation
    before training is not. A trial that is abandoned ends its training in an orderly way
    (`trainer.should_stop`), and then `trainer.fit` raises StopTrial: let it pass through.

    A ModelCheckpoint without a place of its own writes into the trial's `checkpoint_dir`; where none keeps
    the latest state one is added, unless checkpoints are switched off (`enable_checkpointing=False`).

    In a final run the model is kept for the ensemble at the moments of `final.checkpoints`, as
    `members/epoch-0042.ckpt` with weights alone; `best` is the best of a ModelCheckpoint with `monitor`.

    Args:
        trial: as the training function was given it.
        names: what a metric is called in the sweep, by the name that it is logged with.
        count: what steps of the learning curve count: `epochs` that are over, or `steps` of the optimizer.
            None: epochs, where validation is at their ends. A stage that prunes counts in epochs.

    Raises:
        UserError: there is no such count, or `final.checkpoints` has a moment that Lightning does not know.
    """

    def __init__(
        self, trial: Trial, names: Mapping[str, str] | None = None, *, count: str | None = None
    ) -> None:
        super().__init__()
        self._trial, self._told = trial, Reporter(trial, names, count)
        self._members = Members(trial, "Lightning")
        self._before: dict[str, Any] = {}
        # Names of what validation measures, and what was measured and is not reported yet, with its step.
        self._measured: set[str] = set()
        self._pending: tuple[int, dict[str, float]] | None = None
        self._handlers: dict[int, Any] = {}

    @property
    def last(self) -> dict[str, float]:
        """The latest value of every metric that was reported, also before the trial was taken up again."""
        return dict(self._told.last)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Remember who handles signals, and give checkpoints a place before ModelCheckpoint chooses one."""
        self._handlers = {number: signal.getsignal(number) for number in _REQUESTS}
        if stage != "fit":
            return
        requeue_nothing(trainer)
        place_checkpoints(trainer, self._trial.checkpoint_dir / STATES)

    def on_sanity_check_start(self, trainer: Any, pl_module: Any) -> None:
        """Give the signals back."""
        self._release_signals(trainer)

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Give the signals back."""
        self._release_signals(trainer)

    def on_predict_start(self, trainer: Any, pl_module: Any) -> None:
        """Give the signals back."""
        self._release_signals(trainer)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Give the signals back, and report what an earlier attempt had measured and not reported."""
        self._release_signals(trainer)
        self._report(trainer)

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """End a training that goes on although it was told to stop (`min_epochs`, `min_steps`).

        Raises:
            StopTrial: the trial was abandoned.
        """
        self._told.raise_stop()

    def on_train_batch_end(self, *_: Any, **__: Any) -> None:
        """Show that the trial is at work."""
        self._told.alive()

    def on_validation_batch_end(self, *_: Any, **__: Any) -> None:
        """Show that the trial is at work."""
        self._told.alive()

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the metrics that are not of this validation; give the signals back where it is alone."""
        self._release_signals(trainer)
        self._before = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        """Report what the validation has measured; at the end of an epoch together with that of training."""
        new = self._new(trainer)
        self._measured |= new.keys()
        if _is_fitting(trainer):
            self._pending = self._step(trainer), numbers_of(_without_parts(new))
            if not (trainer.is_last_batch or self._by_epochs(trainer)):
                self._report(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Remember the metrics that are not of this epoch."""
        self._before = dict(trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Report what training has measured, and keep the model where that is wanted."""
        new = self._new(trainer)
        # Whoever asks for metrics after a validation makes its own look new.
        trained = _without_parts({name: new[name] for name in new.keys() - self._measured})
        step, measured = self._pending or (self._step(trainer), {})
        self._pending = step, {**measured, **numbers_of(trained)}
        self._report(trainer)
        epoch = trainer.current_epoch + 1
        if self._told.stopped is None and self._members.due(epoch, trainer.max_epochs or -1):
            path = self._trial.checkpoint_dir / MEMBERS / f"epoch-{epoch:04d}.ckpt"
            trainer.save_checkpoint(path, weights_only=True)
            self._trial.keep(path, self._step(trainer))

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Keep the best model, where that is wanted and something has watched for it."""
        self._tell()
        if self._told.stopped is not None or not self._members.best or not self._trial.leads:
            return
        for each in trainer.checkpoint_callbacks:
            best = Path(getattr(each, "best_model_path", None) or "")
            if getattr(each, "monitor", None) and best.is_file() and self._is_own(best):
                # Of what it holds nothing is read but when it was written.
                saved = torch.load(best, map_location="cpu", mmap=True, weights_only=False)
                step = saved["epoch"] + 1 if self._by_epochs(trainer) else saved["global_step"]
                self._trial.keep(best, step, best=True)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """End the trial where it was abandoned.

        Raises:
            StopTrial: it was.
        """
        if stage == "fit":
            self._told.raise_stop()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint remembers: a trial that is taken up after its last epoch has a result."""
        return {"last": self.last, "pending": self._pending}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what a checkpoint remembered."""
        self._told.last.update(state_dict.get("last", {}))
        self._pending = state_dict.get("pending")

    def _new(self, trainer: Any) -> dict[str, Any]:
        """Return the metrics that were computed since they were last remembered."""
        now = trainer.callback_metrics
        return {name: value for name, value in now.items() if self._before.get(name) is not value}

    def _report(self, trainer: Any) -> None:
        """Report what is pending, and stop all processes where the trial is abandoned."""
        self._tell()
        if trainer.strategy.reduce_boolean_decision(self._told.stopped is not None, all=False):
            trainer.should_stop = True

    def _tell(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            self._told.report(*pending)

    def _step(self, trainer: Any) -> int:
        return int(trainer.current_epoch + 1 if self._by_epochs(trainer) else trainer.global_step)

    def _by_epochs(self, trainer: Any) -> bool:
        """Say whether the learning curve counts epochs."""
        at_ends = trainer.check_val_every_n_epoch is not None and trainer.val_check_interval == 1.0
        return at_ends if self._told.count is None else self._told.count == EPOCHS

    def _release_signals(self, trainer: Any) -> None:
        """Undo what Lightning has set: a request ends the process at once, and no handler writes anything."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number, handler in self._handlers.items():
            if handler is not None:  # one that was not set by Python can't be
                signal.signal(number, handler)
        if trainer.received_sigterm:
            # It came in between, and Lightning would go on to the end of a batch.
            signal.raise_signal(signal.SIGTERM)

    def _is_own(self, path: Path) -> bool:
        return path.resolve().is_relative_to(self._trial.checkpoint_dir.resolve())


def resume_from(trial: Trial) -> str | None:
    """Return the newest whole checkpoint, for `trainer.fit(..., ckpt_path=...)`; None at the trial's start.

    All below the trial's `checkpoint_dir` counts but what is kept for the ensemble. What a killed process had
    not written to its end is passed over: Lightning writes to a temporary folder first, and from there to
    another disk not all at once.
    """
    paths = trial.checkpoint_dir.rglob("*.ckpt")
    found = newest_whole(path for path in paths if path.parent.name != MEMBERS)
    return None if found is None else str(found)


def _is_fitting(trainer: Any) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _without_parts(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out a metric's value of the last step, and the second name of that of the epoch."""
    parts = {f"{name}_{part}" for name in metrics for part in ("step", "epoch")}
    return {name: value for name, value in metrics.items() if name not in parts}
