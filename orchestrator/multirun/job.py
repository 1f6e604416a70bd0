"""One job of a Hydra application as a trial: what it returned, written down where it runs and as it ends."""

from __future__ import annotations

import functools
import math
import os
import platform
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Number
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import TaskFunction
from omegaconf import DictConfig

from orchestrator import __version__
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, encode

MOST_ERROR = 20_000  # characters of a traceback


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """Which trial a job runs.

    Attributes:
        trial: its id.
        number: the job's, as `hydra.job.num` has it.
        records: the absolute path of the stage's folder of records.
        metric: the name of what is optimized.
        git_commit: of the application.
    """

    trial: str
    number: int
    records: str
    metric: str
    git_commit: str = ""


class Recorded:
    """The application's function, which writes down how each of its jobs began and ended.

    It does that itself, in whatever process a launcher runs it, so that what has ended counts although the
    process that launched it dies. Launchers that pickle it take `assignments` along.
    """

    def __init__(self, task_function: TaskFunction) -> None:
        # Not its attributes: a function may be any object that can be called.
        functools.update_wrapper(self, task_function, updated=())
        self._task_function = task_function
        # by the job's number
        self.assignments: dict[int, Assignment] = {}

    def __call__(self, config: DictConfig) -> Any:
        """Run one job."""
        assignment = self.assignments.get(HydraConfig.get().job.num)
        if assignment is None:
            return self._task_function(config)
        return _run(self._task_function, config, assignment)


def _run(task_function: TaskFunction, config: DictConfig, assignment: Assignment) -> Any:
    record = Record(assignment)
    record.write("start")
    begin = time.monotonic()
    try:
        value = task_function(config)
    except SystemExit as error:
        # It would end all other jobs of the process too.
        said = f"the job called sys.exit({'' if error.code is None else error.code!r})"
        record.outcome(FAILED, {}, time.monotonic() - begin, said)
        raise RuntimeError(said) from error
    except Exception:
        record.outcome(FAILED, {}, time.monotonic() - begin, traceback.format_exc())
        raise
    except BaseException:
        record.write("interrupted")
        raise
    record.outcome(*judged(value, assignment.metric, time.monotonic() - begin))
    return value


class Record:
    """The record file of one job; where it can't be written, the launching process does it afterwards."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._path: Path | None = None
        self._torn = False
        for attempt in range(1000):
            path = Path(assignment.records) / f"{assignment.number:06d}-000-{attempt:03d}.jsonl"
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            except OSError:
                # A launcher may run its jobs where there is no such folder.
                return
            self._path = path
            self._append(_header(assignment, attempt))
            return

    def write(self, kind: str, **fields: Any) -> bool:
        """Append one line about the trial; returns False where that failed."""
        return self._append({"kind": kind, "trial": self._assignment.trial, **fields, "time": time.time()})

    def outcome(self, state: str, metrics: Mapping[str, float], seconds: float, error: str) -> bool:
        """Append the outcome; returns False where that failed."""
        return self.write("outcome", state=state, metrics=metrics, seconds=seconds, error=error[-MOST_ERROR:])

    def _append(self, line: Mapping[str, Any]) -> bool:
        if self._path is None:
            return False
        try:
            with open(self._path, "ab") as file:
                # First an end to what a full disk has torn.
                file.write((b"\n" if self._torn else b"") + encode(line).encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            self._torn = True
            return False
        self._torn = False
        return True


def _header(assignment: Assignment, attempt: int) -> dict[str, Any]:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "kind": "task",
        "version": 1,
        "token": f"hydra-{assignment.number}",
        "submission": assignment.number,
        "task": 0,
        "attempt": attempt,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": f"{array}_{index}" if array else os.environ.get("SLURM_JOB_ID", ""),
        "gpus": sum(1 for name in devices.split(",") if name and name not in ("-1", "NoDevFiles")),
        "cpus": 1,
        "python": platform.python_version(),
        "orchestrator": __version__,
        "git_commit": assignment.git_commit,
        "time": time.time(),
    }


def judged(value: Any, metric: str, seconds: float) -> tuple[str, dict[str, float], float, str]:
    """Return what a job's return value makes of its trial: state, metrics, seconds, error.

    Args:
        value: a number, or a mapping of names to numbers with the metric's among them.
        metric: the name of what is optimized.
        seconds: that the job took.
    """
    metrics = metrics_of(value, metric)
    if metric not in metrics:
        among = f" among {', '.join(map(repr, value))}" if isinstance(value, Mapping) else ""
        shown = "nothing" if value is None else f"{type(value).__name__} {value!r:.100}"
        said = f"the job returned {shown}: there is no number '{metric}'{among}. Return a number"
        return FAILED, metrics, seconds, said
    return COMPLETED if math.isfinite(metrics[metric]) else DIVERGED, metrics, seconds, ""


def metrics_of(value: Any, metric: str) -> dict[str, float]:
    """Return the numbers that a job returned, by their names; one alone is the metric."""
    given = value if isinstance(value, Mapping) else {metric: value}
    numbers = {str(name): _number(each) for name, each in given.items()}
    return {name: each for name, each in numbers.items() if each is not None}


def _number(value: Any) -> float | None:
    """Return a number, also one of NumPy's or a tensor's; None for what is none."""
    single = getattr(value, "shape", None) is not None and math.prod(value.shape) == 1
    if isinstance(value, bool) or not (isinstance(value, Number) or single):
        return None
    try:
        return float(value.item() if single else value)
    except (TypeError, ValueError, OverflowError):
        return None


def record_return(assignment: Assignment, returned: JobReturn) -> None:
    """Write down what a launcher brought back of a job that could not do so itself.

    Raises:
        OSError: this process can't write either.
    """
    if returned.status == JobStatus.COMPLETED:
        outcome = judged(returned.return_value, assignment.metric, math.nan)
    else:
        error = returned._return_value
        words = "".join(traceback.format_exception(error)) if isinstance(error, Exception) else "no status"
        outcome = FAILED, {}, math.nan, words
    if not Record(assignment).outcome(*outcome):
        raise OSError(f"{assignment.records} can't be written to")
