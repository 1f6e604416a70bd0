"""What tests share: settings of hypothesis, and the real SLURM where there is one."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings
from own_job import CODE

# No test depends on the wall clock, a busy machine included; and it tries the same examples every time.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


# Files whose tests take a minute or more, on SLURM and without it.
LONG_ON_SLURM = ("test_slurm_worker.py", "test_slurm_finals.py")
LONG = ("test_examples.py", "test_final_waves.py", "test_run.py", "test_planner.py", "test_jobs.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the tests to the workers, each of which is given a part of the list as it stands.

    SLURM's tests mostly wait: half of the workers begin with them, and leave the processors to the others.
    Those that want SLURM for themselves come first, on one worker; meanwhile the others begin with what
    takes long. The rest stay in order, for the fixtures of modules.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    half, share = max(1, workers // 2), math.ceil(len(items) / workers)
    waiting = [item for item in items if item.get_closest_marker("slurm")]
    alone = [item for item in waiting if "slurm_alone" in item.fixturenames]  # type: ignore[attr-defined]
    along = [item for item in waiting if item not in alone]
    along.sort(key=lambda item: item.path.name not in LONG_ON_SLURM)
    others = [item for item in items if item not in waiting]
    long = [[item for item in others if item.path.name == name] for name in LONG]
    rest = iter([item for item in others if item.path.name not in LONG])
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        whole_files = long[worker - 1 :: workers - 1] if worker and workers > 1 else []
        own = [*(alone if worker == 0 else []), *itertools.chain(*whole_files)]
        own += along[worker::half] if worker < half else []
        dealt += [*own, *itertools.islice(rest, max(0, share - len(own)))]
    if workers == 1:
        dealt += itertools.chain(*long)
    items[:] = [*dealt, *rest]


def _why_no_slurm() -> str:
    if shutil.which("sinfo") is None:
        return "SLURM is not installed: sudo slurm/single_node/install.sh && sudo slurm/single_node/start.sh"
    try:
        answer = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        return "SLURM does not answer: sudo slurm/single_node/start.sh"
    return "" if answer.returncode == 0 else "SLURM does not run: sudo slurm/single_node/start.sh"


def _missing(reason: str) -> NoReturn:
    """Skip; fail where SLURM is required, as in CI."""
    if os.environ.get("ORCHESTRATOR_REQUIRE_SLURM"):
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with a training function of a user's own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_train.py").write_text(CODE)
    return tmp_path


@pytest.fixture(scope="session")
def slurm_answers() -> None:
    """Skip without a running SLURM."""
    if reason := _why_no_slurm():
        _missing(reason)


@pytest.fixture(scope="session")
def two_nodes(slurm_answers: None) -> None:
    """Skip with a single node."""
    nodes = subprocess.check_output(["sinfo", "--noheader", "--Node", "--partition=gpu"]).splitlines()
    if len(nodes) < 2:
        _missing("SLURM has one node: sudo slurm/single_node/start.sh --nodes 2")


@pytest.fixture
def slurm(slurm_answers: None) -> Iterator[None]:
    """A running SLURM, shared with the tests of other processes."""
    with _locked(fcntl.LOCK_SH):
        yield


@pytest.fixture
def slurm_alone(slurm_answers: None) -> Iterator[None]:
    """A running SLURM that no other test uses meanwhile, for those that stop its daemons."""
    with _locked(fcntl.LOCK_EX):
        yield


@contextlib.contextmanager
def _locked(how: int) -> Iterator[None]:
    with open(Path(tempfile.gettempdir()) / "orchestrator-slurm-tests.lock", "w") as handle:
        fcntl.flock(handle, how)
        yield
