"""Optuna's storages that can't be used: locked, damaged, of a newer version, left by who died."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from made_damage import half
from optuna.storages.journal import JournalFileSymlinkLock
from test_old_sweep import told, unpacked

from orchestrator.integrations import optuna_storage


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """A finished sweep: 12, 6 and 4 trials; its metric is `score`, its parameters are lr and width."""
    return unpacked("issue-7", "plain", tmp_path)


PAST = "start_from: [{optuna: PLACE, study: plain/coarse, best: 2}]\n"


@pytest.fixture
def storages(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sweep, shared with `past.db` and `past.log` in the current folder."""
    monkeypatch.chdir(sweep.parent)
    Path("my_train.py").write_text((sweep / "snapshot" / "my_train.py").read_text())
    for place in ("past.db", "past.log"):
        told("share", sweep, "--to", "optuna", "--out", place)
    return sweep


def refused(sweep: Path, place: str) -> str:
    """Share with a storage that can't be used, and plan from it; returns what is said, twice the same."""
    shared = told("share", sweep, "--to", "optuna", "--out", place, status=2)
    text = (sweep / "snapshot" / "sweep.yaml").read_text()
    Path("past.yaml").write_text(text + PAST.replace("PLACE", place))
    planned = told("plan", "past.yaml", "--dry-run", status=2)
    assert planned == shared.replace("error: ", "error: past.yaml: start_from.0: ")
    return shared


LOCK = (
    "import sqlite3, sys; c = sqlite3.connect('past.db'); c.execute('BEGIN EXCLUSIVE'); "
    "print('held', flush=True); sys.stdin.read()"
)


def test_a_database_that_another_program_has_locked(storages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna_storage, "LOCK_SECONDS", 0.0)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LOCK], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        assert "'sqlite:///past.db' is locked by another program" in refused(storages, "past.db")
        other.communicate()
    assert "12 trials, 0 of them new" in told("share", storages, "--to", "optuna", "--out", "past.db")


def test_storages_that_are_damaged_or_of_a_newer_optuna(storages: Path) -> None:
    database, journal = Path("past.db").read_bytes(), Path("past.log").read_text()
    half(Path("past.db"))
    assert "(database disk image is malformed)" in refused(storages, "past.db")
    Path("past.db").write_bytes(database)
    with contextlib.closing(sqlite3.connect("past.db")) as other:
        other.execute("UPDATE version_info SET schema_version = 99")
        other.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
        other.commit()
    assert "no longer compatible with the table schema" in refused(storages, "past.db")
    for content, words in (
        (journal[:300] + "\x00\n" + journal[300:], "'past.log' is no Optuna journal, or is damaged"),
        (journal + '{"op_code": 99, "worker_id": "x"}\n', "a newer Optuna wrote it"),
    ):
        Path("past.log").write_text(content)
        assert words in refused(storages, "past.log")
        assert Path("past.log").read_text() == content


def test_what_a_program_that_died_has_left_of_a_storage(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sweep.parent)
    share = ("share", sweep, "--to", "optuna", "--out")
    Path("sub").mkdir()
    told(*share, "sub/past.log")
    made = JournalFileSymlinkLock.__init__

    def impatient(lock: JournalFileSymlinkLock, path: str) -> None:
        # By a relative path the lock would lead nowhere, and Optuna never takes such a one.
        assert Path(path).is_absolute()
        made(lock, path)
        lock.grace_period = 0

    monkeypatch.setattr(JournalFileSymlinkLock, "__init__", impatient)
    os.symlink(Path("sub/past.log").absolute(), "sub/past.log.lock")
    assert "12 trials, 12 of them new" in told(*share, "sub/past.log", "--name", "again")
    assert not os.path.lexists("sub/past.log.lock")
    # SQLite leaves an empty file when it is ended right after it has made it.
    Path("empty.db").touch()
    assert "optuna-dashboard sqlite:///empty.db" in told(*share, "empty.db")
