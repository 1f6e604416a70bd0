"""A job's own training function, run at the smallest scale, and what can be said of it alone."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator.checks.repeat import trained_twice
from orchestrator.checks.result import CheckResult, failed, raised
from orchestrator.errors import UserError
from orchestrator.worker.trial import Trial, always


def train_once(
    train: Callable[..., Any], config: Any, stage: str, seed: int, metric: str
) -> dict[str, float]:
    """Train in a temporary folder; return the metric as each report and the end gave it.

    Only the sweep's own metric counts: others, such as seconds, may differ.

    Args:
        train: the job's function of config and trial.
        config: a trial's.
        stage: whose scale the config has.
        seed: of the trial.
        metric: the sweep's.
    """
    seen: dict[str, float] = {}

    def send(line: dict[str, Any]) -> None:
        if line.get("kind") == "report" and metric in line["metrics"]:
            seen[f"{metric} at step {line['step']}"] = line["metrics"][metric]

    with tempfile.TemporaryDirectory() as folder:
        trial = Trial(
            id="check",
            stage=stage,
            params={},
            seed=seed,
            checkpoint_dir=Path(folder),
            send=send,
            goes_on=always,
        )
        returned = train(config, trial)
    if isinstance(returned, Mapping) and metric in returned:
        seen = {metric: float(returned[metric]), **seen}
    return seen


def only_training(once: Callable[[], Mapping[str, float]], progress: Callable[[str], None]) -> CheckResult:
    """Check what training alone shows: its metric is returned and finite, and two runs of one seed agree."""
    began = time.perf_counter()
    try:
        result = _agrees(once, progress)
    except UserError:
        raise
    except Exception as error:
        result = raised("D5", error)
    return replace(result, seconds=time.perf_counter() - began)


def _agrees(once: Callable[[], Mapping[str, float]], progress: Callable[[str], None]) -> CheckResult:
    progress("training once")
    first = once()
    if not first:
        return failed(
            "D5",
            "training neither reported nor returned the sweep's metric",
            "another name in the sweep file than in the training function",
            "Return it in the training function's mapping, under the name that `metric.name` has",
        )
    if not math.isfinite(last := next(iter(first.values()))):
        return failed(
            "D5",
            f"training gave {next(iter(first))} = {last}",
            "too large a learning rate, or values that are not finite in the data",
            "Train at a tenth of the rate; orchestrate inspect looks at the data",
        )
    progress("training again")
    return trained_twice(first, once())
