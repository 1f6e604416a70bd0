"""Large sweeps: what a step costs grows with the trials, is paid once, and fits in memory."""

from __future__ import annotations

import importlib.util
import itertools
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orchestrator.control.advance import look
from orchestrator.control.decide import DONE, RUNNING
from orchestrator.control.opened import open_sweep
from orchestrator.sweep import facts, index
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.memory import Remembered

SCALE = Path(__file__).parent.parent / "benchmarks" / "orchestration" / "scale.py"


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scale", SCALE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def forget() -> None:
    """Begin as a new process does."""
    for value in (*vars(facts).values(), *vars(index).values()):
        if isinstance(value, Remembered):
            value._kept.clear()


def calls_of_a_look(scale: ModuleType, path: Path) -> int:
    """Count the functions that are called when a process looks at a sweep for the first time."""
    sweep = open_sweep(SweepDirectory(path))
    forget()
    count = 0

    def called(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(called)
    try:
        decision = look(sweep.directory, sweep.plan, sweep.config, scale.AllActive())
    finally:
        sys.setprofile(None)
    assert decision.state == RUNNING
    assert decision.actions == ()
    return count


def test_a_look_takes_time_in_proportion_to_the_trials(scale: ModuleType, tmp_path: Path) -> None:
    counts = [
        calls_of_a_look(scale, scale.make(tmp_path / str(trials), trials, share=0.5, reports=3))
        for trials in (500, 1000, 2000, 4000)
    ]
    steps = [b - a for a, b in itertools.pairwise(counts)]
    assert 1.8 * steps[0] < steps[1] < 2.2 * steps[0], counts
    assert 1.8 * steps[1] < steps[2] < 2.2 * steps[1], counts
    # Of a trial: 3 reports, its start and outcome, its setting and what is decided of it.
    assert steps[-1] / 2000 < 150, counts


def test_a_second_look_reads_no_record(
    scale: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = open_sweep(SweepDirectory(scale.make(tmp_path / "s", 500, share=0.5, reports=1)))
    first = look(sweep.directory, sweep.plan, sweep.config, scale.AllActive())

    def refuse(*arguments: object) -> None:
        raise AssertionError("it was read before")

    monkeypatch.setattr(index, "read_digest", refuse)
    monkeypatch.setattr(facts, "read_trials", refuse)
    monkeypatch.setattr(facts, "read_submissions", refuse)
    assert look(sweep.directory, sweep.plan, sweep.config, scale.AllActive()) == first


@pytest.mark.parametrize(("share", "state"), [(0.5, RUNNING), (1.0, DONE)])
def test_advance_and_status_fit_in_memory(
    scale: ModuleType, tmp_path: Path, share: float, state: str
) -> None:
    path = scale.make(tmp_path / "s", 20_000, share=share, reports=5)
    for command in ("advance", "status"):
        done = subprocess.run(
            [sys.executable, str(SCALE), "--act", command, str(path)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["state"] == state
        # Imports take some 150 of them; with five times the trials it stays below 500.
        assert found["megabytes"] < 240, found
        assert scale.indexes(path), "the next process begins where this one ended"
