"""Files that are either whole or absent: temporary file, flush to disk, rename."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from orchestrator.errors import UserError

Understood = TypeVar("Understood")


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a whole file so that a reader, or a crash at any instant, never sees half of it."""
    data = content.encode() if isinstance(content, str) else content

    def write(temporary: Path) -> None:
        temporary.write_bytes(data)

    replace_atomic(path, write)


def replace_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, flush it to disk and move it into place."""
    with _temporary(path, write) as temporary:
        os.replace(temporary, path)
        sync_directory(path.parent)


def create_exclusive(path: Path, content: str) -> bool:
    """Create a whole file unless it exists; True for exactly one of any number of callers."""
    return create_from(path, lambda temporary: temporary.write_text(content))


def create_from(path: Path, write: Callable[[Path], object]) -> bool:
    """Let `write` fill a temporary file, and make it `path` unless that exists; True for exactly one caller.

    A link is atomic on NFS too, where O_EXCL alone leaves a moment in which the file is there and empty.
    """
    with _temporary(path, write) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_directory(path.parent)
        return True


@contextlib.contextmanager
def _temporary(path: Path, write: Callable[[Path], object]) -> Iterator[Path]:
    """Give a file beside `path` that `write` has filled and that is on disk; it is gone afterwards."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A hidden name: Parquet readers and our own globs pass over it when a crash leaves it behind.
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_directory(directory: Path) -> None:
    """Flush a directory's entries, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically."""
    write_atomic(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is not readable JSON (ours are written whole, so somebody else changed it).
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(
            f"not readable as JSON ({error})", file=path, hint="Restore it, or plan anew"
        ) from None


def read_as(path: Path, understand: Callable[[Any], Understood], what: str) -> Understood:
    """Read a JSON file, and return what is made of its content.

    Args:
        path: of the file.
        understand: of the content; what it stumbles over (a part that is not there, or is of another kind)
            is a fault of the file.
        what: the file is to be, for the message: "a submission".

    Raises:
        UserError: it is not readable JSON, or something else's.
    """
    content = read_json(path)
    try:
        return understand(content)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"not {what} of this version ({why})", file=path, hint="Restore it, or plan anew"
        ) from None
