"""What a training function is given besides its config."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import StopTrial


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One trial, seen from inside: reports go out through it, and its checkpoints have a place.

    Attributes:
        id: unique in the sweep, such as coarse-00007.
        stage: the stage it belongs to, or "final".
        params: the parameters of its setting, by dotted path.
        seed: its own seed, the same whenever it is run again.
        checkpoint_dir: private to this trial; what lies there survives a requeue.
        send: takes each line for the records.
        goes_on: says after a step's metrics whether the trial is worth going on with.
    """

    id: str
    stage: str
    params: Mapping[str, Any]
    seed: int
    checkpoint_dir: Path
    send: Callable[[dict[str, Any]], None]
    goes_on: Callable[[int, Mapping[str, float]], bool]

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report metrics of a step (an epoch, or however the function counts): the learning curve.

        Args:
            step: where in the training, growing; in a stage that prunes, the epochs so far.
            metrics: name to number; a tensor or array of one element counts as a number.

        Raises:
            StopTrial: the trial is abandoned; let it pass through.
            TypeError: a metric is no number.
        """
        numbers = {str(name): as_number(name, value) for name, value in metrics.items()}
        self.send(
            {"kind": "report", "trial": self.id, "step": int(step), "metrics": numbers, "time": time.time()}
        )
        if not self.goes_on(int(step), numbers):
            raise StopTrial(f"not among the best at step {step}")

    def alive(self) -> None:
        """Show that the trial is at work where there is no metric to report yet, as within a long epoch.

        Without any line for `slurm.quiet_minutes` a trial is taken to hang and is ended.
        """
        self.send({"kind": "alive"})

    def keep(self, path: Path | str, step: int) -> None:
        """Offer a checkpoint file below `checkpoint_dir` as a member of the ensemble.

        Raises:
            ValueError: the file is not below `checkpoint_dir`, or not there.
        """
        place = Path(path).resolve()
        if not place.is_relative_to(self.checkpoint_dir.resolve()) or not place.is_file():
            raise ValueError(f"keep({str(path)!r}): there is no such file below {self.checkpoint_dir}")
        inside = place.relative_to(self.checkpoint_dir.resolve()).as_posix()
        self.send({"kind": "checkpoint", "trial": self.id, "step": int(step), "path": inside})


def always(step: int, metrics: Mapping[str, float]) -> bool:
    """Judge every trial worth going on with."""
    return True


def as_number(name: object, value: Any) -> float:
    """Return a metric as a float.

    Raises:
        TypeError: it is no number; the message names the metric and what it is.
    """
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"metric '{name}' is {type(value).__name__} {value!r:.60}, not a number") from None
