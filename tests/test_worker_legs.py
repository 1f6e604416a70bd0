"""Legs: a trial that gets further goes on for ever, one that does not is stopped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweep.records import FAILED, NO_PROGRESS, RecordFile
from orchestrator.worker.legs import SHORT_LEGS, Leg, no_progress, read_legs

LIMIT = 10
WHOLE = 0.9 * 60 * LIMIT


def legs(*took_up: int | None, seconds: float = WHOLE, saved: bool = False) -> list[Leg]:
    return [Leg(1000.0 * n, seconds, step, saved) for n, step in enumerate(took_up)]


@pytest.mark.parametrize(
    ("row", "stuck"),
    [
        ([], False),
        (legs(1, 1), False),
        (legs(1, 1, 1), True),
        (legs(None, None, None), True),
        (legs(1, 5, 9, 12, 20, 31), False),
        (legs(1, 5, 5, 5), True),
        # It once got further than it does now: a checkpoint was lost, and found again.
        (legs(1, 9, 4), False),
        (legs(1, 9, 4, 4), True),
        (legs(1, 5, 5, 6), False),
        # Nothing reported in the last legs: within a long epoch of which it saves parts, or in its start.
        (legs(5, None, None), True),
        ([*legs(5, None), *legs(None, saved=True)], False),
        # Preempted early, again and again.
        (legs(1, 1, 1, 1, 1, seconds=30.0), False),
        (legs(*[1] * (3 * SHORT_LEGS - 1), seconds=30.0), False),
        (legs(*[1] * (3 * SHORT_LEGS), seconds=30.0), True),
        # It writes files in each leg, whatever they are.
        (legs(*[None] * (3 * SHORT_LEGS), saved=True), True),
    ],
)
def test_no_progress(row: list[Leg], stuck: bool) -> None:
    ending = no_progress(row, LIMIT, allowed=3)
    assert (ending is not None) == stuck
    if ending is not None:
        assert (ending.state, ending.cause) == (FAILED, NO_PROGRESS)
        assert "slurm.timeout_min: 10" in ending.error and "trial.checkpoint_dir" in ending.error


def test_one_attempt_allowed_is_one_leg(tmp_path: Path) -> None:
    assert no_progress(legs(1), LIMIT, allowed=1) is not None
    assert no_progress([], LIMIT, allowed=0) is None


def file(number: int, *lines: dict[str, Any], submission: int = 1) -> RecordFile:
    return RecordFile(
        path=Path(f"{submission:04d}-0000-{number}.jsonl"),
        header={"submission": submission},
        lines=list(lines),
    )


def line(kind: str, time: float, trial: str = "a", **more: Any) -> dict[str, Any]:
    return {"kind": kind, "trial": trial, "time": time, **more}


def test_legs_are_read_in_the_order_in_which_they_began(tmp_path: Path) -> None:
    second = file(0, line("start", 500.0), line("report", 510.0, step=7), submission=2)
    first = file(
        1,
        line("start", 100.0),
        line("start", 90.0, trial="b"),
        line("report", 130.0, step=3),
        line("report", 140.0, step=4),
        line("checkpoint", 0, step=4) | {"time": "spoiled"},
        line("interrupted", 160.0),
    )
    other = file(2, line("start", 1.0, trial="b"))
    found = read_legs([second, first, other], "a", tmp_path)
    assert [(leg.began, leg.took_up) for leg in found] == [(100.0, 3), (500.0, 7)]
    assert found[1].seconds == 10.0
    assert [leg.began for leg in read_legs([second, first], "a", tmp_path, after=1)] == [500.0]


def test_a_file_newer_than_the_last_silent_leg_speaks_for_it(tmp_path: Path) -> None:
    files = [file(0, line("start", 1000.0), line("interrupted", 1500.0))]
    saved = tmp_path / "deep" / "model.pt"
    saved.parent.mkdir()
    saved.touch()
    os.utime(saved, (900.0, 900.0))
    assert not read_legs(files, "a", tmp_path)[0].saved
    os.utime(saved, (1400.0, 1400.0))
    assert read_legs(files, "a", tmp_path)[0].saved
    assert not read_legs(files, "a", tmp_path / "nowhere")[0].saved
    # It speaks for the silent legs right before too, whose files it may have replaced, and for no other.
    before = [
        file(1, line("start", 100.0)),
        file(2, line("start", 200.0), line("report", 210.0, step=1)),
        file(3, line("start", 300.0)),
    ]
    assert [leg.saved for leg in read_legs([*before, *files], "a", tmp_path)] == [False, False, True, True]
