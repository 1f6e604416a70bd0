"""The command itself: what it imports, its help, its plan, and the installed wheel."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import commands
from commands import loaded_after, orchestrate, write_user_sweep
from orchestrator.cli import main

ROOT = Path(__file__).parent.parent


def test_importing_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_after("import orchestrator.cli", tmp_path) == set()
    assert loaded_after("import pandas", tmp_path) == {"pandas"}, "the test can see what is loaded"


@pytest.mark.parametrize(
    "arguments",
    [["plan", str(ROOT / "examples/digits.yaml")], ["status", "sweeps/mine"], ["advance", "sweeps/mine"]],
    ids=lambda arguments: str(arguments[0]),
)
def test_commands_that_do_not_train_load_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    write_user_sweep(tmp_path)
    orchestrate("plan", "sweep.yaml", cwd=tmp_path)
    cancelled = tmp_path / "sweeps" / "mine" / "cancelled.json"
    cancelled.write_text("{}")  # so that advance has nothing to start
    code = f"from orchestrator.cli import main\nmain({arguments!r}, standalone_mode=False)"
    if arguments[0] == "advance":
        code = f"from orchestrator.cli import main\ntry: main({arguments!r})\nexcept SystemExit: pass"
    assert loaded_after(code, tmp_path) == set()


def test_every_command_has_help_with_an_example(tmp_path: Path) -> None:
    shown = orchestrate("--help", cwd=tmp_path).stdout
    for name, command in main.commands.items():
        assert name in shown
        text = command.help or ""
        assert f"orchestrate {name}" in text, f"{name} has no example"


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    done = orchestrate("statsu", cwd=tmp_path, status=2)
    assert "Did you mean 'status'?" in done.stderr


def test_plan_shows_the_ladder_and_freezes_it(tmp_path: Path) -> None:
    file = ROOT / "examples" / "digits.yaml"
    changes = ["stages.coarse.trials=128", "slurm=gpu", "--dry-run", "--json"]
    dry = orchestrate("plan", file, *changes, cwd=tmp_path)
    content = json.loads(dry.stdout)
    assert not (tmp_path / "sweeps").exists(), "a dry run writes nothing"
    checks, coarse = content["phases"][:2]
    assert (checks["kind"], checks["trials"]) == ("checks", 1)
    assert (coarse["trials"], coarse["samples"], content["unit"]) == (128, 21, "GPU")
    assert 0 < content["full_scale_share"] < 0.5
    shown = orchestrate("plan", file, cwd=tmp_path).stdout
    for word in (
        "coarse",
        "medium",
        "fine",
        "final",
        "ensemble",
        "21 (10%)",
        "core-hours",
        "survivors",
        "tpe",
    ):
        assert word in shown, word
    assert (tmp_path / "sweeps/digits/plan.json").exists()
    # The same plan again is no error, and changes nothing.
    before = (tmp_path / "sweeps/digits/plan.json").read_text()
    orchestrate("plan", file, cwd=tmp_path)
    assert (tmp_path / "sweeps/digits/plan.json").read_text() == before


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel and install it, and nothing else, into a folder."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    wheel = next(folder.glob("*.whl"))
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--target",
        str(folder / "site"),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "site"


def call_installed(site: Path, folder: Path, *arguments: str) -> str:
    """Call the installed wheel's command from another folder."""
    environment = {**commands.environment(), "PYTHONPATH": str(site)}
    where = "import orchestrator, sys; print(orchestrator.__file__, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{where}\nfrom orchestrator.cli import main\nmain()", *arguments],
        cwd=folder, capture_output=True, text=True, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(str(site)), "the installed wheel is what is tested"
    return done.stdout


def test_the_wheel_runs_from_another_directory(tmp_path: Path, site: Path) -> None:
    write_user_sweep(tmp_path)
    assert (site / "orchestrator" / "py.typed").exists()
    # The built-in catalogues came with it.
    (tmp_path / "builtin.yaml").write_text(
        "defaults: [sweep, {jobs: classify}, {datasets: glyphs}, {slurm: gpu}, _self_]\n"
        "name: builtin\nmetric: {name: val/accuracy}\n"
        "space: {optimizer.lr: 'tag(log, interval(1e-4, 1))'}\nstages: {one: {trials: 4}}\n"
    )
    assert "builtin" in call_installed(site, tmp_path, "plan", "builtin.yaml")
    call_installed(site, tmp_path, "run", "sweep.yaml")
    commands.assert_finished(tmp_path / "sweeps" / "mine")


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm")
def test_the_wheel_runs_a_users_function_on_slurm(tmp_path: Path, site: Path) -> None:
    write_user_sweep(tmp_path)
    call_installed(site, tmp_path, "run", "sweep.yaml", "slurm=gpu", "slurm.cpus_per_task=1")
    commands.assert_finished(tmp_path / "sweeps" / "mine")
    assert all(file.header["slurm_job_id"] for file in commands.record_files(tmp_path / "sweeps" / "mine"))
