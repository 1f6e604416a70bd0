"""Opening the place where MLflow's runs are kept, with errors that a person can read.

Nothing is made where something else lies, and a server that is gone is found out in seconds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import UserError
from orchestrator.integrations.mlflow_place import Place

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

CONNECT_SECONDS = 5.0
# What MLflow is told unless the user has told it otherwise. By itself it would try a server that is gone for
# minutes, print a line for each run, and send word of its use to its makers.
SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


@contextlib.contextmanager
def open_place(place: Place) -> Iterator[MlflowClient]:
    """Give MLflow's client of a place for the length of a `with` block.

    Raises:
        UserError: the place holds something else, or can't be reached or written to;
            also when that comes to light inside the block.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if place.is_folder:
        # Newer versions refuse folders unless they are told that one is meant.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    _look(place)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), _fast_when_new(place):
            # What MLflow still uses of other packages is for its makers to see.
            warnings.simplefilter("ignore", DeprecationWarning)
            yield MlflowClient(tracking_uri=place.uri)
    except MlflowException as error:
        raise _readable(str(error), place) from None
    except ImportError as error:
        raise UserError(
            f"no driver for '{place.shown}' is installed ({error})", hint="Install it with pip"
        ) from None
    except OSError as error:
        if place.path is None or not str(error.filename or "").startswith(str(place.path.absolute())):
            raise
        raise UserError(f"'{place.shown}' can't be written to ({error.strerror})") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] != "sqlalchemy":
            raise
        raise _readable(str(error), place) from None


@contextlib.contextmanager
def _fast_when_new(place: Place) -> Iterator[None]:
    """Do not wait for the disk while a new SQLite file is filled: MLflow commits four times for each run.

    A process that dies harms nothing. What a power cut could damage holds nothing but this sweep.
    """
    path = place.path
    if path is None or place.is_folder or _is_filled(path):
        yield
        return
    import sqlalchemy

    def relax(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
    if path.exists():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _look(place: Place) -> None:
    """Check a place before MLflow would make one, or wait for it, or mix itself with something else."""
    if place.is_server:
        _check_server(place)
    elif place.is_folder:
        assert place.path is not None, "a folder has a path"
        _check_folder(place.path)
    elif place.path is not None:
        _check_file(place, place.path)


def _check_folder(path: Path) -> None:
    if not path.is_dir():
        if path.exists():
            raise UserError("is no folder", file=path)
        return
    there = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
    if there and not any((entry / "meta.yaml").is_file() for entry in there):
        raise UserError("holds something else than runs of MLflow", file=path, hint="Give a new folder")


def _check_server(place: Place) -> None:
    import requests

    try:
        requests.get(f"{place.uri}/health", timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        why = "did not answer in time" if isinstance(error, requests.Timeout) else "can't be reached"
        hint = "Start one with `mlflow server`, or check the address"
        raise UserError(f"the server {place.shown} {why}", hint=hint) from None


def _check_file(place: Place, path: Path) -> None:
    """Look into a file of SQLite without changing it."""
    if not _is_filled(path):
        if not path.parent.is_dir():
            raise UserError(f"there is no folder '{path.parent}' for a database")
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as opened:
            tables = {
                name for (name,) in opened.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            }
    except sqlite3.OperationalError as error:
        raise _readable(str(error), place) from None
    except sqlite3.DatabaseError:
        raise UserError(f"'{place.shown}' is no SQLite database") from None
    if tables and "experiments" not in tables:
        raise UserError(f"'{place.shown}' holds something else", hint="Give the name of a new file")


def _readable(words: str, place: Place) -> UserError:
    """Return what went wrong in MLflow's own words, the common causes in ours."""
    line = " ".join(words.split())
    if "is locked" in line:
        return UserError(
            f"'{place.shown}' is locked by another program, and stayed so", hint="Call this again later"
        )
    if "readonly database" in line or "read-only" in line or "unable to open database" in line:
        return UserError(f"'{place.shown}' can't be opened for writing")
    if "out-of-date database schema" in line or "Can't locate revision" in line:
        return UserError(
            f"'{place.shown}' is of another version of MLflow", hint="Back it up, then: mlflow db upgrade URL"
        )
    if "Max retries exceeded" in line or "timeout exception" in line:
        return UserError(f"the server {place.shown} stopped answering", hint="Call this again: it goes on")
    if "failed with error code" in line or "not in a valid JSON format" in line:
        hint = "Is it one of MLflow's, and do MLFLOW_TRACKING_USERNAME and _PASSWORD open it?"
        return UserError(f"the server {place.shown} can't be used ({line[:300]})", hint=hint)
    return UserError(f"'{place.shown}' can't be used ({line[:400]})")


def _is_filled(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0
