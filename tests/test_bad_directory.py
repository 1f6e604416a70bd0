"""Bad input about a sweep's directory: another plan in it, an older one, or no sweep at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_bad_input import OWN, TRAIN, files_here

from orchestrator.cli import main


def test_another_plan_in_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_train.py").write_text(TRAIN)
    Path("sweep.yaml").write_text(OWN)
    assert CliRunner().invoke(main, ["plan", "sweep.yaml"]).exit_code == 0
    frozen = files_here()
    # The same plan again is no error, and changes nothing.
    assert CliRunner().invoke(main, ["plan", "sweep.yaml"]).exit_code == 0
    unchanged = {path: content for path, content in frozen.items() if "/lease/" not in path}
    assert {path: content for path, content in files_here().items() if "/lease/" not in path} == unchanged
    for overrides, difference in (
        (["stages.coarse.trials=16"], "stages.coarse.trials: 8 there, 16 here"),
        (
            ["space.lr=interval(0.1, 1)"],
            "space.lr: tag(log, interval(1e-4, 1.0)) there, interval(0.1, 1) here",
        ),
        (["+stages.fine.trials=4"], "stages.fine"),
        (["jobs.config.width=7"], "jobs.config.width: 64 there, 7 here"),
    ):
        for command in ("plan", "run"):
            result = CliRunner().invoke(main, [command, "sweep.yaml", *overrides])
            assert result.exit_code == 2, result.output
            assert result.stderr.startswith(f"error: {tmp_path / 'sweeps' / 'tiny'}: holds another plan (")
            assert difference in result.stderr
            assert "orchestrate run sweeps/tiny" in result.stderr
            assert len(result.stderr.splitlines()) == 1
    plan = "sweeps/tiny/plan.json"
    assert files_here()[plan] == frozen[plan]


def test_a_directory_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in ("plan", "run", "status", "advance", "results", "cancel", "retry"):
        result = CliRunner().invoke(main, [command, "."])
        assert result.exit_code == 2, (command, result.output)
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1
    assert os.listdir() == []


def test_overrides_of_a_frozen_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my_train.py").write_text(TRAIN)
    Path("sweep.yaml").write_text(OWN)
    assert CliRunner().invoke(main, ["plan", "sweep.yaml"]).exit_code == 0
    result = CliRunner().invoke(main, ["run", "sweeps/tiny", "seed=3"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: sweeps/tiny: the plan in a sweep's directory is frozen")


def test_plan_of_another_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("old").mkdir()
    for content, message in (
        ('{"name": "tiny"}', "not a plan of this version"),
        ("{", "not readable as JSON"),
        ("[]", "not a plan of this version"),
    ):
        Path("old/plan.json").write_text(content)
        result = CliRunner().invoke(main, ["status", "old"])
        assert result.exit_code == 2, (content, result.exception)
        assert f"plan.json: {message}" in result.stderr
