"""The trivial function that every tool runs; each execution leaves a line in a log that nobody else keeps."""

from __future__ import annotations

import os
import time
from typing import Any


def score(x: float, trial: object, log: str, pause: float) -> float:
    """Return a number of the parameter, after writing down which trial runs.

    Args:
        x: the parameter.
        trial: what the tool calls the trial.
        log: where each execution is written down, by one atomic append.
        pause: seconds to sleep first, so that there is a half way to be killed at.
    """
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(handle, f"{trial}\n".encode())
    os.close(handle)
    time.sleep(pause)
    return -((x - 0.3) ** 2)


def train(config: Any, trial: Any) -> dict[str, float]:
    """The same as a job of this project."""
    return {"score": score(config.x, trial.id, config.log, config.pause)}
