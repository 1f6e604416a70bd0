"""Real trainings of the built-in job on two small datasets that come with scikit-learn."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from task import Result, Setting, Task

from orchestrator.space import parse_space

ROOT = Path(__file__).parents[2]
SPACE = {
    "optimizer.lr": "tag(log, interval(1e-4, 1.0))",
    "optimizer.weight_decay": "tag(log, interval(1e-6, 1e-1))",
    "model.width": "choice(16, 32, 64, 128)",
    "model.dropout": "interval(0.0, 0.7)",
    "batch_size": "choice(32, 64, 128, 256)",
}
EPOCHS = 18
# Samples trained, as a share of a full-scale training's: the share of the data and of the epochs.
SCALES = {1 / 27: (1 / 9, 1 / 3), 1 / 9: (1 / 3, 1 / 3), 1 / 3: (2 / 3, 1 / 2), 1.0: (1.0, 1.0)}
# What a training that diverged counts as.
WORST = 1.0


class Silent:
    """A trial that nobody watches."""

    def __init__(self, folder: Path) -> None:
        self.checkpoint_dir = folder

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Do nothing."""

    def keep(self, path: Path, step: int, best: bool = False) -> None:
        """Do nothing."""


def load(dataset: str, half: str) -> Task:
    """Return one dataset as a task; fidelity: samples trained (data times epochs)."""

    def score(settings: Sequence[Setting], fidelities: Sequence[float], seed: int) -> list[Result]:
        pairs = zip(settings, fidelities, strict=True)
        return [_train(dataset, tuple(setting.items()), fidelity, seed) for setting, fidelity in pairs]

    levels = tuple(SCALES)
    return Task(
        name=f"live/{dataset}", family="live", half=half, resumable=False, score=score,
        space=parse_space(SPACE, {}, "live"), lowest=levels[0], levels=levels,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def _train(dataset: str, setting: tuple[tuple[str, object], ...], fidelity: float, seed: int) -> Result:
    """Train once; both errors are those of the best epoch by validation."""
    import torch
    from omegaconf import OmegaConf

    from orchestrator.training import supervised

    torch.set_num_threads(1)
    data, epochs = SCALES[fidelity]
    config = OmegaConf.load(ROOT / "jobs" / "classify.yaml").config
    config.dataset = OmegaConf.load(ROOT / "datasets" / f"{dataset}.yaml")
    scale = {"dataset.fraction": data, "epochs": round(EPOCHS * epochs), "seed": seed}
    for key, value in {**dict(setting), **scale, "checkpoints": 1, "device": "cpu"}.items():
        OmegaConf.update(config, key, value)
    with tempfile.TemporaryDirectory() as folder:
        metrics = supervised.train(config, Silent(Path(folder)))
        if not math.isfinite(metrics["val/accuracy"]):
            return Result(WORST, WORST)
        predictions = supervised.predict(config, Path(folder) / "best.pt", "test")
    wrong = predictions.probabilities.argmax(axis=1) != predictions.labels
    return Result(1 - metrics["val/accuracy"], float(wrong.mean()))
