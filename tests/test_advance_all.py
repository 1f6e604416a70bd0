"""Every sweep below a folder, finished sweeps, and the log of steps that nobody watches."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from commands import SWEEP, loaded_after, orchestrate, write_user_sweep
from orchestrator.control import journal
from orchestrator.control.every import sweeps_below
from orchestrator.control.journal import last_line, note
from orchestrator.control.rest import is_finished
from orchestrator.sweep.directory import SweepDirectory

SMALL = SWEEP.replace("trials: 12", "trials: 2").replace("trials: 6", "trials: 1").replace(
    "final: {top: 2, seeds: 2, epochs: 3}", "final: {top: 0}"
)  # fmt: skip


def plan(folder: Path, name: str) -> Path:
    orchestrate("plan", "sweep.yaml", f"name={name}", f"dir=all/{name}", cwd=folder)
    return folder / "all" / name


def test_one_line_each_and_one_failure_stops_no_other(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SMALL)
    broken, finished, fresh = (
        plan(tmp_path, "a"),
        plan(tmp_path, "b"),
        plan(tmp_path, "c"),
    )
    orchestrate("run", finished, cwd=tmp_path)
    assert is_finished(SweepDirectory(finished))
    (broken / "plan.json").write_text("{")
    done = orchestrate("advance", "--all", "all", cwd=tmp_path, status=1)
    lines = done.stdout.splitlines()
    assert len(lines) == 3 and "Traceback" not in done.stdout + done.stderr
    assert lines[0].startswith("all/a: error: ") and "not readable as JSON" in lines[0]
    assert lines[1] == "all/b: done: nothing to do now"
    assert lines[2].startswith("all/c: running: ")
    content = json.loads(orchestrate("advance", "--all", "all", "--json", cwd=tmp_path, status=1).stdout)
    assert [step["state"] for step in content][:2] == ["error", "done"]
    (broken / "plan.json").unlink()
    orchestrate("run", fresh, cwd=tmp_path)
    assert orchestrate("advance", "--all", "all", "--quiet", cwd=tmp_path).stdout == ""
    assert "no sweep" in orchestrate("advance", "--all", fresh / "logs", cwd=tmp_path, status=2).stderr
    assert "no such directory" in orchestrate("advance", "--all", "nowhere", cwd=tmp_path, status=2).stderr


def test_a_finished_sweep_is_not_even_read(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SMALL)
    sweep = plan(tmp_path, "a")
    orchestrate("run", sweep, cwd=tmp_path)
    frozen = (sweep / "plan.json").read_text()
    (sweep / "plan.json").write_text("never read")
    assert orchestrate("advance", sweep, cwd=tmp_path).stdout == "done: nothing to do now\n"
    code = (
        f"from orchestrator.cli import main\ntry: main(['advance', {str(sweep)!r}])\nexcept SystemExit: pass"
    )
    assert loaded_after(code, tmp_path) == set()
    # Until somebody asks for more.
    (sweep / "plan.json").write_text(frozen)
    orchestrate("retry", sweep, cwd=tmp_path)
    assert not is_finished(SweepDirectory(sweep))
    orchestrate("run", sweep, cwd=tmp_path)
    assert is_finished(SweepDirectory(sweep))


def test_sweeps_are_found_and_not_searched(tmp_path: Path) -> None:
    for name in ("x/one", "two", "two/snapshot/inner", ".hidden/three", "/".join("d" * 20)):
        (tmp_path / name).mkdir(parents=True)
        for file in ("plan.json", "sweep.yaml"):
            (tmp_path / name / file).touch()
    (tmp_path / "no").mkdir()
    (tmp_path / "no" / "plan.json").touch()
    (tmp_path / "circle").symlink_to(tmp_path)
    found = [str(sweep.path.relative_to(tmp_path)) for sweep in sweeps_below(tmp_path)]
    assert found == ["two", "x/one"]
    assert [sweep.path for sweep in sweeps_below(tmp_path / "two")] == [tmp_path / "two"]


def test_a_log_says_nothing_twice_and_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "logs" / "cron.log"
    for text in (
        "error: full\nTraceback",
        "error: full\nTraceback",
        "running: Submit",
        "error: full\nTraceback",
    ):
        note(log, text)
    assert [line.split(" ", 1)[1] for line in log.read_text().splitlines()] == [
        "error: full  Traceback", "running: Submit", "error: full  Traceback",
    ]  # fmt: skip
    monkeypatch.setattr(journal, "MOST_BYTES", 2000)
    monkeypatch.setattr(journal, "KEPT_BYTES", 1000)
    for number in range(200):
        note(log, f"step {number}")
        assert log.stat().st_size < 2200
    assert last_line(log).endswith("step 199")
    assert all(line.split(" ")[1] == "step" for line in log.read_text().splitlines())
    assert last_line(tmp_path / "nowhere") == ""


def test_errors_go_to_the_log_too(tmp_path: Path) -> None:
    write_user_sweep(tmp_path, sweep=SMALL)
    sweep = plan(tmp_path, "a")
    (sweep / "plan.json").write_text("{")
    done = orchestrate("advance", sweep, "--quiet", "--log", "my.log", cwd=tmp_path, status=2)
    assert "not readable as JSON" in (tmp_path / "my.log").read_text()
    assert "not readable as JSON" in done.stderr
