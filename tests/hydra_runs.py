"""What the tests of the Hydra plugin share: an application that is run with it in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra.core.utils import JobReturn
from hydra.test_utils.test_utils import SweepTaskFunction
from hydra.version import VersionBase
from omegaconf import DictConfig, OmegaConf
from packaging.version import Version

OURS = "hydra/sweeper=coarse_to_fine"
LR = "+lr=tag(log, interval(1e-4, 1))"
SMALL = "hydra.sweeper.stages={coarse: {trials: 3}, fine: {trials: 2}}"
ONE = "hydra.sweeper.stages={one: {trials: 1}}"

# Hydra's suites run without a version_base, as applications did before 1.2.
WITHOUT_BASE = pytest.mark.filterwarnings("ignore:Future Hydra versions will no longer change:UserWarning")


def hydras_own_base() -> Iterator[None]:
    """Give each test the base that Hydra has in a fresh process; composing a sweep file sets another one."""
    base = VersionBase.instance()
    before = base.getbase()
    base.version_base = Version("1.1")
    yield
    base.version_base = before


class Multirun:
    """An application whose jobs are counted, run with the plugin in this process."""

    def __init__(self, run: Callable[..., SweepTaskFunction], folder: Path) -> None:
        self._run, self.folder = run, folder
        self.configs: list[DictConfig] = []

    def __call__(self, *overrides: str, job: Callable[[DictConfig], Any]) -> list[Sequence[JobReturn]]:
        self.configs = []

        def counted(config: DictConfig) -> Any:
            self.configs.append(config)
            return job(config)

        sweep = self._run(
            calling_file=None,
            calling_module="hydra.test_utils.a_module",
            task_function=counted,
            config_path="configs",
            config_name="compose.yaml",
            overrides=[OURS, "hydra/launcher=basic", "hydra.job.chdir=false", *overrides],
            temp_dir=self.folder,
        )
        sweep.__enter__()
        # Its __exit__ would delete the folder.
        returns: list[Sequence[JobReturn]] = sweep.returns or []
        return returns

    @property
    def best(self) -> dict[str, Any]:
        found = OmegaConf.load(self.folder / "optimization_results.yaml")
        return dict(OmegaConf.to_container(found))  # type: ignore[arg-type]


def peak(config: DictConfig) -> float:
    """A job whose best rate is 0.01."""
    return -((math.log10(config.lr) + 2) ** 2)
