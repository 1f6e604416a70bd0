"""The snapshot of the user's code."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.sweep import snapshot
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.snapshot import take_snapshot


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# {name}\n")


def taken(folder: Path, directory: SweepDirectory | None = None) -> list[str]:
    directory = directory or SweepDirectory(folder / "sweeps" / "tiny")
    take_snapshot(folder, directory)
    assert not directory.path.joinpath("snapshot.incoming").exists()
    root = directory.snapshot
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def test_git_decides_what_is_code(repository: Path) -> None:
    fill(repository, "my_train.py", "pkg/größe a.py", "data/big.bin", ".hidden.py", "config.yaml")
    (repository / ".gitignore").write_text("data/\n")
    subprocess.run(["git", "-C", str(repository), "add", "my_train.py"], check=True)
    assert taken(repository) == [".gitignore", ".hidden.py", "config.yaml", "my_train.py", "pkg/größe a.py"]


def test_a_file_deleted_but_still_tracked_is_left_out(repository: Path) -> None:
    fill(repository, "my_train.py", "gone.py")
    subprocess.run(["git", "-C", str(repository), "add", "."], check=True)
    (repository / "gone.py").unlink()
    assert taken(repository) == ["my_train.py"]


def test_names_of_any_kind(repository: Path) -> None:
    odd = ["my_train.py", "new\nline.py", 'quo"te.py', "größe.py", "-rf.py", " blank .py"]
    fill(repository, *odd)
    bad = os.fsencode(repository) + b"/latin-\xe9.py"
    with open(bad, "w") as file:
        file.write("x = 1\n")
    assert taken(repository) == sorted([*odd, os.fsdecode(b"latin-\xe9.py")])


def test_submodules_and_repositories_within_are_taken_as_they_are(repository: Path, tmp_path: Path) -> None:
    inner = tmp_path.with_name("inner")
    fill(inner, "core.py", "ignored.py")
    (inner / ".gitignore").write_text("ignored.py\n")
    own = ["-c", "user.name=x", "-c", "user.email=x@x", "-c", "protocol.file.allow=always"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        subprocess.run(["git", "-C", str(inner), *own, *command], check=True)
    fill(repository, "my_train.py")
    add = ["submodule", "add", "-q", str(inner), "sub"]
    subprocess.run(["git", "-C", str(repository), *own, *add], check=True, capture_output=True)
    subprocess.run(["git", "clone", "-q", str(inner), str(repository / "clone")], check=True)
    (repository / "sub" / "core.py").write_text("changed\n")
    (repository / "sub" / "new.py").touch()
    (repository / "sub" / "ignored.py").touch()
    inside = [".gitignore", "core.py"]
    assert taken(repository) == sorted(
        [
            ".gitmodules",
            "my_train.py",
            *(f"clone/{n}" for n in inside),
            *(f"sub/{n}" for n in [*inside, "new.py"]),
        ]
    )
    assert (repository / "sweeps/tiny/snapshot/sub/core.py").read_text() == "changed\n"


def test_a_submodule_that_was_never_fetched_is_left_out(repository: Path) -> None:
    fill(repository, "my_train.py")
    index = ["update-index", "--add", "--cacheinfo", "160000," + "1" * 40 + ",sub"]
    subprocess.run(["git", "-C", str(repository), *index], check=True)
    (repository / "sub").mkdir()
    assert taken(repository) == ["my_train.py"]


@pytest.mark.parametrize("versioned", [True, False])
def test_links_to_code_are_followed_and_to_nothing_else(tmp_path: Path, versioned: bool) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "mine"
    fill(outside, "pkg/__init__.py", "pkg/deep/core.py", "one.py", "data/0001.txt")
    fill(folder, "my_train.py")
    if versioned:
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
    links = {"pkg": outside / "pkg", "one.py": outside / "one.py", "data": outside / "data", "up": tmp_path}
    for name, target in {**links, "broken.py": outside / "gone.py", "self": folder}.items():
        (folder / name).symlink_to(target)
    # Two folders that lead to each other.
    (outside / "pkg" / "back").symlink_to(outside / "pkg")
    assert taken(folder) == ["my_train.py", "one.py", "pkg/__init__.py", "pkg/deep/core.py"]
    assert not (folder / "sweeps/tiny/snapshot/pkg").is_symlink(), "what lies elsewhere may change"


def test_a_file_that_goes_away_meanwhile_is_left_out(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(repository, "my_train.py", "swap.py")
    listed = snapshot.list_code

    def then_gone(folder: Path) -> list[Path]:
        files = listed(folder)
        (repository / "swap.py").unlink()
        return files

    monkeypatch.setattr(snapshot, "list_code", then_gone)
    assert taken(repository) == ["my_train.py"]


def test_where_the_code_comes_from_is_written_beside_it(repository: Path) -> None:
    fill(repository, "my_train.py")
    taken(repository)
    assert json.loads((repository / "sweeps/tiny/provenance.json").read_text())["folder"] == str(repository)


def test_a_folder_within_a_repository_is_taken_alone(repository: Path) -> None:
    fill(repository, "other.py", "mine/my_train.py")
    assert taken(repository / "mine") == ["my_train.py"]


def test_a_folder_without_git(tmp_path: Path) -> None:
    fill(
        tmp_path, "my_train.py", "pkg/a.py", ".cache/x.py", "__pycache__/my_train.pyc", "venv/pyvenv.cfg",
        "venv/lib/torch.py", "node_modules/x.py", "sweeps/other/snapshot/old.py",
    )  # fmt: skip
    (tmp_path / "weights.bin").write_bytes(b"0" * (2**20 + 1))
    assert taken(tmp_path) == ["my_train.py", "pkg/a.py"]


def test_without_python_the_snapshot_is_empty(tmp_path: Path) -> None:
    fill(tmp_path, "sweep.yaml", "notes.txt")
    assert taken(tmp_path) == []
    assert (tmp_path / "sweeps" / "tiny" / "snapshot").is_dir()


def test_the_sweep_itself_is_left_out_wherever_it_lies(repository: Path) -> None:
    fill(repository, "my_train.py", "runs/tiny/plan.json", "runs/tiny/snapshot/my_train.py")
    assert taken(repository, SweepDirectory(repository / "runs" / "tiny")) == ["my_train.py"]


def test_a_new_snapshot_replaces_the_old_one(tmp_path: Path) -> None:
    fill(tmp_path, "my_train.py", "old.py")
    assert taken(tmp_path) == ["my_train.py", "old.py"]
    (tmp_path / "old.py").unlink()
    (tmp_path / "my_train.py").write_text("new = 1\n")
    fill(tmp_path / "sweeps" / "tiny" / "snapshot.incoming", "litter.py")
    assert taken(tmp_path) == ["my_train.py"]
    assert (tmp_path / "sweeps" / "tiny" / "snapshot" / "my_train.py").read_text() == "new = 1\n"


def test_too_much_to_be_code(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "MOST_BYTES", 1000)
    fill(repository, "my_train.py")
    (repository / "weights.pt").write_bytes(b"0" * 1001)
    with pytest.raises(UserError, match=r"too much for a snapshot.*Move weights\.pt elsewhere") as caught:
        taken(repository)
    assert caught.value.file == repository
    assert not (repository / "sweeps" / "tiny" / "snapshot").exists()
