"""A task: what submitit calls on the cluster. Light to import and to pickle; the work is in `batch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.submissions import Intent

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission


@dataclass(frozen=True, slots=True)
class Task:
    """One array task: it finds its trials in the intent of its submission."""

    sweep: str
    kind: str
    phase: str
    submission: int
    index: int

    def __call__(self) -> dict[str, int]:
        """Run the task's trials; returns how many ended in each state."""
        from orchestrator.worker.batch import run_batch

        directory = SweepDirectory(Path(self.sweep))
        return run_batch(directory, self.phase, self.submission, self.index)

    def checkpoint(self) -> DelayedSubmission:
        """Go on after a preemption or time limit: the records say what is done, so the same call does."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def tasks_of(sweep: Path, kind: str, phase: str, intent: Intent) -> list[Task]:
    """Return the tasks of an intent, in the order of the array."""
    # Tasks may run with another working directory, on another machine.
    return [
        Task(str(sweep.resolve()), kind, phase, intent.number, index) for index in range(len(intent.tasks))
    ]
