"""Rungs: what the other trials of a stage reported at a rung, read from the records that all tasks share."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.planning.pruning import rung_at, worth_going_on
from orchestrator.sweep.records import number

# Most lines are of other steps: they are told apart without being parsed.
_REPORT = re.compile(rb'^\{"kind":"report","trial":"([^"]*)","step":(\d+),.*\}$', re.MULTILINE)


@dataclass(kw_only=True, slots=True)
class Rungs:
    """Judges one trial at each rung that it reaches.

    Attributes:
        records: the folder of its phase's records.
        trial: its id.
        metric: what it is judged by; a report without it is not judged.
        sign: 1 where more is better, -1 where less is.
        eta: the halving factor.
        epochs: of a whole trial, None where that is not known.
    """

    records: Path
    trial: str
    metric: str
    sign: int
    eta: float
    epochs: int | None
    _judged: int = field(default=0, init=False)

    def worth_going_on(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Say whether the trial goes on after a report.

        Args:
            step: of the report, counted in epochs.
            metrics: what is reported.
        """
        rung = rung_at(step, self.eta, self.epochs)
        if rung is None or rung <= self._judged or self.metric not in metrics:
            return True
        self._judged = rung
        seen = self._seen(rung)
        before = seen.pop(self.trial, None)
        # A trial that was taken up again is judged by what it showed at the rung, not by where it is now.
        value = before[1] if before and before[0] <= step else metrics[self.metric]
        others = [self.sign * other for _, other in seen.values()]
        return worth_going_on(self.sign * value, others, self.eta)

    def _seen(self, rung: int) -> dict[str, tuple[int, float]]:
        """Return each trial's first report at a rung or past it: its step and value."""
        # A trial that ran twice reported a step twice; the later file has the later attempt.
        first: dict[bytes, tuple[int, bytes]] = {}
        # A step may be reported in parts, such as training's metrics after those of validation.
        named = json.dumps(self.metric).encode() + b":"
        for path in sorted(self.records.glob("[0-9]*.jsonl")):
            for found in _REPORT.finditer(path.read_bytes()):
                trial, step = found[1], int(found[2])
                if step < rung or named not in found[0]:
                    continue
                if trial not in first or step <= first[trial][0]:
                    first[trial] = step, found[0]
        seen = {}
        for step, raw in first.values():
            line = _parsed(raw)
            if self.metric in line.get("metrics", {}):
                seen[line["trial"]] = step, number(line["metrics"][self.metric])
        return seen


def _parsed(raw: bytes) -> dict[str, Any]:
    """Return a report; a line that makes no sense is an empty one."""
    try:
        line: dict[str, Any] = json.loads(raw)
    except ValueError:
        return {}
    return line if isinstance(line.get("metrics"), dict) else {}
