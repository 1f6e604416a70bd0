"""Where MLflow's runs are kept: a database, a folder or a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.errors import UserError

SQLITE = (".db", ".sqlite", ".sqlite3")
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_HOW = "Write sqlite:///FILE.db, postgresql://..., the address of a server (http://...), or a folder"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where runs are kept.

    Attributes:
        uri: as MLflow takes it.
        shown: for messages and commands, without a password.
        path: the file of SQLite or the folder; None: a server of either kind.
        look: how to see what is there.
    """

    uri: str
    shown: str
    path: Path | None
    look: str

    @property
    def is_folder(self) -> bool:
        """Whether each run is a folder of files."""
        return self.uri.startswith("file:")

    @property
    def is_server(self) -> bool:
        """Whether it is one of MLflow's own servers."""
        return self.uri.startswith("http")


def find_place(out: str, folder: Path = Path()) -> Place:
    """Read where runs are to be kept.

    Args:
        out: as the user wrote it: the URL of a database or a server, or the path of a file or folder.
        folder: where relative paths start.

    Raises:
        UserError: it is nothing of the kind.
    """
    if out.startswith("file:"):
        parts = urlsplit(out)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise UserError(
                f"'{out}' names no folder of this machine", hint="Write file:///FOLDER, or its path"
            )
        return _folder(Path(parts.path), out)
    if "://" not in out:
        path = folder / Path(out).expanduser()
        if path.suffix in SQLITE or path.is_file():
            return _sqlite(path, f"sqlite:///{out}")
        if out in ("", "databricks", "uc"):
            raise UserError(f"'{out}' is no place that this command knows", hint=_HOW)
        return _folder(path, out)
    scheme = out.partition("://")[0].partition("+")[0].lower()
    if scheme in ("http", "https"):
        return _server(out)
    if scheme not in DATABASES:
        raise UserError(f"'{scheme}://' is no kind of place that this command knows", hint=_HOW)
    return _database(out, folder)


def _folder(path: Path, shown: str) -> Place:
    look = f"MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {shown}"
    return Place(uri=path.absolute().as_uri(), shown=shown, path=path, look=look)


def _sqlite(path: Path, shown: str) -> Place:
    look = f"mlflow ui --backend-store-uri {shown}"
    return Place(uri=f"sqlite:///{path}", shown=shown, path=path, look=look)


def _server(out: str) -> Place:
    parts = urlsplit(out)
    if not parts.hostname:
        raise UserError("this is no address of a server", hint=_HOW)
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
    return Place(uri=out.rstrip("/"), shown=shown, path=None, look=shown)


def _database(out: str, folder: Path) -> Place:
    import sqlalchemy

    try:
        url = sqlalchemy.make_url(out)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The text is not repeated: there may be a password in it.
        raise UserError("this is no URL of a database", hint=_HOW) from None
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise UserError(f"'{shown}' is gone when this command ends", hint=_HOW)
        return _sqlite(folder / str(url.database), shown)
    return Place(uri=out, shown=shown, path=None, look=f"mlflow ui --backend-store-uri {shown}")
