"""What a program has told of its trial: steps, metrics, and which of them are the result."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from orchestrator.programs.patterns import Row
from orchestrator.schema import MetricConfig
from orchestrator.sweep.files import write_json

# A program that prints shows that it is at work; it is said so often.
_ALIVE_SECONDS = 10.0
_STATE_SECONDS = 10.0


class Trial(Protocol):
    """What a program needs of the trial that it runs for."""

    @property
    def id(self) -> str:
        """Unique in the sweep."""

    @property
    def stage(self) -> str:
        """The stage it belongs to."""

    @property
    def seed(self) -> int:
        """Its own seed."""

    @property
    def checkpoint_dir(self) -> Path:
        """Private to it, survives a requeue."""

    @property
    def leads(self) -> bool:
        """False in processes that train along: what they say is not recorded."""

    def report(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Record metrics of a step; may raise StopTrial."""

    def alive(self) -> None:
        """Show that the trial is at work."""


class Told:
    """What has been told; steps are counted where the program tells none.

    Args:
        trial: gets the reports.
        metric: the sweep's.
        keep: take the best step's metrics for the result, not each one's last.
        state: a file that keeps it between the legs of an interrupted trial; None: nothing is kept.
    """

    def __init__(self, trial: Trial, metric: MetricConfig, *, keep_best: bool, state: Path | None) -> None:
        self._trial, self._metric, self._keep_best, self._state = trial, metric, keep_best, state
        self._shown = self._saved = time.monotonic()
        self._step = 0
        self._last: dict[str, float] = {}
        self._best: dict[str, float] = {}

    @property
    def result(self) -> dict[str, float]:
        """The metrics of the trial."""
        return self._best if self._keep_best and self._best else self._last

    def report(self, rows: Iterable[Row]) -> None:
        """Report rows; may raise StopTrial."""
        for row in rows:
            step, metrics = self._take(row)
            self._trial.report(step, metrics)
        if self._state is not None and time.monotonic() - self._saved >= _STATE_SECONDS:
            self.save()

    def know(self, rows: Iterable[Row]) -> None:
        """Take rows that an earlier leg has reported."""
        for row in rows:
            self._take(row)

    def alive(self) -> None:
        """Show that the program has said something."""
        if time.monotonic() - self._shown >= _ALIVE_SECONDS:
            self._shown = time.monotonic()
            self._trial.alive()

    def save(self) -> None:
        """Keep what was told for the next leg."""
        if self._state is not None:
            self._saved = time.monotonic()
            write_json(self._state, {"step": self._step, "last": self._last, "best": self._best})

    def load(self) -> None:
        """Take what the leg before has kept; a damaged file is as good as none."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(self._state.read_text()) if self._state else {}
            last, best = dict(content["last"]), dict(content["best"])
            self._step, self._last, self._best = int(content["step"]), last, best

    def _take(self, row: Row) -> tuple[int, dict[str, float]]:
        step, metrics = row
        self._step = self._step + 1 if step is None else step
        self._last |= metrics
        if self._metric.name in metrics and self._better(metrics[self._metric.name]):
            self._best = dict(self._last)
        return self._step, metrics

    def _better(self, value: float) -> bool:
        before = self._best.get(self._metric.name, math.nan)
        if math.isnan(value):
            return False
        return math.isnan(before) or (value > before if self._metric.mode == "max" else value < before)
