"""The doctor without a cluster: what it says of a file system, and how it judges what a node tells."""

from __future__ import annotations

import json
import os
from collections import namedtuple
from pathlib import Path

import pytest

from commands import orchestrate, write_user_sweep
from orchestrator.doctor import cluster, visit
from orchestrator.doctor.examine import examine
from orchestrator.doctor.finding import Finding
from orchestrator.schema import SlurmConfig

LOCAL = SlurmConfig()


def results(folder: Path) -> dict[str, Finding]:
    return {found.check: found for found in examine(LOCAL, folder)}


def test_this_machine_is_well_and_stays_clean(tmp_path: Path) -> None:
    found = results(tmp_path / "not" / "yet" / "there")
    assert set(found) == {
        "disk space", "atomic rename", "exclusive hard link", "append", "flush to disk", "time of files",
    }  # fmt: skip
    assert not [one for one in found.values() if one.result == "problem"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_links_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*arguments: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    found = results(tmp_path)["exclusive hard link"]
    assert (found.result, found.found) == ("problem", "Operation not permitted") and "dir=" in found.advice


def test_a_link_that_two_can_have_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", os.replace)
    assert "both own the sweep" in results(tmp_path)["exclusive hard link"].found


def test_a_full_disk_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    for free, expected in ((2**20, "problem"), (5 * 2**30, "warning"), (2**40, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda path, free=free: usage(0, 0, free))
        assert next(iter(examine(LOCAL, tmp_path))).result == expected


def test_a_folder_that_is_not_writable_is_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**arguments: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refused)
    (found,) = examine(LOCAL, tmp_path)
    assert found.result == "problem" and "Permission denied" in found.found


@pytest.mark.parametrize(
    ("ahead", "delay", "clocks", "seen"),
    [(0, 0, "ok", "ok"), (90, 0, "warning", "ok"), (-90, 10, "warning", "warning"), (5, 55, "ok", "problem")],
)
def test_clocks_and_delays_are_told_apart(ahead: float, delay: float, clocks: str, seen: str) -> None:
    # The node writes at 1000 by its clock; what is written here at 2000 is seen there after the same delay.
    hello = {"time": 1000.0, "version": "1"}
    told = {
        "seen": 2000.0 + delay - ahead, "wrote": 2000.0, "exclusive": True, "replaced": "new", "files": [],
        "job": "",
    }  # fmt: skip
    found = {one.check: one for one in visit._judge(hello, 1000.0 + ahead + delay, told)}
    assert (found["clocks"].result, found["seen there"].result) == (clocks, seen)
    if ahead:
        assert f"{abs(ahead)}.0 s {'ahead of' if ahead > 0 else 'behind'}" in found["clocks"].found


def test_what_does_not_hold_between_machines_is_a_problem() -> None:
    told = {
        "seen": 0.0, "wrote": 0.0, "exclusive": False, "replaced": "old", "job": "ModuleNotFoundError: x",
        "files": [{"check": "append", "result": "problem", "found": "lost", "advice": ""}],
    }  # fmt: skip
    found = {
        one.check for one in visit._judge({"time": 0.0, "version": "1"}, 0.0, told) if one.result == "problem"
    }
    assert found == {"exclusive link there", "rename there", "append there", "job there"}


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("UNLIMITED", None), ("01:00:00", 60), ("00:01:00", 1), ("2-12:30:00", 3630), ("NONE", None)],
)
def test_time_limits(text: str, minutes: float | None) -> None:
    assert cluster._minutes(text) == minutes


def test_a_cluster_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = {one.check: one for one in cluster.check_commands()}
    assert found["commands"].result == "problem" and "sbatch" in found["commands"].found
    assert not [one for one in examine(SlurmConfig(executor="slurm"), tmp_path) if one.check == "controller"]


def test_the_command_here_alone(tmp_path: Path) -> None:
    write_user_sweep(tmp_path)
    shown = orchestrate("doctor", "sweep.yaml", cwd=tmp_path).stdout
    assert "exclusive hard link" in shown and "no problems" in shown and "controller" not in shown
    content = json.loads(orchestrate("doctor", "sweep.yaml", "--json", cwd=tmp_path).stdout)
    assert {"check", "result", "found", "advice"} == set(content[0])
    assert "no such sweep file" in orchestrate("doctor", "nowhere.yaml", cwd=tmp_path, status=2).stderr
