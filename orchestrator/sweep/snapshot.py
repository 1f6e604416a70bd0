"""The user's code as it was when the sweep was planned."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.provenance import record_provenance

# Code is small. More than this is data or checkpoints that nobody ignored.
MOST_BYTES = 100 * 2**20
_SKIPPED = {"__pycache__", "node_modules", "sweeps", "build", "dist"}


def take_snapshot(folder: Path, directory: SweepDirectory, named: Sequence[Path] = ()) -> None:
    """Copy the code beside a sweep file (tracked and untracked, ignored left out) into the sweep.

    A folder without code, as when a built-in job is swept, leaves an empty snapshot. Where the code comes
    from is written down beside it.

    Args:
        folder: of the sweep file.
        directory: of the sweep.
        named: files in the folder that are code too, besides Python's: those of a command.

    Raises:
        UserError: the folder holds too much to be code.
    """
    files = [path for path in list_code(folder) if not path.is_relative_to(directory.path)]
    files += [path for path in named if path not in files]
    if not named and not any(path.suffix == ".py" for path in files):
        files = []
    sizes = {path: _size(path) for path in files}
    if (total := sum(sizes.values())) > MOST_BYTES:
        largest = max(files, key=lambda path: sizes[path])
        raise UserError(
            f"holds {total / 2**20:.0f} MB beside the sweep file, too much for a snapshot of the code",
            file=folder,
            hint=f"Move {largest.name} elsewhere or have git ignore it",
        )
    incoming, outgoing = (directory.snapshot.with_name(f"snapshot.{way}") for way in ("incoming", "outgoing"))
    for litter in (incoming, outgoing):
        shutil.rmtree(litter, ignore_errors=True)
    incoming.mkdir(parents=True)
    for path in files:
        target = incoming / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # an editor's temporary file, gone by now
            shutil.copy2(path, target)
    # Tasks may be reading the one before: it is away for an instant, not while a tree is deleted.
    if directory.snapshot.exists():
        directory.snapshot.rename(outgoing)
    incoming.rename(directory.snapshot)
    shutil.rmtree(outgoing, ignore_errors=True)
    record_provenance(folder, directory)


def list_code(folder: Path) -> list[Path]:
    """List the files of a folder that git tracks or would track, or all that look like code without git.

    Submodules and repositories within it are listed as git sees them from inside; a link to a folder of
    Python code is followed.
    """
    command = ["git", "-C", str(folder), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "."]
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return list(_walk(folder))
    paths: list[Path] = []
    # A file with a conflict is listed once for each side, one that was deleted is still tracked.
    for path in dict.fromkeys(folder / os.fsdecode(name) for name in listed.split(b"\0") if name):
        if path.is_file():
            paths.append(path)
        elif path.is_symlink() and path.is_dir():
            paths += _behind(path)
        elif (path / ".git").exists():
            paths += list_code(path)
    return paths


def _behind(link: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """List the files behind a link to a folder of code, as paths through the link."""
    target = link.resolve()
    # A link that leads upwards leads to itself again; one to a data set, which git often does not ignore,
    # is no code.
    if target in above or link.absolute().is_relative_to(target) or not any(target.glob("*.py")):
        return []
    return _walk(link, above | {target})


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _walk(folder: Path, above: frozenset[Path] = frozenset()) -> list[Path]:
    """List a folder that is under no version control, without hidden folders and virtual environments."""
    paths: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in _SKIPPED or (path / "pyvenv.cfg").exists():
            continue
        if path.is_symlink() and path.is_dir():
            paths += _behind(path, above)
        elif path.is_dir():
            paths += _walk(path, above)
        elif path.is_file() and path.stat().st_size <= 2**20:
            paths.append(path)
    return paths
