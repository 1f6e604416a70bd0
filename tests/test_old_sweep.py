"""Sweeps that earlier versions ran: what they found is told, handed over and gone on with by this one."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from orchestrator.cli import main
from orchestrator.results.load import load_results
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json, write_json
from orchestrator.sweep.records import STATES

HERE = Path(__file__).parent / "old_sweep"
VERSIONS = ("first", "issue-7")
STAGES = {"coarse": 12, "fine": 6, "final": 4}


def unpacked(version: str, name: str, folder: Path) -> Path:
    with tarfile.open(HERE / f"{version}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / name


def told(*arguments: object, status: int = 0) -> str:
    """Call the command in this process; returns what it prints, and fails on a traceback."""
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    assert done.exit_code == status, (arguments, done.output, done.exception)
    return done.stdout if status == 0 else done.stderr


class Text(HTMLParser):
    """The text of a page, without its scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self._passed = "", ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self._passed = tag if tag in ("script", "style") else self._passed

    def handle_endtag(self, tag: str) -> None:
        self._passed = "" if tag == self._passed else self._passed

    def handle_data(self, data: str) -> None:
        self.text += "" if self._passed else data


def page_text(sweep: Path) -> str:
    told("report", sweep)
    page = Text()
    page.feed(SweepDirectory(sweep).report.read_text())
    return page.text


def test_the_archives_are_small_and_name_no_machine() -> None:
    files = list(HERE.glob("*.tar.gz"))
    assert {path.name for path in files} == {f"{version}.tar.gz" for version in VERSIONS}
    assert sum(path.stat().st_size for path in files) < 200_000
    for path in files:
        with tarfile.open(path) as archive:
            for member in archive:
                assert (member.uname, member.uid) == ("", 0)
                content = archive.extractfile(member).read() if member.isfile() else b""  # type: ignore[union-attr]
                assert not any(word in content for word in (b"/tmp", b"/root", b"/work")), member.name


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_sweep_of_another_version_found_is_told(version: str, tmp_path: Path) -> None:
    sweep = unpacked(version, "plain", tmp_path)
    # As they lie there, before this version brings the tables up to date.
    assert load_results(sweep).trials["stage"].value_counts().to_dict() == STAGES
    standing = json.loads(told("status", sweep, "--json"))
    assert standing["state"] == "done"
    done = {phase["name"]: phase for phase in standing["phases"]}
    assert {name: done[name]["planned"] for name in STAGES} == STAGES
    rows = pd.DataFrame(json.loads(told("results", sweep, "--json")))
    states = {name: rows["state"][rows["stage"] == name].value_counts().to_dict() for name in STAGES}
    assert states["coarse"]["failed"] == 1
    for name, counts in states.items():
        assert counts == {state: done[name][state] for state in STATES if done[name][state]}
    told("run", sweep)
    if version == "first":
        assert "too slow for so many units" in page_text(sweep)
    after = pd.DataFrame(json.loads(told("results", sweep, "--json")))
    pd.testing.assert_frame_equal(after[rows.columns], rows)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_ensemble_of_another_version_is_told(version: str, tmp_path: Path) -> None:
    sweep = unpacked(version, "wine", tmp_path)
    ensemble = read_json(SweepDirectory(sweep).ensemble_result)
    assert f"held-out test accuracy {ensemble['test']['ensemble']:.4f}" in told("status", sweep)
    members = f"{len(ensemble['members'])} members of {ensemble['candidates']} candidates"
    assert members in page_text(sweep)
    if version == "first":
        message = told("ensemble", sweep, status=2)
        assert "an early version of this program combined it" in message
        assert f"orchestrate export {sweep}" in message


def test_models_of_another_version_are_handed_over(tmp_path: Path) -> None:
    sweep = unpacked("first", "wine", tmp_path)
    assert "single: 1 network" in told("export", sweep, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").exists()
    manifest: dict[str, Any] = read_json(tmp_path / "out" / "manifest.json")
    assert {"single", "ensemble"} <= set(manifest["models"])


def test_a_sweep_that_the_first_version_began_is_gone_on_with(tmp_path: Path) -> None:
    sweep = unpacked("first", "plain", tmp_path)
    directory = SweepDirectory(sweep)
    shutil.rmtree(sweep / "final")
    shutil.rmtree(directory.results)
    write_json(directory.plan, {**read_json(directory.plan), "folder": str(tmp_path)})
    before = {path: path.read_bytes() for path in sweep.glob("stages/**/*") if path.is_file()}
    assert "final: 4/4 trials" in told("run", sweep)
    assert json.loads(told("status", sweep, "--json"))["state"] == "done"
    rows = json.loads(told("results", sweep, "--json"))
    assert Counter(row["stage"] for row in rows) == STAGES
    for path, content in before.items():
        assert path.read_bytes() == content, "what was frozen or recorded is not written again"


@pytest.mark.parametrize("command", ["status", "results", "report", "run", "retry"])
def test_a_plan_of_a_newer_version_is_refused_and_left_alone(command: str, tmp_path: Path) -> None:
    sweep = unpacked("issue-7", "plain", tmp_path)
    plan = SweepDirectory(sweep).plan
    write_json(plan, {**read_json(plan), "version": 2, "unheard_of": {}})
    before = {path: path.read_bytes() for path in sweep.glob("**/*") if path.is_file()}
    message = told(command, sweep, status=2)
    assert f"{plan}: version 2 of this plan is newer than this program, which reads 1. Update" in message
    assert {path: path.read_bytes() for path in sweep.glob("**/*") if path.is_file()} == before
