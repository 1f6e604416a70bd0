"""A new folder, whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import UserError
from orchestrator.sweep.files import sync_directory


def refuse_taken(out: Path) -> None:
    """Refuse a place where something is already.

    Raises:
        UserError: as said, or its parent is not there.
    """
    if out.exists() and not out.is_dir():
        raise UserError("is a file", file=out, hint="Say a folder that is not there yet")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(
            "is not empty", file=out, hint="Say a folder that is not there yet; nothing was touched"
        )
    if not out.parent.is_dir():
        raise UserError("there is no such folder", file=out.parent)


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder beside `out` that becomes it when all went well, and is gone otherwise."""
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        for folder in (temporary, *(each for each in temporary.rglob("*") if each.is_dir())):
            sync_directory(folder)
        try:
            # Over an empty folder this succeeds; over one that somebody filled meanwhile it does not.
            os.rename(temporary, out)
        except OSError as error:
            raise UserError(f"was taken meanwhile ({error.strerror})", file=out) from error
        sync_directory(out.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
