"""What the tests of the built-in job share: its catalogue's config, and a trial that remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from orchestrator.errors import StopTrial
from orchestrator.training.checkpoints import load

ROOT = Path(__file__).parent.parent
CPU = torch.device("cpu")


class FakeTrial:
    """A trial that remembers, and can be made to stop the run in a report."""

    def __init__(self, folder: Path, stop_after: int = 0, error: type[BaseException] = StopTrial) -> None:
        folder.mkdir(exist_ok=True)
        self.checkpoint_dir = folder
        self.reports: list[tuple[int, dict[str, float]]] = []
        self.kept: list[tuple[str, int]] = []
        self._stop_after, self._error = stop_after, error

    def report(self, step: int, metrics: dict[str, float]) -> None:
        self.reports.append((step, metrics))
        if step == self._stop_after:
            raise self._error

    def keep(self, path: Path, step: int, best: bool = False) -> None:
        assert path.is_file()
        self.kept.append((path.name, step))


def one_thread() -> None:
    """Let torch use one thread; a fixture of tests that train."""
    torch.set_num_threads(1)


def catalogue(name: str) -> DictConfig:
    """Return jobs/NAME.yaml with what it takes from another one."""
    own = OmegaConf.load(ROOT / "jobs" / f"{name}.yaml")
    assert isinstance(own, DictConfig)
    before = [each for each in own.pop("defaults", []) if each != "_self_"]
    whole = OmegaConf.merge(*[catalogue(each) for each in before], own)
    assert isinstance(whole, DictConfig)
    return whole


def job(dataset: Any = "digits", name: Any = "classify", **changes: Any) -> DictConfig:
    """Return the catalogue's job on a catalogue's dataset, with dotted keys changed."""
    config = catalogue(name).config
    config.dataset = OmegaConf.load(ROOT / "datasets" / f"{dataset}.yaml")
    for key, value in changes.items():
        OmegaConf.update(config, key, value)
    assert isinstance(config, DictConfig)
    return config


def weights(path: Path) -> dict[str, torch.Tensor]:
    model = load(path, torch.device("cpu"))["model"]
    assert isinstance(model, dict)
    return model


def same_weights(one: Path, other: Path) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
