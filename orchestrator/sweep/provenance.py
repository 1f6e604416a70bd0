"""Provenance: which code, which packages, whose hand: what it takes to know later where results came from."""

from __future__ import annotations

import getpass
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import orchestrator
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import write_atomic, write_json

# Of the difference to the last commit so much is kept: more of it is data.
MOST_DIFF_BYTES = 2**20
GIT_SECONDS = 60.0


def provenance_path(directory: SweepDirectory) -> Path:
    """Return the file that says where the sweep's code came from."""
    return directory.path / "provenance.json"


def diff_path(directory: SweepDirectory) -> Path:
    """Return the file with the difference between the code and its last commit."""
    return directory.path / "snapshot.diff"


def record_provenance(folder: Path, directory: SweepDirectory) -> None:
    """Write down where the code in a folder comes from, and what plans the sweep.

    Args:
        folder: of the user's code; without git, or without a commit, what git would say is empty.
        directory: gets `provenance.json` and, where tracked files differ from the commit, `snapshot.diff`.
    """
    commit = _git(folder, "rev-parse", "--verify", "--quiet", "HEAD")
    diff = _diff(folder) if commit else b""
    if diff:
        write_atomic(diff_path(directory), _bounded(diff))
    else:
        diff_path(directory).unlink(missing_ok=True)
    write_json(
        provenance_path(directory),
        {
            "git": {
                "commit": commit,
                "branch": _git(folder, "symbolic-ref", "--short", "--quiet", "HEAD"),
                # as `git describe --dirty` has it: tracked files; the snapshot has the others
                "dirty": bool(diff),
                "diff": diff_path(directory).name if diff else "",
                "diff_cut": len(diff) > MOST_DIFF_BYTES,
            },
            "folder": os.fsencode(folder).decode(errors="replace"),
            "python": platform.python_version(),
            "executable": sys.executable,
            "orchestrator": orchestrator.__version__,
            "packages": installed(),
            "host": socket.gethostname(),
            "user": _user(),
            "time": time.time(),
        },
    )


def git_commit(directory: SweepDirectory) -> str:
    """Return the commit of a sweep's code, with -dirty where it differs; empty where none is known."""
    try:
        git = json.loads(provenance_path(directory).read_text())["git"]
        return f"{git['commit']}-dirty" if git["dirty"] else str(git["commit"])
    except (OSError, ValueError, KeyError, TypeError):
        # A task does not fail for want of it: a sweep that was planned by an older version has none.
        return ""


def installed() -> Mapping[str, str]:
    """Return the version of each installed distribution, by its name as the folder of its metadata has it."""
    found: dict[str, str] = {}
    # Later folders of the path are shadowed by earlier ones.
    for entry in reversed(sys.path):
        for folder in Path(entry).glob("*.dist-info") if entry and os.path.isdir(entry) else ():
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            if name:
                found[name] = version
    # An editable install of an older kind has no version in its folder's name.
    for name in {Path(p).stem for entry in sys.path if entry for p in Path(entry).glob("*.egg-info")}:
        try:
            found.setdefault(name.split("-")[0], metadata.version(name.split("-")[0]))
        except metadata.PackageNotFoundError:
            continue
    return dict(sorted(found.items()))


def _git(folder: Path, *arguments: str) -> str:
    """Return what git says, in one line; empty where there is no git, or no repository."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=GIT_SECONDS, env=_environment())
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _diff(folder: Path) -> bytes:
    """Return how tracked files, submodules' too, differ from the last commit; a little more than is kept."""
    command = ["git", "-C", str(folder), "diff", "HEAD", "--submodule=diff"]
    command += ["--no-color", "--no-ext-diff", "--no-textconv"]
    try:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        ) as git:
            assert git.stdout is not None
            diff = git.stdout.read(MOST_DIFF_BYTES + 1)
            git.kill()
    except OSError:
        return b""
    return diff


def _bounded(diff: bytes) -> bytes:
    if len(diff) <= MOST_DIFF_BYTES:
        return diff
    whole = diff[: diff.rfind(b"\n", 0, MOST_DIFF_BYTES) + 1]
    return whole + f"# cut here: more than {MOST_DIFF_BYTES / 2**20:g} MB\n".encode()


def _environment() -> dict[str, str]:
    # A repository of somebody else's is only read, and nobody is asked for anything.
    return {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may know no name for it
        return str(os.getuid())
