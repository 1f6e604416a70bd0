"""What a trainer of another library measures, told to the trial; and which of its checkpoints are whole."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import StopTrial, UserError
from orchestrator.training.moments import BEST, LAST, check_moments, every, kept_epochs
from orchestrator.worker.trial import Trial, as_number

# Within a long epoch a trial shows so often that it is at work.
ALIVE_SECONDS = 30.0
# In `count`: what a step of the learning curve is.
EPOCHS, STEPS = "epochs", "steps"


class Reporter:
    """Tells a trial what was measured, and remembers whether it was abandoned.

    Args:
        trial: as the training function was given it.
        names: what a metric is called in the sweep, by its name in the trainer; others keep theirs.
        count: `epochs` or `steps`; None: epochs where the trainer measures at their ends.

    Attributes:
        last: the latest value of every metric that was reported.
        stopped: why the trial was abandoned; None while it is not.
    """

    def __init__(self, trial: Trial, names: Mapping[str, str] | None, count: str | None) -> None:
        if count not in (None, EPOCHS, STEPS):
            raise UserError(f"a report can't count '{count}'", key="count", hint=f"Say {EPOCHS} or {STEPS}")
        self.trial, self.names, self.count = trial, dict(names or {}), count
        self.last: dict[str, float] = {}
        self.stopped: StopTrial | None = None
        self._shown = time.monotonic()

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Report what is a number of the metrics; sets `stopped` where the trial is abandoned."""
        numbers = {self.names.get(name, name): number for name, number in numbers_of(metrics).items()}
        if not numbers:
            return
        self.last.update(numbers)
        if not self.trial.leads or self.stopped is not None:
            return
        try:
            self.trial.report(step, numbers)
        except StopTrial as stop:
            self.stopped = stop

    def alive(self) -> None:
        """Show now and then that the trial is at work."""
        if time.monotonic() - self._shown >= ALIVE_SECONDS:
            self._shown = time.monotonic()
            self.trial.alive()

    def raise_stop(self) -> None:
        """End an abandoned trial, once.

        Raises:
            StopTrial: it was abandoned.
        """
        if self.stopped is not None:
            stop, self.stopped = self.stopped, None
            raise stop


def numbers_of(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return the metrics that are numbers, NaN among them; a trainer logs texts and tables too."""
    numbers = {}
    for name, value in metrics.items():
        try:
            numbers[str(name)] = as_number(name, value)
        except TypeError:
            continue
    return numbers


class Members:
    """Which moments of a final run are kept for the ensemble, as `final.checkpoints` asks for them.

    Args:
        trial: stages keep nothing.
        what: stands for the trainer in messages.

    Raises:
        UserError: a moment that a trainer of another library does not tell.
    """

    def __init__(self, trial: Trial, what: str) -> None:
        wanted: int | Sequence[object] = trial.scale.get("checkpoints") or 0
        self._wanted = wanted if trial.kind == "final" else 0
        if isinstance(self._wanted, int):
            self.best = self._wanted > 0
            return
        check_moments(self._wanted, "final.checkpoints")
        self.best = BEST in self._wanted
        for word in self._wanted:
            if word not in (BEST, LAST) and every(word) is None:
                raise UserError(
                    f"{what} has no moment '{word}'",
                    key="final.checkpoints",
                    hint=f"Say a count, {BEST}, {LAST} or 'every 10'",
                )

    def due(self, epoch: int, epochs: int) -> bool:
        """Say whether the model is kept after an epoch, from 1, of so many; fewer than 1: it is not known."""
        if isinstance(self._wanted, int):
            return epoch in kept_epochs(epochs, self._wanted)
        steps = [step for word in self._wanted if (step := every(word))]
        return (LAST in self._wanted and epoch == epochs) or any(epoch % step == 0 for step in steps)


def newest_whole(paths: Iterable[Path]) -> Path | None:
    """Return the file that was written last of those that are whole; None where there is none."""
    found = []
    for path in paths:
        try:
            found.append((path.stat().st_mtime_ns, path.name, path))
        except OSError:
            continue  # deleted meanwhile
    return next((path for *_, path in sorted(found, reverse=True) if is_whole(path)), None)


def is_whole(path: Path) -> bool:
    """Say whether a file of weights or state was written to its end.

    Files of `torch.save` are archives whose list of contents comes last; one of safetensors says at its
    beginning how long it is. What a library writes in place is cut short when its process is killed.
    """
    try:
        if path.suffix != ".safetensors":
            return zipfile.is_zipfile(path)
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np"):
                return True
        except SafetensorError:
            return False
    except OSError:
        return False
