"""Output whose reader has gone away (head, less): every command ends in silence, as ls and git do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_old_sweep import unpacked

from commands import command, environment
from orchestrator.cli import main
from orchestrator.exits import CUT_SHORT


def unread() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


def test_who_has_seen_enough_is_not_told_of_it(tmp_path: Path) -> None:
    sweep, gone = unpacked("issue-7", "plain", tmp_path), unread()
    ends = {
        ("status", sweep): 0,  # printed by rich
        ("status", sweep, "--json"): 0,  # by click
        ("--help",): 0,
        # Whether it has done all of its work is not known: no script is to go on as if it had.
        ("cancel", sweep): CUT_SHORT,
    }
    started = {
        words: subprocess.Popen(
            command(*words), stdout=gone, stderr=subprocess.PIPE, text=True, env=environment()
        )
        for words in ends
    }
    os.close(gone)
    for words, process in started.items():
        assert (process.communicate()[1], process.returncode) == ("", ends[words]), words


def test_what_is_wrong_is_told_by_the_status_where_nobody_reads_the_message(tmp_path: Path) -> None:
    gone = unread()
    for words in (("status", tmp_path / "none"), ("statsu",)):  # said by us, and by click
        done = subprocess.run(command(*words), stdout=subprocess.PIPE, stderr=gone, env=environment())
        assert (done.stdout, done.returncode) == (b"", 2)
    os.close(gone)


def test_a_pipe_that_is_not_the_outputs_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("orchestrator.commands.standing.open_target", broken)
    done = CliRunner().invoke(main, ["status", "."])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: the connection to another program broke")
