"""What runs in a trial's own process: the user's function, between a config and a pipe."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import StopTrial
from orchestrator.planning.plan import Phase
from orchestrator.sweep.directory import ENSEMBLE, SweepDirectory, TrialSpec

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from orchestrator.schema import SweepConfig
    from orchestrator.worker.rungs import Rungs

# Origins of trials that are run to be compared with others.
COMPARED = ("control", "repeat")


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """All that a trial's process needs to know."""

    sweep: str
    phase: Phase
    spec: TrialSpec


def run_trial(work: Work, connection: Connection) -> None:
    """Run one trial and send its lines, the last of them `return`, `stopped` or `raise`."""
    faulthandler.enable()
    # A Ctrl-C that reaches this process is somebody's wish to end it, not an exception of the user's code.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    lock = threading.Lock()

    def send(line: dict[str, Any]) -> None:
        with lock:
            connection.send(line)

    threading.Thread(target=_end_with_parent, args=(connection,), daemon=True).start()
    try:
        send({"kind": "return", "metrics": _metrics(_call(work, send))})
    except StopTrial:
        send({"kind": "stopped"})
    except BaseException as error:
        if isinstance(error, SystemExit):
            error_text = f"the training function called sys.exit({error.code!r}) before it returned"
        else:
            error_text = _traceback(error)
        send({"kind": "raise", "error": error_text})
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads and exit handlers that a user's libraries left behind can hang a process that is done.
    connection.close()
    os._exit(0)


def _call(work: Work, send: Any) -> Any:
    from orchestrator.config import load_frozen
    from orchestrator.worker.job import load_function, trial_config
    from orchestrator.worker.trial import Trial, always

    directory = SweepDirectory(Path(work.sweep))
    config = load_frozen(directory.config)
    if work.phase.kind == ENSEMBLE:
        from orchestrator.worker.ensemble import combine

        return combine(directory, config)
    checkpoints = directory.phase(work.phase.kind, work.phase.name).checkpoints(work.spec.trial_id)
    checkpoints.mkdir(parents=True, exist_ok=True)
    own = trial_config(config, work.phase, work.spec)
    rungs = _rungs(work, config, own)
    trial = Trial(
        id=work.spec.trial_id,
        stage=work.phase.name,
        params=dict(work.spec.params),
        seed=work.spec.seed,
        checkpoint_dir=checkpoints,
        send=send,
        goes_on=rungs.worth_going_on if rungs else always,
    )
    train = load_function(config.jobs._target_, "jobs._target_")
    return train(own, trial)


def _rungs(work: Work, config: SweepConfig, own: DictConfig) -> Rungs | None:
    """Return what judges a trial on its way; None where its stage prunes nothing."""
    # What runs for comparison is of use only when it runs to its end.
    if not work.phase.prune or work.spec.origin in COMPARED:
        return None
    from omegaconf import OmegaConf

    from orchestrator.worker.rungs import Rungs

    place = config.jobs.scale.get("epochs")
    epochs = OmegaConf.select(own, place) if place else None
    return Rungs(
        records=SweepDirectory(Path(work.sweep)).phase(work.phase.kind, work.phase.name).records,
        trial=work.spec.trial_id,
        metric=config.metric.name,
        sign=1 if config.metric.mode == "max" else -1,
        eta=work.phase.prune,
        epochs=int(epochs) if isinstance(epochs, int | float) and epochs >= 1 else None,
    )


def _metrics(returned: Any) -> Any:
    """Make what a function returned fit to be sent; what is no mapping is described, not sent."""
    from orchestrator.worker.trial import as_number

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


def _end_with_parent(connection: Connection) -> None:
    """End this process when the task that started it is gone, however it went."""
    try:
        connection.recv()
    except (EOFError, OSError):
        os._exit(1)
