"""The user's code as it was when the sweep was planned."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory

# Code is small. More than this is data or checkpoints that nobody ignored.
MOST_BYTES = 100 * 2**20
_SKIPPED = {"__pycache__", "node_modules", "sweeps", "build", "dist"}


def take_snapshot(folder: Path, directory: SweepDirectory) -> None:
    """Copy the code beside a sweep file (tracked and untracked, ignored left out) into the sweep.

    A folder without Python code, as when a built-in job is swept, leaves an empty snapshot.

    Raises:
        UserError: the folder holds too much to be code.
    """
    files = [path for path in _files(folder) if not path.is_relative_to(directory.path)]
    if not any(path.suffix == ".py" for path in files):
        files = []
    total = sum(path.stat().st_size for path in files)
    if total > MOST_BYTES:
        largest = max(files, key=lambda path: path.stat().st_size)
        raise UserError(
            f"holds {total / 2**20:.0f} MB beside the sweep file, too much for a snapshot of the code",
            file=folder,
            hint=f"Move {largest.name} elsewhere or have git ignore it",
        )
    incoming = directory.snapshot.with_name("snapshot.incoming")
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    for path in files:
        target = incoming / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    shutil.rmtree(directory.snapshot, ignore_errors=True)
    incoming.rename(directory.snapshot)


def _files(folder: Path) -> list[Path]:
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
        paths = [folder / name for name in listed.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        paths = list(_walk(folder))
    return [path for path in paths if path.is_file()]


def _walk(folder: Path) -> list[Path]:
    """List a folder that is under no version control, without hidden folders and virtual environments."""
    paths: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED or (path / "pyvenv.cfg").exists():
            continue
        if path.is_dir() and not path.is_symlink():
            paths += _walk(path)
        elif path.is_file() and path.stat().st_size <= 2**20:
            paths.append(path)
    return paths
