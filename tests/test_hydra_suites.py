"""The Hydra sweeper plugin: Hydra's own suites, how it is found, and submitit's launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.test_utils.launcher_common_tests import (
    BatchedSweeperTestSuite,
    IntegrationTestSuite,
    LauncherTestSuite,
)
from hydra_runs import OURS, WITHOUT_BASE, hydras_own_base

from hydra_plugins.coarse_to_fine_sweeper import CoarseToFineSweeper
from orchestrator import load_results

pytestmark = WITHOUT_BASE
compatible = pytest.fixture(autouse=True)(hydras_own_base)


@pytest.mark.parametrize("launcher_name, overrides", [("basic", [OURS])])
class TestAsBasicSweeper(LauncherTestSuite):
    """With plain choices and nothing declared it does what Hydra's own sweeper does."""


@pytest.mark.parametrize("launcher_name, overrides", [("basic", [OURS, "hydra.sweeper.max_batch_size=2"])])
class TestBatches(BatchedSweeperTestSuite):
    pass


@pytest.mark.parametrize(
    "task_launcher_cfg, extra_flags", [({}, ["-m", OURS, "hydra/launcher=basic"])], ids=["basic"]
)
class TestIntegration(IntegrationTestSuite):
    pass


def test_hydra_finds_it() -> None:
    assert CoarseToFineSweeper.__name__ in [found.__name__ for found in Plugins.instance().discover(Sweeper)]


def test_finding_it_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hydra.core.plugins import Plugins\nPlugins.instance()\n"
        "assert 'hydra_plugins.coarse_to_fine_sweeper' in sys.modules\n"
        "print(sorted({'torch', 'pandas', 'optuna', 'dask', 'orchestrator'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


APP = """
import hydra


@hydra.main(version_base="1.3", config_name="app", config_path=".")
def main(cfg) -> float:
    if cfg.lr > 0.5:
        raise ValueError("too fast")
    return -abs(cfg.lr - 0.3)


if __name__ == "__main__":
    main()
"""


def test_submitits_launcher_runs_it(tmp_path: Path) -> None:
    pytest.importorskip(
        "hydra_plugins.hydra_submitit_launcher", reason="hydra-submitit-launcher is not there"
    )
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "app.yaml").write_text("lr: 0.1")
    command = [
        sys.executable, "app.py", "-m", OURS, "hydra/launcher=submitit_local", "hydra.sweep.dir=out",
        "lr=0.2,0.6", "hydra.launcher.timeout_min=1",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    trials = load_results(tmp_path / "out").trials.set_index("param.lr")
    assert dict(trials["state"]) == {0.2: "completed", 0.6: "failed"} and set(trials["attempts"]) == {1}
    assert "too fast" in trials["error"][0.6] and trials["seconds"].notna().all()
