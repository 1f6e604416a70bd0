"""Provenance: where a sweep's code comes from, with git and without."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytest

import orchestrator
from orchestrator.sweep import provenance
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import read_json
from orchestrator.sweep.provenance import diff_path, git_commit, installed, provenance_path, record_provenance


def git(folder: Path, *arguments: str) -> str:
    own = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"]
    done = subprocess.run(["git", "-C", str(folder), *own, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "größe and 'quotes'"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "trunk")
    (folder / "my_train.py").write_text("a = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def recorded(folder: Path, directory: SweepDirectory) -> dict[str, Any]:
    directory.path.mkdir(exist_ok=True)
    record_provenance(folder, directory)
    content: dict[str, Any] = read_json(provenance_path(directory))
    return content


def test_a_clean_repository(repository: Path, tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path / "s")
    (repository / "untracked.py").touch()
    content = recorded(repository, directory)
    commit = git(repository, "rev-parse", "HEAD")
    assert content["git"] == {
        "commit": commit, "branch": "trunk", "dirty": False, "diff": "", "diff_cut": False,
    }  # fmt: skip
    assert not diff_path(directory).exists() and git_commit(directory) == commit
    assert content["python"] == platform.python_version()
    assert content["orchestrator"] == orchestrator.__version__
    assert content["packages"]["numpy"] and content["host"] and content["user"] and content["time"] > 0


def test_what_differs_from_the_commit_is_kept(repository: Path, tmp_path: Path) -> None:
    directory = SweepDirectory(tmp_path / "s")
    (repository / "my_train.py").write_text("a = 2\n")
    assert recorded(repository, directory)["git"]["diff"] == "snapshot.diff"
    assert git_commit(directory) == git(repository, "rev-parse", "HEAD") + "-dirty"
    assert "-a = 1\n+a = 2\n" in diff_path(directory).read_text()
    # It can be applied to that commit.
    git(repository, "checkout", "-q", "my_train.py")
    git(repository, "apply", str(diff_path(directory)))
    assert (repository / "my_train.py").read_text() == "a = 2\n"
    # Once there is no difference any more, none is kept.
    git(repository, "checkout", "-q", "my_train.py")
    assert not recorded(repository, directory)["git"]["dirty"] and not diff_path(directory).exists()


def test_a_large_difference_is_cut(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "MOST_DIFF_BYTES", 2000)
    directory = SweepDirectory(tmp_path / "s")
    (repository / "my_train.py").write_text("".join(f"line {n}\n" for n in range(100_000)))
    assert recorded(repository, directory)["git"]["diff_cut"]
    lines = diff_path(directory).read_text().splitlines()
    assert diff_path(directory).stat().st_size < 2100
    assert lines[-1].startswith("# cut here") and lines[-2].startswith("+line ")


def test_a_changed_submodule_is_in_the_difference(repository: Path, tmp_path: Path) -> None:
    git(repository, "submodule", "add", "-q", str(repository), "sub")
    git(repository, "commit", "-q", "-m", "with a submodule")
    (repository / "sub" / "my_train.py").write_text("a = 3\n")
    directory = SweepDirectory(tmp_path / "s")
    assert recorded(repository, directory)["git"]["dirty"]
    assert "+a = 3" in diff_path(directory).read_text()


def test_a_repository_without_commits(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "trunk")
    (tmp_path / "my_train.py").touch()
    git(tmp_path, "add", ".")
    directory = SweepDirectory(tmp_path / "s")
    content = recorded(tmp_path, directory)["git"]
    assert content["commit"] == "" and content["branch"] == "trunk" and not content["dirty"]
    assert git_commit(directory) == ""


@pytest.mark.parametrize("installed_git", [True, False])
def test_without_a_repository_or_without_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed_git: bool
) -> None:
    if not installed_git:
        monkeypatch.setenv("PATH", str(tmp_path))
    directory = SweepDirectory(tmp_path / "s")
    content = recorded(tmp_path, directory)
    assert content["git"]["commit"] == content["git"]["branch"] == ""
    assert content["folder"] == str(tmp_path) and git_commit(directory) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"git": null}', '{"git": {}}'])
def test_a_sweep_without_provenance_has_no_commit(tmp_path: Path, text: str) -> None:
    directory = SweepDirectory(tmp_path)
    assert git_commit(directory) == ""
    provenance_path(directory).write_text(text)
    assert git_commit(directory) == ""


def test_earlier_folders_of_the_path_shadow_later_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place, version in (("first", "2.0"), ("second", "1.0")):
        (tmp_path / place / f"some_thing-{version}.dist-info").mkdir(parents=True)
    monkeypatch.setattr("sys.path", [str(tmp_path / "first"), "", str(tmp_path / "second"), "/nowhere"])
    assert installed() == {"some_thing": "2.0"}
