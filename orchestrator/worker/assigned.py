"""What a task is to do, and the one file in which it says what became of it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.planning.plan import Phase
from orchestrator.schema import SweepConfig, task_cores
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory, TrialSpec
from orchestrator.worker.place import Place


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """The trials that a task has to run, and all that running them takes.

    `config.slurm` is what the task was given: the larger request, where it was submitted with that.

    Attributes:
        slots: trials that run side by side.
        place: of this process among those that train one trial together.
        meeting: the file by which these find each other.
    """

    directory: SweepDirectory
    config: SweepConfig
    phase: Phase
    metric: str
    todo: tuple[TrialSpec, ...]
    slots: int = 1
    place: Place = field(default_factory=Place)
    meeting: Path = Path("meeting.json")

    @property
    def cores(self) -> int:
        """The cores of this process."""
        cores = task_cores(self.config.slurm)
        # All cores of a machine are shared by all processes on it.
        return cores if self.config.slurm.cpus_per_task else max(1, cores // self.place.local_count)

    @property
    def quiet(self) -> float | None:
        """Seconds without a sign of life after which a trial is taken to hang; None: however long."""
        minutes = self.config.slurm.quiet_minutes
        return None if minutes is None else 60 * minutes


class RecordWriter:
    """Appends to the one record file of this attempt at a task, which is one of a submission."""

    def __init__(self, folder: Path, submission: int, task: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for attempt in range(10_000):
            path = folder / f"{submission:04d}-{task:04d}-{attempt}.jsonl"
            with contextlib.suppress(FileExistsError):
                self._handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
                self.attempt = attempt
                break
        else:
            raise RuntimeError(f"{folder} holds 10,000 attempts at one task")
        self._synced, self._whole = time.monotonic(), True

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; outcomes are flushed to disk, at most once a second."""
        # After a line that a signal or a full disk cut short, the next one begins on a line of its own.
        data = (b"" if self._whole else b"\n") + records.encode(line).encode()
        self._whole = False
        while data:
            data = data[os.write(self._handle, data) :]
        self._whole = True
        if line["kind"] == "outcome" and time.monotonic() - self._synced > 1:
            self._sync()

    def close(self) -> None:
        """Flush and close."""
        self._sync()
        os.close(self._handle)

    def _sync(self) -> None:
        os.fsync(self._handle)
        self._synced = time.monotonic()
