"""Folders of YAML files beside a sweep file are no packages, and those with code in them are."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.worker import catalogues
from orchestrator.worker.catalogues import pass_over_catalogues


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The first folder of Python's path, with a catalogue in it, as a trial has it."""
    (tmp_path / "jobs" / "deep").mkdir(parents=True)
    (tmp_path / "jobs" / "mine.yaml").write_text("a: 1\n")
    (tmp_path / "jobs" / "deep" / "notes.txt").write_text("words\n")
    # Another test may have called it in this process.
    plain = [PathFinder if finder is catalogues._Paths else finder for finder in sys.meta_path]
    monkeypatch.setattr(sys, "meta_path", plain)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "jobs"]:
        del sys.modules[name]


def test_a_catalogue_is_not_taken_for_a_package(folder: Path) -> None:
    assert importlib.util.find_spec("jobs") is not None, "which is what Python makes of it"
    pass_over_catalogues()
    assert importlib.util.find_spec("jobs") is None
    with pytest.raises(ModuleNotFoundError, match="No module named 'jobs'"):
        import_module("jobs")
    once = list(sys.meta_path)
    pass_over_catalogues()
    assert sys.meta_path == once
    assert importlib.metadata.version("click"), "what is installed is found as ever"


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("__init__.py", "jobs"),
        ("train.py", "jobs.train"),
        ("deep/train.py", "jobs.deep.train"),
    ],
)
def test_a_folder_with_code_is_a_package(folder: Path, file: str, module: str) -> None:
    (folder / "jobs" / file).write_text("X = 3\n")
    pass_over_catalogues()
    assert import_module(module).X == 3


def test_a_package_further_on_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_over_catalogues()
    assert importlib.util.find_spec("jobs") is None
    (folder / "more" / "jobs").mkdir(parents=True)
    (folder / "more" / "jobs" / "__init__.py").write_text("X = 4\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "more")])
    assert import_module("jobs").X == 4


def test_a_large_folder_is_not_looked_through(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pass_over_catalogues()
    monkeypatch.setattr(catalogues, "MOST_ENTRIES", 1)
    assert importlib.util.find_spec("jobs") is not None


JOB = """
import importlib.util
from jobs.shared import SCORE

found = [name for name in ("datasets", "slurm", "jobs") if importlib.util.find_spec(name)]
assert found == ["jobs"], found

def train(config, trial):
    return {"score": SCORE}
"""
SWEEP = """
name: mine
metric: {name: score}
space: {lr: "choice(1, 2)"}
stages: {coarse: {trials: 4}}
jobs: {_target_: my_train.train, config: {lr: 1}}
"""


def test_a_job_sees_none_of_the_catalogues_beside_its_sweep_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("datasets", "slurm", "jobs"):
        Path(name).mkdir()
        Path(name, "own.yaml").write_text("{}\n")
    Path("jobs/shared.py").write_text("SCORE = 0.5\n")
    Path("my_train.py").write_text(JOB)
    Path("sweep.yaml").write_text(SWEEP)
    planned = CliRunner().invoke(main, ["plan", "sweep.yaml"])
    assert planned.exit_code == 0, planned.output
    done = subprocess.run([sys.executable, "-m", "orchestrator.worker.job", "sweeps/mine"])
    assert done.returncode == 0
