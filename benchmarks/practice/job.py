"""One training of the built-in job, for the experiments."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent


class Alone:
    """A trial that nobody watches: it keeps its learning curve and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint_dir = folder
        self.reports: list[dict[str, float]] = []

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.reports.append(dict(metrics))

    def keep(self, path: Path, step: int, best: bool = False) -> None:
        """Keep no checkpoint."""


def dataset(name: str, **changes: Any) -> dict[str, Any]:
    """Return a dataset of the catalogue, with some of its keys changed."""
    return {**yaml.safe_load((ROOT / "datasets" / f"{name}.yaml").read_text()), **changes}


def train(data: dict[str, Any], **changes: Any) -> dict[str, float]:
    """Train the built-in job and return its outcome; keys are paths in its config with __ for a dot."""
    return _trained(data, changes)[0]


def curve(data: dict[str, Any], **changes: Any) -> list[dict[str, float]]:
    """Train the built-in job and return what it reported after each epoch; keys as in `train`."""
    return _trained(data, changes)[1]


def _trained(
    data: dict[str, Any], changes: dict[str, Any]
) -> tuple[dict[str, float], list[dict[str, float]]]:
    from orchestrator.training.supervised import train as run

    config: dict[str, Any] = {"dataset": data}
    for key, value in changes.items():
        *path, last = key.split("__")
        place = config
        for part in path:
            place = place.setdefault(part, {})
        place[last] = value
    with tempfile.TemporaryDirectory() as folder:
        trial = Alone(Path(folder))
        return dict(run(config, trial)), trial.reports  # type: ignore[arg-type]
