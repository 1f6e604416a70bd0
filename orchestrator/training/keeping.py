"""What a training leaves on disk: its model at chosen moments, the best one, and a state to go on from."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from orchestrator.sweep.kept import GB, clear_torn
from orchestrator.training import checkpoints
from orchestrator.training.moments import Moments, moments
from orchestrator.training.process_states import process_states
from orchestrator.training.room import check_room
from orchestrator.training.stopping import GO_ON
from orchestrator.training.training import Training


def kept_moments(training: Training) -> Moments:
    """Return when this training's model is kept.

    Raises:
        UserError: a moment that means nothing, or that it never has.
    """
    run = training.runs[0]
    switched_at = run.switch.switched_at if run.switch is not None else None
    return moments(training.settings, run.epoch_updates, switched_at)


def begin_keeping(training: Training) -> None:
    """Refuse, before any epoch, moments that never come and a share of the disk that is too small.

    Raises:
        UserError: with the key to change.
    """
    wanted, disk_gb = kept_moments(training), getattr(training.trial, "disk_gb", None)
    if training.runs[0].peers.leads:
        clear_torn(training.trial.checkpoint_dir)
    if wanted.any and disk_gb is not None:
        check_room(training.runs[0], training.settings.stopping.then, disk_gb * GB)


def keep_epoch(training: Training, better: bool, over: bool) -> None:
    """Write what an epoch leaves behind: its model as a member, and a state to go on from when it is due.

    Args:
        training: after the epoch.
        better: it is the best so far.
        over: it is the last one.
    """
    wanted, epoch, folder = kept_moments(training), training.epoch, training.trial.checkpoint_dir
    leads = training.runs[0].peers.leads
    if wanted.any and better:
        if leads:
            checkpoints.save_member(folder / "best.pt", training.runs[0].model, epoch)
        if training.settings.stopping.then == GO_ON:
            save_state(training, folder / "best-state.pt")
    kept = epoch in wanted.epochs or (over and wanted.last)
    if kept and leads:
        path = folder / f"epoch-{epoch:04d}.pt"
        checkpoints.save_member(path, training.runs[0].model, epoch)
        training.trial.keep(path, epoch)
    if kept:
        training.kept.add(epoch)
    # After `keep`: a run that dies in between offers the same checkpoint again instead of never.
    if save_due(training) or kept:
        save_state(training, training.last)


def keep_best(training: Training) -> None:
    """Offer the best epoch's model, where that is wanted or nothing else was kept, if it is not kept yet."""
    assert training.best.metrics is not None, "training did not diverge"
    if not training.runs[0].peers.leads:
        return
    wanted, best = kept_moments(training), int(training.best.metrics["best_epoch"])
    folder = training.trial.checkpoint_dir
    # It may have been dropped for want of room.
    there = best in training.kept and (folder / f"epoch-{best:04d}.pt").is_file()
    if wanted.any and (wanted.best or not training.kept) and not there:
        training.trial.keep(folder / "best.pt", best, best=True)


def save_due(training: Training) -> bool:
    """Say whether a state is to be written by now, by the clock of process 0."""
    due = time.monotonic() - training.saved >= training.settings.save_seconds
    return training.runs[0].peers.all_do(due)


def save_state(training: Training, path: Path) -> None:
    """Write everything that a trial needs to be taken up again; process 0 writes what all of them have."""
    first = training.runs[0]
    processes = process_states(first)
    training.saved = time.monotonic()
    if not first.peers.leads:
        return
    content = {
        "fingerprint": training.fingerprint,
        "batch_size": first.size,
        "phase": training.phase,
        "epoch": training.epoch,
        "reported": training.reported,
        "best": training.best.state_dict(),
        "kept": sorted(training.kept),
        "plateaus": [asdict(each) for each in training.plateaus],
        "target": training.target,
        "runs": [run.state_dict() for run in training.runs],
        "processes": processes,
    }
    checkpoints.save(path, content)


def saved_state(path: Path, fingerprint: str, device: torch.device) -> dict[str, Any] | None:
    """Return a saved state of the same settings; None where it is missing, damaged or another one."""
    if not path.exists():
        return None
    try:
        state = checkpoints.load(path, device)
    except checkpoints.UnreadableCheckpoint:
        return None
    return state if state.get("fingerprint") == fingerprint else None
