"""Opening an Optuna storage: a database by its URL or a journal file, with errors that a person can read.

Nothing is made where something is only read, and nothing of Optuna's is put into a file of something else.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError

if TYPE_CHECKING:
    import optuna
    import sqlalchemy

# SQLite is asked for its lock for so long, and Optuna asks up to five times before it gives up writing.
LOCK_SECONDS = 4.0
SQLITE, JOURNAL = (".db", ".sqlite", ".sqlite3"), (".log", ".journal", ".jsonl")
_HOW = "Write sqlite:///FILE.db, postgresql://..., or a journal file: FILE.log"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an Optuna storage is.

    Attributes:
        shown: for messages and commands, without a password.
        url: of a database; empty for a journal file.
        path: the file of a journal or of SQLite; None: a server.
    """

    shown: str
    url: str
    path: Path | None


def find_place(storage: str, folder: Path = Path()) -> Place:
    """Read where a storage is: a database's URL, or the path of a SQLite or journal file.

    Args:
        storage: as the user wrote it.
        folder: where relative paths start.

    Raises:
        UserError: it is neither.
    """
    import sqlalchemy

    if "://" not in storage:
        path = folder / Path(storage).expanduser()
        # An empty file is what SQLite leaves that was ended right after it made one.
        new = not path.is_file() or not path.stat().st_size
        if _is_sqlite(path) or (path.suffix in SQLITE and new):
            url = sqlalchemy.URL.create("sqlite", database=str(path))
            return Place(shown=f"sqlite:///{storage}", url=str(url), path=path)
        if path.is_dir() or (path.suffix not in JOURNAL and not path.is_file()):
            raise UserError(f"'{storage}' names no Optuna storage", hint=_HOW)
        return Place(shown=storage, url="", path=path)
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        # The text is not repeated: there may be a password in it.
        raise UserError("this is no URL of a database", hint=_HOW) from None
    if url.get_backend_name() == "redis":
        raise UserError("storages in Redis are not supported", hint=_HOW)
    shown = url.render_as_string(hide_password=True)
    if url.get_backend_name() != "sqlite" or "uri" in url.query:
        return Place(shown=shown, url=url.render_as_string(hide_password=False), path=None)
    if url.database in (None, "", ":memory:"):
        raise UserError(f"'{shown}' is gone when this command ends", hint=_HOW)
    path = folder / str(url.database)
    located = url.set(database=str(path)).render_as_string(hide_password=False)
    return Place(shown=shown, url=located, path=path)


@contextlib.contextmanager
def open_storage(place: Place, *, write: bool) -> Iterator[optuna.storages.BaseStorage]:
    """Give an Optuna storage for the length of a `with` block, and close it.

    Args:
        place: where it is.
        write: it may be made where there is none, and is going to be written to.

    Raises:
        UserError: there is none, it is something else's, damaged, locked for too long or of another version
            of Optuna; also when that comes to light inside the block.
    """
    import optuna
    import sqlalchemy

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    _look(place, write=write)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            with _database(place, write=write) if place.url else _journal(place) as storage:
                yield storage
        except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise _readable(error, place) from None
        except PermissionError:
            raise UserError(f"'{place.shown}' may not be opened (no permission)") from None


def _look(place: Place, *, write: bool) -> None:
    """Check the file of a storage before Optuna would make one, or go on behind half a line."""
    if (path := place.path) is None:
        return
    if not path.exists():
        if not write:
            raise UserError(f"there is no Optuna storage '{place.shown}'", hint=_near(path))
        if not path.parent.is_dir():
            raise UserError(f"there is no folder '{path.parent}' for an Optuna storage")
    elif write and not place.url and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, 2)
            if file.read() != b"\n":
                raise UserError(
                    f"the last line of '{place.shown}' is torn: who wrote it is at it, or died",
                    hint="Call this again; where it stays, delete that half line",
                )


def _near(path: Path) -> str:
    from orchestrator.errors import nearest

    there = path.parent.iterdir() if path.parent.is_dir() else ()
    return nearest(path.name, [one.name for one in there if one.suffix in (*SQLITE, *JOURNAL)])


@contextlib.contextmanager
def _database(place: Place, *, write: bool) -> Iterator[optuna.storages.BaseStorage]:
    import optuna
    import sqlalchemy

    settings: dict[str, Any] = {"connect_args": {"timeout": LOCK_SECONDS}} if place.path is not None else {}
    try:
        engine = sqlalchemy.create_engine(place.url, **settings)
    except (ImportError, sqlalchemy.exc.NoSuchModuleError) as error:
        raise UserError(
            f"no driver for '{place.shown}' is installed ({error})", hint="Install it with pip"
        ) from None
    try:
        _check_tables(engine, place, write=write)
    finally:
        engine.dispose()
    try:
        storage = optuna.storages.RDBStorage(place.url, settings, skip_table_creation=not write)
    except RuntimeError as error:
        # The tables are of an older or newer Optuna; its words say what to do.
        raise UserError(f"'{place.shown}': {' '.join(str(error).split())}") from None
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _check_tables(engine: sqlalchemy.Engine, place: Place, *, write: bool) -> None:
    import sqlalchemy

    tables = sqlalchemy.inspect(engine).get_table_names()
    if "studies" in tables:
        return
    if not write:
        raise UserError(f"'{place.shown}' is no Optuna storage: it has no studies")
    if tables and place.path is not None:
        raise UserError(f"'{place.shown}' holds something else", hint="Give the name of a new file")


@contextlib.contextmanager
def _journal(place: Place) -> Iterator[optuna.storages.BaseStorage]:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    try:
        assert place.path is not None, "a journal is a file"
        # Of a relative path Optuna makes a lock that leads nowhere: one left behind is waited for for ever.
        storage = JournalStorage(JournalFileBackend(str(place.path.absolute())))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"'{place.shown}' is no Optuna journal, or is damaged") from None
    except AssertionError:
        # What Optuna does where it comes upon an operation that it does not know.
        raise UserError(
            f"'{place.shown}' is damaged, or a newer Optuna wrote it: it holds what Optuna "
            f"{optuna.__version__} does not know"
        ) from None
    yield storage


def _readable(error: Exception, place: Place) -> UserError:
    """Return what went wrong in a database in the driver's own words, the common causes in ours."""
    import sqlalchemy

    cause = error.__cause__ if error.__cause__ is not None else error
    if isinstance(cause, sqlalchemy.exc.DBAPIError) and cause.orig is not None:
        cause = cause.orig
    words = " ".join(str(cause).split()) or type(cause).__name__
    if "is locked" in words:
        return UserError(
            f"'{place.shown}' is locked by another program, and stayed so",
            hint="Call this again when that has ended; a journal file (FILE.log) bears several writers",
        )
    if "not a database" in words:
        return UserError(f"'{place.shown}' is no SQLite database")
    return UserError(f"'{place.shown}' can't be used ({words})")


def _is_sqlite(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(16) == b"SQLite format 3\x00"
