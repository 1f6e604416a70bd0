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

# No test depends on the wall clock, a busy machine included; and it tries the same examples every time.
settings.register_profile("steady", deadline=None, derandomize=True, database=None)
settings.load_profile("steady")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal SLURM's tests, which mostly wait, to half of the workers, which begin with them.

    A worker is given a part of the list as it stands. The others stay in order, for the fixtures of modules.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    half, share = max(1, workers // 2), math.ceil(len(items) / workers)
    waiting = [item for item in items if item.get_closest_marker("slurm")]
    others = iter([item for item in items if not item.get_closest_marker("slurm")])
    dealt: list[pytest.Item] = []
    for worker in range(workers):
        own = waiting[worker::half] if worker < half else []
        dealt += [*own, *itertools.islice(others, max(0, share - len(own)))]
    items[:] = [*dealt, *others]


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
