"""How a trial ended: its state and an error for a person to read, from its last line and its exit status."""

from __future__ import annotations

import math
import re
import signal
import time
from dataclasses import dataclass, field
from typing import Any

from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, HUNG, MEMORY, PRUNED

# How a cluster, a terminal or an administrator asks processes to end, a job step's all at once: a trial that
# ends so has not failed, whether or not its task outlives it.
ENDED_FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGUSR1, -signal.SIGUSR2}
_INNERMOST = 3


@dataclass(frozen=True, slots=True)
class Ending:
    """What an outcome line says of how a trial ended."""

    state: str
    metrics: dict[str, float] = field(default_factory=dict)
    error: str = ""
    cause: str = ""


def judge(last: dict[str, Any], exitcode: int | None, metric: str, stack: str = "") -> Ending:
    """Say how a trial ended.

    Args:
        last: the last line its process sent, empty when there was none.
        exitcode: of the process, negative for a signal.
        metric: the sweep's metric, which the function must return.
        stack: what it dumped when it died.
    """
    kind = last.get("kind")
    if kind == "stopped":
        return Ending(PRUNED)
    if kind == "raise":
        return Ending(FAILED, error=last["error"], cause=last.get("cause", ""))
    if kind != "return":
        return _death(exitcode, stack)
    metrics = last["metrics"]
    needed = f"it must return a dict with '{metric}'"
    if metrics is None:
        return Ending(FAILED, error=f"the training function returned nothing; {needed}")
    if not isinstance(metrics, dict):
        return Ending(FAILED, error=f"the training function returned {metrics}; {needed}")
    if metric not in metrics:
        names = ", ".join(f"'{name}'" for name in metrics) or "no metric"
        return Ending(FAILED, metrics, f"the sweep's metric '{metric}' was not returned; there is {names}")
    return Ending(COMPLETED if math.isfinite(metrics[metric]) else DIVERGED, metrics)


def _death(exitcode: int | None, stack: str) -> Ending:
    where = f", in\n{lines}" if (lines := innermost(stack)) else ""
    if exitcode is None or exitcode >= 0:
        status = "with a status that is not known" if exitcode is None else f"with status {exitcode}"
        return Ending(
            FAILED, error=f"the trial's process exited {status} before the training function returned{where}"
        )
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return Ending(FAILED, error=f"the trial's process was killed by {name}{where}")


def silent(quiet_minutes: float, step: int | None, stack: str) -> Ending:
    """Return the ending of a trial that showed no sign of life for so long.

    Args:
        quiet_minutes: as declared.
        step: the last that it reported, None when there was none.
        stack: of its threads; empty when it could not even write that.
    """
    last = "it had reported no step" if step is None else f"the last step it reported was {step}"
    lines = innermost(stack)
    where = f"It was in\n{lines}" if lines else "It could not write down where it was"
    return Ending(
        FAILED,
        error=f"no sign of life for {quiet_minutes:g} minutes (slurm.quiet_minutes); {last}. "
        f"Long epochs show one by trial.alive(). {where}",
        cause=HUNG,
    )


def killed(counted: int | None) -> Ending:
    """Return the ending of a trial that was killed by SIGKILL, and not by its task.

    Args:
        counted: how many processes the kernel ended for want of memory meanwhile, None where it doesn't tell.
    """
    if counted:
        why = f"the kernel counts {counted} ended for want of memory (oom_kill) in this task's cgroup"
    elif counted is None:
        why = "out of memory, most likely"
    else:
        why = "out of memory, most likely, though this task's cgroup counts no oom_kill"
    return Ending(FAILED, error=f"the trial's process was killed by SIGKILL: {why}", cause=MEMORY)


def innermost(stack: str) -> str:
    """Return the innermost lines of the thread that matters in what faulthandler wrote."""
    threads = re.split(r"^(?=(?:Current thread|Thread) 0x)", stack, flags=re.MULTILINE)[1:]
    # The thread that took the signal is the main one, unless it could not.
    chosen = next((thread for thread in threads if thread.startswith("Current")), (threads or [""])[-1])
    lines = [line for line in chosen.splitlines()[1:] if line.startswith("  File ")]
    return "\n".join(lines[:_INNERMOST])


def outcome_line(trial: str, ending: Ending, seconds: float, **more: Any) -> dict[str, Any]:
    """Return the record of how a trial ended."""
    if ending.cause:
        more["cause"] = ending.cause
    return {
        "kind": "outcome",
        "trial": trial,
        "state": ending.state,
        "metrics": ending.metrics,
        "seconds": seconds,
        "error": ending.error,
        "time": time.time(),
        **more,
    }
