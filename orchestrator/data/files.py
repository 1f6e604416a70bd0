"""Files that are not there, or not what they should be."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError, nearest

_TEXT = {".csv": "read_csv", ".tsv": "read_table", ".txt": "read_table", ".json": "read_json"}
_FEW = 10  # names are worth a line
_TABLES = _TEXT | {".xlsx": "read_excel", ".xls": "read_excel", ".feather": "read_feather"}


def existing(path: str, *, named: str) -> Path:
    """Return a path that is there.

    Args:
        path: of a file or folder.
        named: what it should be, such as "a Parquet table"; for a file that is clearly something else.

    Raises:
        UserError: it is not there (the nearest name in its folder is given), or it is a kind of file that
            no source reads (how to convert it is given).
    """
    wanted = Path(path)
    if not wanted.exists():
        raise UserError("there is no such file", file=path, hint=_near(wanted))
    if wanted.is_file() and (reader := _TABLES.get(wanted.suffix.lower())):
        converted = wanted.with_suffix(".parquet").name
        raise UserError(
            f"is a *{wanted.suffix}, not {named}",
            file=path,
            hint=f"Convert it once: python -c \"import pandas; pandas.{reader}('{wanted.name}')"
            f".to_parquet('{converted}')\"",
        )
    return wanted


def folder_of(path: str, *, named: str) -> Path:
    """Return a path that is there and a folder.

    Raises:
        UserError: as `existing`, or it is a file.
    """
    folder = existing(path, named=named)
    if not folder.is_dir():
        raise UserError(f"is a file, not {named}", file=path, hint="Say the folder's path")
    return folder


def _near(wanted: Path) -> str:
    """Name the nearest file, all of them where they are few, or the folder that is missing too."""
    if not wanted.parent.is_dir():
        return f"Its folder {wanted.parent} is not there either"
    beside = [each.name for each in wanted.parent.glob("*") if not each.name.startswith(".")]
    hint = nearest(wanted.name, beside)
    return hint if hint.startswith("Did") or len(beside) <= _FEW else ""
