"""What runs in a trial's own process: the user's function, between a config and a pipe."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from orchestrator.errors import CheckFailed, ProgramFailed, StopTrial
from orchestrator.planning.combining import TRAINED_HERE
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, TrialSpec
from orchestrator.sweep.facts import read_plan
from orchestrator.sweep.records import MEMORY
from orchestrator.worker.gpu import memory_taken
from orchestrator.worker.job import enter, modules, scale_values, train_function, trial_config
from orchestrator.worker.rungs import Rungs
from orchestrator.worker.shortage import out_of_disk, out_of_memory
from orchestrator.worker.trial import Trial, always, as_number

if TYPE_CHECKING:
    from orchestrator.worker.assigned import Batch

# Makes a trial's process write down the stacks of its threads; no cluster and no library of training uses it.
DUMP_SIGNAL = signal.SIGQUIT
# What runs in phases that train nothing.
_OWN_WORK = {ENSEMBLE: ("orchestrator.worker.ensemble",), CHECKS: ("orchestrator.worker.checking",)}
# Origins of trials that are run to be compared with others.
COMPARED = ("control", "repeat")


def prepare(batch: Batch, *, imports: bool) -> None:
    """Enter the snapshot, and import from it once what all trials of a batch need."""
    enter(batch.directory, read_plan(batch.directory))
    if not imports:
        return
    for module in [*_OWN_WORK.get(batch.phase.kind, ()), *modules(batch.config)]:
        # What can't be imported is said by each trial that needs it, with a traceback, as its own failure.
        with contextlib.suppress(Exception, SystemExit):
            import_module(module)


def run_trial(batch: Batch, connection: Connection, dumps: int) -> None:
    """Run the trial that it is told and send its lines, the last of them `return`, `stopped` or `raise`."""
    # Stacks go where the task finds them: it knows whose they are, and what to say of them.
    faulthandler.enable(dumps)
    faulthandler.register(DUMP_SIGNAL, dumps)
    spec: TrialSpec
    spec, environment = connection.recv()
    os.environ.update(environment)
    lock = threading.Lock()

    def send(line: dict[str, Any]) -> None:
        with lock:
            connection.send(line)

    leads = batch.place.rank == 0
    pipe = os.fstat(connection.fileno()).st_ino
    threading.Thread(target=_end_with_parent, args=(connection, pipe), daemon=True).start()
    try:
        returned = _call(batch, spec, send if leads else _nowhere)
        # What the other ranks return is theirs.
        metrics = _metrics(returned) if leads else {}
        send({"kind": "return", "metrics": metrics, "device": memory_taken()})
    except StopTrial:
        send({"kind": "stopped", "device": memory_taken()})
    except CheckFailed as failed:
        send({"kind": "raise", "error": str(failed), "cause": "", "disk": False})
    except BaseException as error:
        if isinstance(error, SystemExit):
            error_text = f"the training function called sys.exit({error.code!r}) before it returned"
        elif isinstance(error, ProgramFailed):
            error_text = str(error)
        else:
            error_text = _traceback(error)
        cause = MEMORY if out_of_memory(error) else ""
        full = out_of_disk(error)
        send({"kind": "raise", "error": error_text, "cause": cause, "disk": full, "time": time.time()})


def _call(batch: Batch, spec: TrialSpec, send: Callable[[dict[str, Any]], None]) -> Any:
    directory, config, phase = batch.directory, batch.config, batch.phase
    if phase.kind == ENSEMBLE and spec.origin not in TRAINED_HERE:
        from orchestrator.worker.ensemble import take_step

        return take_step(directory, config, phase, spec)
    if phase.kind == CHECKS:
        from orchestrator.worker.checking import look

        return look(directory, config, phase, spec)
    if phase.kind == ENSEMBLE:
        from orchestrator.worker.ensemble import as_student

        phase = as_student(directory, config, phase, spec)
    checkpoints = directory.phase(phase.kind, phase.name).checkpoints(spec.trial_id)
    checkpoints.mkdir(parents=True, exist_ok=True)
    own = trial_config(config, phase, spec)
    rungs = _rungs(batch, spec, own)
    trial = Trial(
        id=spec.trial_id,
        stage=phase.name,
        params=dict(spec.params),
        seed=spec.seed,
        checkpoint_dir=checkpoints,
        send=send,
        goes_on=rungs.worth_going_on if rungs else always,
        scale=scale_values(phase.scale, spec.seed),
        kind=phase.kind,
        disk_gb=phase.scale.disk_gb,
        leads=batch.place.rank == 0,
    )
    train = train_function(config, directory.snapshot)
    try:
        result = train(own, trial)
    finally:
        trial.end()
    if phase.kind == ENSEMBLE:
        from orchestrator.worker.ensemble import after_student

        after_student(directory, config, spec, own, checkpoints)
    return result


def _rungs(batch: Batch, spec: TrialSpec, own: DictConfig) -> Rungs | None:
    """Return what judges a trial on its way; None where its stage prunes nothing."""
    # What runs for comparison is of use only when it runs to its end.
    config, phase = batch.config, batch.phase
    if not phase.prune or spec.origin in COMPARED:
        return None
    place = config.jobs.scale.get("epochs")
    epochs = OmegaConf.select(own, place) if place else None
    return Rungs(
        records=batch.directory.phase(phase.kind, phase.name).records,
        trial=spec.trial_id,
        metric=config.metric.name,
        sign=1 if config.metric.mode == "max" else -1,
        eta=phase.prune,
        epochs=int(epochs) if isinstance(epochs, int | float) and epochs >= 1 else None,
    )


def _nowhere(line: dict[str, Any]) -> None:
    """Drop a line: where several processes train one trial, the records are rank 0's."""


def _metrics(returned: Any) -> Any:
    """Make what a function returned fit to be sent; what is no mapping is described, not sent."""
    if not hasattr(returned, "items"):
        return None if returned is None else f"{type(returned).__name__} {returned!r:.80}"
    return {str(name): as_number(name, value) for name, value in returned.items()}


def _traceback(error: BaseException) -> str:
    """Return a traceback that begins in the user's code, not in ours."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(Path(__file__).parent)
    theirs = [frame for frame in frames if not frame.filename.startswith(own)] or list(frames)
    lines = traceback.format_list(theirs[-12:]) + traceback.format_exception_only(error)
    return "".join(lines).strip()


def _end_with_parent(connection: Connection, pipe: int) -> None:
    """End this process when the task that started it is gone, however it went; `pipe` is the inode."""
    try:
        connection.recv()
    except (EOFError, OSError):
        if not _is_open(connection, pipe):
            # The training function has closed what is not its own: the trial fails when it returns.
            return
        if os.getpgrp() == os.getpid():
            # What it has started would run on, and write into its folder beside the next attempt.
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _is_open(connection: Connection, pipe: int) -> bool:
    """Say whether a connection's number still stands for its pipe, and not for nothing or another file."""
    try:
        return os.fstat(connection.fileno()).st_ino == pipe
    except OSError:
        return False
