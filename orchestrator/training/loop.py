"""The training loop: pass after pass, each measured on validation data, reported and from time to time saved.

Several folds are trained side by side, pass by pass, and reported as one. A run that was stopped anywhere and
continued has the same bits as one that was not (on a CPU with the same number of threads).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.training import checkpoints
from orchestrator.training.batching import Samples, joined
from orchestrator.training.distributed import report
from orchestrator.training.keeping import (
    begin_keeping,
    keep_best,
    keep_epoch,
    kept_moments,
    save_due,
    save_state,
)
from orchestrator.training.metrics import measure, names, plain_loss, selected
from orchestrator.training.passes import outputs_for, train_pass
from orchestrator.training.plateau import look_for_plateau, tell_end
from orchestrator.training.process_states import restore_process
from orchestrator.training.randomness import capture, restore
from orchestrator.training.run import Run
from orchestrator.training.stopping import GO_ON, RETRAIN, Plateau, is_over
from orchestrator.training.training import DONE, TRAIN, Training

# Within a long pass a trial shows so often that it is at work.
ALIVE_SECONDS = 30.0


def fit(training: Training, state: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Train to the end, from a saved state where there is one.

    Reports `metrics.names(task)` and lr after each epoch, with the epoch (from 1) as step.

    Args:
        training: as it begins.
        state: what `saved_state` gave.

    Returns:
        The metrics of the best epoch by `settings.select` (of equals, the one with the lowest validation
        loss), and `best_epoch`. All NaN, and no further epoch, where a loss is not finite.

    Raises:
        StopTrial: the trial was abandoned in `report`.
    """
    if state is not None:
        take_up(training, state)
    if training.phase == TRAIN:
        begin_keeping(training)
        watch = _watch(training)
        try:
            converged = _train(training, watch)
        finally:
            if watch is not None:
                watch.close()
        if not converged:
            return dict.fromkeys((*names(training.task), *training.extra, "best_epoch"), math.nan)
        keep_best(training)
        tell_end(training)
        _begin_continuation(training)
    if training.phase in (RETRAIN, GO_ON):
        _continue(training)
    assert training.best.metrics is not None, "at least one epoch was measured"
    return {**training.best.metrics, **training.extra}


def _train(training: Training, watch: Any) -> bool:
    """Train until the epochs are used up or patience ends; False where training diverged."""
    settings, runs = training.settings, training.runs
    name = selected(settings.select, training.task)
    over = is_over(settings.stopping, training.best, training.epoch)
    while training.epoch < settings.epochs and not over:
        epoch = training.epoch + 1
        for run in runs:
            if run.epoch < epoch:
                _advance(training, run, watch if run is runs[0] else None)
        metrics = {key: sum(run.metrics[key] for run in runs) / len(runs) for key in runs[0].metrics}
        rate = metrics.pop("lr")
        training.epoch = training.reported = epoch
        if watch is not None:
            watch.epoch(metrics)
        report(runs[0].peers, training.trial, epoch, {**metrics, "lr": rate, **training.extra})
        if not (math.isfinite(metrics["train/loss"]) and math.isfinite(metrics["val/loss"])):
            return False
        better = training.best.see(epoch, metrics, runs[0].updates, name, settings.stopping.min_gain)
        look_for_plateau(training)
        over = is_over(settings.stopping, training.best, epoch)
        keep_epoch(training, better, over or epoch == settings.epochs)
    return True


def _advance(training: Training, run: Run, watch: Any) -> None:
    """Take a run through one pass and measure it."""
    alone = len(training.runs) == 1
    device = run.train.device
    if not alone and run.random is not None:
        restore(run.random, device)
    run.random = None
    metrics = train_pass(run, lambda: _tick(training, run), None if watch is None else watch.loss)
    outputs = outputs_for(run, run.validation)
    metrics = run.peers.agreed(lambda: metrics | measure(outputs, run.validation.targets, run.deviation))
    run.metrics = {**metrics, "lr": run.rate}
    before = run.optimizer
    run.end_epoch(metrics["val/loss"])
    if watch is not None and run.optimizer is not before:
        watch.follow(run.optimizer)
    if not alone:
        run.random = capture(device)


def _begin_continuation(training: Training) -> None:
    """Turn to training on all data, where that is wanted and its model is kept.

    It changes no metric of the trial, so a trial that keeps no checkpoint need not do it.
    """
    then, run = training.settings.stopping.then, training.runs[0]
    if not kept_moments(training).any or then not in (RETRAIN, GO_ON):
        training.phase = DONE
        return
    before = run.train
    run = training.runs[0] = _on_everything(training)
    training.phase, training.epoch = then, 0
    if then == GO_ON:
        path = training.trial.checkpoint_dir / "best-state.pt"
        state = run.peers.agreed(lambda: checkpoints.load(path, run.train.device))
        run.load_state_dict(state["runs"][0])
        restore_process(state, run)
        training.target = _plain_loss(run, before)
    save_state(training, training.last)


def _on_everything(training: Training) -> Run:
    """Return the first run as it began, with the validation data among its training samples."""
    run = training.build(training.runs[0].fold)
    return replace(run, train=joined(run.train, run.validation))


def _continue(training: Training) -> None:
    """Train on training and validation data together, and write the model as `all-data.pt`.

    It is no member for the ensemble: members are chosen by what they predict for the validation data, which
    this model has seen. A schedule or switch that goes by the validation loss goes by the training loss here.
    """
    run = training.runs[0]
    limit = training.best.updates if training.phase == RETRAIN else None
    while _goes_on(training, run):
        metrics = train_pass(run, lambda: _tick(training, run), None, limit)
        run.end_epoch(metrics["train/loss"])
        training.epoch, training.reported = training.epoch + 1, training.reported + 1
        report(run.peers, training.trial, training.reported, {**metrics, "lr": run.rate, **training.extra})
        if not math.isfinite(metrics["train/loss"]):
            break
        _save_when_due(training)
    if run.peers.leads:
        checkpoints.save_member(training.trial.checkpoint_dir / "all-data.pt", run.model, run.epoch)
    training.phase = DONE
    save_state(training, training.last)


def _goes_on(training: Training, run: Run) -> bool:
    """Say whether the continuation takes another pass: algorithms 7.2 and 7.3."""
    if training.phase == RETRAIN:
        return run.updates < training.best.updates
    if run.epoch >= training.settings.epochs:
        return False
    if run.position:
        return True
    return not _plain_loss(run, run.validation) < training.target


def _plain_loss(run: Run, part: Samples) -> float:
    """Return the loss of a run's model on a part, as `val/loss` is measured."""
    outputs = outputs_for(run, part)
    return run.peers.agreed(lambda: plain_loss(outputs, part.targets).item())


def _tick(training: Training, run: Run) -> None:
    """Within a pass: save, and show that the trial is at work, where that is due."""
    now = time.monotonic()
    if save_due(training):
        if len(training.runs) > 1:
            run.random = capture(run.train.device)
        save_state(training, training.last)
    if now - training.shown >= ALIVE_SECONDS:
        training.shown = now
        alive = getattr(training.trial, "alive", None)
        if alive is not None:
            alive()


def _save_when_due(training: Training) -> None:
    if save_due(training):
        save_state(training, training.last)


def take_up(training: Training, state: Mapping[str, Any]) -> None:
    """Put a training that has just been built where a saved one was."""
    training.phase, training.epoch, training.reported = state["phase"], state["epoch"], state["reported"]
    training.target = state["target"]
    training.best.load_state_dict(state["best"])
    training.kept = set(state.get("kept", ()))
    training.plateaus = [Plateau(**each) for each in state.get("plateaus", ())]
    if training.phase != TRAIN:
        training.runs = [_on_everything(training)]
    for run, saved in zip(training.runs, state["runs"], strict=True):
        run.load_state_dict(saved)
    restore_process(state, training.runs[0])


def _watch(training: Training) -> Any:
    """Let the trial watch the first run, where it can."""
    begin, run = getattr(training.trial, "watch", None), training.runs[0]
    if begin is None or not run.peers.leads:
        return None
    # Of several processes' wrapper nothing needs to be known; of a compiler's that it is there.
    whole = run.peers.alone or run.settings.compile
    return begin(run.forward if whole else run.model, run.optimizer)
