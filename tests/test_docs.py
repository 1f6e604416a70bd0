"""README is true: its commands exist, its examples plan and run as they stand."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from commands import assert_finished, orchestrate
from orchestrator.cli import main
from orchestrator.schema import COMBINE, MEMBERS, MOMENTS, EnsembleConfig, FinalConfig, StudentConfig

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_every_command_is_in_the_readme_and_every_command_there_exists() -> None:
    documented = set(re.findall(r"\| `orchestrate (\w+)", README))
    assert documented == set(main.commands)


def test_the_readmes_sweep_file_is_planned(tmp_path: Path) -> None:
    built_in = next(text for text in blocks("yaml") if "jobs: classify" in text)
    (tmp_path / "sweep.yaml").write_text(built_in)
    assert "ensemble" in orchestrate("plan", "sweep.yaml", "slurm=gpu", cwd=tmp_path).stdout


def test_the_readmes_own_training_function_runs(tmp_path: Path) -> None:
    function = next(text for text in blocks("python") if "def train" in text)
    (tmp_path / "my_train.py").write_text(function.replace("        ...  ", "        accuracy = config.lr  "))
    own = next(text for text in blocks("yaml") if "my_train.train" in text)
    (tmp_path / "sweep.yaml").write_text(own)
    changes = ["stages.coarse.trials=8", "stages.fine.trials=4", "final.epochs=2", "slurm.trials_at_once=2"]
    orchestrate("run", "sweep.yaml", *changes, cwd=tmp_path)
    assert_finished(tmp_path / "sweeps" / "mine", trials=8 + 4 + 9)


def test_the_paths_that_the_readme_names_are_there() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / path).exists(), path


def test_the_version_is_in_the_changelog() -> None:
    from orchestrator import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_every_row_of_the_practice_names_what_is_there() -> None:
    text = (ROOT / "docs" / "practice.md").read_text()
    rows = re.findall(r"^\| ([B-F]\d+(?:, [B-F]\d+)*) \|(.*)\|$", text, re.MULTILINE)
    named = {row for rows_of_line, _ in rows for row in rows_of_line.split(", ")}
    most = {"B": 10, "C": 12, "D": 8, "E": 10, "F": 8}
    assert {f"{part}{number}" for part, last in most.items() for number in range(1, last + 1)} <= named
    for test in set(re.findall(r"\btest_\w+", text)):
        assert (ROOT / "tests" / f"{test}.py").exists(), test
    experiments = {path.stem for path in (ROOT / "benchmarks" / "practice" / "experiments").glob("[a-z]*.py")}
    results = (ROOT / "benchmarks" / "practice" / "results.md").read_text()
    for name in experiments:
        assert name in text, f"{name} stands in no row"
        assert f"figures/{name}.svg" in results, f"{name} has no result"


def test_every_key_of_final_runs_and_ensembles_is_explained() -> None:
    text = (ROOT / "docs" / "ensembles.md").read_text()
    words = set(re.findall(r"\w+", text))
    for config in (FinalConfig, EnsembleConfig, StudentConfig):
        assert {field.name for field in fields(config)} <= words
    assert {*MEMBERS, *COMBINE, *MOMENTS} <= words
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (ROOT / "docs" / path).exists(), path
