"""README and the docs are true: their commands exist, their examples plan and run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from commands import assert_finished, command, environment, orchestrate
from orchestrator.cli import main
from orchestrator.schema import COMBINE, MEMBERS, MOMENTS, EnsembleConfig, FinalConfig, StudentConfig

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
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


def program(name: str) -> ModuleType:
    """Return docs/NAME.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_generated_pages_are_what_the_program_says(tmp_path: Path, monkeypatch: Any) -> None:
    # In a process of its own: click keeps what the options of a command were in its first call, and tests
    # call some commands apart from the group, without its settings.
    checked = subprocess.run(
        [sys.executable, DOCS / "generate.py", "--check"], capture_output=True, text=True
    )
    assert (checked.returncode, checked.stderr) == (0, "")
    generate = program("generate")
    monkeypatch.setattr(generate, "HERE", tmp_path)
    assert generate.main(["--check"]) == 1
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    (tmp_path / "commands.md").write_text((tmp_path / "commands.md").read_text().replace("--watch", "--look"))
    assert generate.stale() == ["commands.md"]


def test_the_reference_has_every_key_and_every_command() -> None:
    generate = program("generate")
    for section in generate.sections():
        for field in fields(section.config):
            assert f"\n| `{field.name}` |" in (DOCS / "reference.md").read_text()
    paths = [section.path for section in generate.sections()]
    assert {"", "stages.NAME", "final", "ensemble.student", "jobs.cost", "slurm"} <= set(paths)
    for name, each in main.commands.items():
        text = (DOCS / "commands.md").read_text()
        assert f"### orchestrate {name}\n" in text
        for parameter in each.params:
            assert all(option in text for option in parameter.opts if option.startswith("-")), parameter.name


def test_a_key_without_a_comment_is_refused() -> None:
    generate = program("generate")
    meanings = generate.comments("class A:\n    # first\n    # second\n    x: int = 0\n    y: int = 1\n")
    assert meanings == {"A": {"x": "first second", "y": ""}}
    with pytest.raises(SystemExit, match=r"MetricConfig\.name has no comment"):
        generate.table(generate.sections()[1], {})


def shown(page: str) -> list[tuple[str, str, str]]:
    """Return the language, title and text of each block of a page."""
    return re.findall(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def alike(line: str) -> str:
    """Return a line without what differs from machine to machine: numbers, and how wide columns are."""
    return re.sub(r"─+", "─", re.sub(r"\s+", " ", re.sub(r"\d[\d.,]*(?:e-?\d+)?", "#", line))).strip()


def run_console(text: str, folder: Path) -> None:
    """Run what stands behind `$`, and find each line that is shown below it in what it prints."""
    for call in re.split(r"^\$ ", text, flags=re.M)[1:]:
        line, *expected = call.splitlines()
        name, *arguments = shlex.split(line)
        words = command(*arguments) if name == "orchestrate" else [sys.executable, *arguments]
        settings = {**environment(), "COLUMNS": "100"}
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240, env=settings)
        wrong = any(each.startswith("error:") for each in expected)
        assert done.returncode == (2 if wrong else 0), f"{line}\n{done.stdout}\n{done.stderr}"
        printed = {alike(each) for each in (done.stdout + done.stderr).splitlines()}
        assert [each for each in expected if each != "..." and alike(each) not in printed] == [], done.stdout


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    for language, title, text in shown("tutorial.md"):
        if title:
            (tmp_path / title).write_text(text)
        elif language == "console":
            run_console(text, tmp_path)
    table = pd.read_parquet(tmp_path / "sweeps" / "first" / "results" / "trials")
    assert table.groupby("stage", observed=True).size().to_dict() == {"coarse": 32, "fine": 12, "final": 4}


@pytest.mark.parametrize("page", ["sweep-file.md", "writing-a-job.md"])
def test_the_sweep_files_of_the_docs_are_planned(page: str, tmp_path: Path) -> None:
    files = [text for language, _, text in shown(page) if language == "yaml" and "\nstages:" in text]
    assert files
    (tmp_path / "my_train.py").write_text("def train(config, trial):\n    return {}\n")
    (tmp_path / "sweep.yaml").write_text(files[0])
    assert "total:" in orchestrate("plan", "sweep.yaml", "--dry-run", cwd=tmp_path).stdout


def test_python_in_the_docs_is_python() -> None:
    for page in sorted(DOCS.glob("*.md")):
        for language, _, text in shown(page.name):
            if language == "python":
                compile(text, page.name, "exec")


def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs the extra docs")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    settings = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=settings, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in DOCS.glob("*.md")} <= pages
    for path in [*(tmp_path / "site").rglob("*.html"), *(tmp_path / "site").rglob("*.css")]:
        text = path.read_text()
        assert not re.search(r"url\([\"']?(?:https?:)?//|@import", text), path
        assert not program("hooks").LOADED.search(text), path


def test_a_page_that_would_ask_another_host_is_refused() -> None:
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    loaded = program("hooks").LOADED
    for asking in (
        '<script src="https://host/x.js">',
        "<img alt=x src=//host/x.png>",
        '<link href="https://host/x.css" rel="stylesheet">',
        '<link rel="preconnect" href="https://host">',
    ):
        assert loaded.search(asking), asking
    for quiet in ('<a href="https://host/">', '<script src="x.js">', '<link rel="canonical" href="//host">'):
        assert not loaded.search(quiet), quiet
