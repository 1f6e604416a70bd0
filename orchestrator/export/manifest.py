"""manifest.json: what is in an exported folder, with a checksum for each file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.errors import UserError

FORMAT, VERSION = "orchestrate export", 1
NAME, CARD = "manifest.json", "README.md"
_NEEDED = ("task", "classes", "models", "networks", "inputs", "files")


@dataclass(frozen=True, kw_only=True, slots=True)
class Exported:
    """An exported folder that was opened.

    Attributes:
        folder: where it is now.
        manifest: the content of its manifest.json.
    """

    folder: Path
    manifest: Mapping[str, Any]

    def read(self, name: str) -> bytes:
        """Return the content of one of its files, checked.

        Raises:
            UserError: it is missing, or not what was written.
        """
        entry = self.manifest["files"].get(name)
        if entry is None or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"does not list '{name}'", file=self.folder / NAME)
        try:
            content = (self.folder / name).read_bytes()
        except OSError as error:
            raise UserError(f"cannot be read ({error.strerror})", file=self.folder / name) from error
        if len(content) != entry["bytes"] or digest(content) != entry["sha256"]:
            cut = len(content) < entry["bytes"]
            raise UserError(
                f"has {len(content)} of {entry['bytes']} bytes" if cut else "is not what was exported",
                file=self.folder / name,
                hint="Copy it again, or export anew",
            )
        return content


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def ids_digest(ids: NDArray[np.int64]) -> str:
    """Return a checksum of samples' ids (n,), in their order."""
    return digest(np.ascontiguousarray(ids, dtype="<i8").tobytes())


def list_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Return bytes and checksum of each file below a folder, by its path there, the manifest left out."""
    listed = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if (name := path.relative_to(folder).as_posix()) != NAME:
            content = path.read_bytes()
            listed[name] = {"bytes": len(content), "sha256": digest(content)}
    return listed


def open_exported(folder: Path) -> Exported:
    """Open an exported folder.

    Raises:
        UserError: it is none, is damaged, or is of a newer version.
    """
    path = folder / NAME
    if not path.is_file():
        what = (
            "is no exported folder: it has no manifest.json" if folder.is_dir() else "there is no such folder"
        )
        is_sweep = (folder / "plan.json").is_file()
        hint = (
            f"It is a sweep: orchestrate export {folder} OUT" if is_sweep else "Make one: orchestrate export"
        )
        raise UserError(what, file=folder, hint=hint)
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"not readable as JSON ({error})", file=path, hint="Export anew") from None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise UserError("is no manifest of `orchestrate export`", file=path)
    version = manifest.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise UserError(
            f"is of version {version}, and this package reads up to {VERSION}",
            file=path,
            hint=f"Use orchestrator {manifest.get('orchestrator', 'of a later version')}",
        )
    missing = [key for key in _NEEDED if not manifest.get(key) and key != "classes"]
    if missing:
        raise UserError(f"has no '{missing[0]}'", file=path, hint="Export anew")
    return Exported(folder=folder, manifest=manifest)
