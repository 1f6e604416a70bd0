"""Files that are whole or absent, whoever dies or races."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.sweep.files import create_exclusive, read_json, replace_atomic, write_atomic, write_json


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_writing_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.txt"
    write_atomic(path, "größe")
    write_atomic(path, b"\xff\x00")
    assert path.read_bytes() == b"\xff\x00"
    assert names(path.parent) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_writer_that_raises_leaves_the_old_file_and_no_litter(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    write_atomic(path, "old")

    def write(temporary: Path) -> None:
        temporary.write_text("half of the ne")
        assert path.read_text() == "old"
        raise error

    with pytest.raises(type(error)):
        replace_atomic(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_a_half_written_file_is_hidden_from_globs(tmp_path: Path) -> None:
    def write(temporary: Path) -> None:
        temporary.write_text("x")
        assert temporary.parent == tmp_path, "renaming is atomic within a folder's file system alone"
        assert temporary.name.startswith(".")
        assert temporary.suffix == ".tmp"

    replace_atomic(tmp_path / "part.parquet", write)
    assert names(tmp_path) == ["part.parquet"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    contents = [{"n": n, "fill": "x" * (50_000 + n)} for n in range(2)]
    write_json(path, contents[0])
    stop = threading.Event()

    def rewrite() -> None:
        while not stop.is_set():
            for content in contents:
                write_json(path, content)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        assert all(read_json(path) in contents for _ in range(200))
    finally:
        stop.set()
        writer.join()


def test_exactly_one_thread_creates_a_file(tmp_path: Path) -> None:
    for attempt in range(20):
        path = tmp_path / "sub" / f"{attempt}.json"
        gate = threading.Barrier(8)

        def create(number: int, path: Path = path, gate: threading.Barrier = gate) -> bool:
            gate.wait()
            return create_exclusive(path, str(number))

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))
        assert won.count(True) == 1
        assert path.read_text() == str(won.index(True))
    assert len(names(tmp_path / "sub")) == 20, "no litter"


def _create(path: Path, number: int) -> bool:
    return create_exclusive(path, str(number))


def test_exactly_one_process_creates_a_file(tmp_path: Path) -> None:
    with get_context("fork" if os.name == "posix" else "spawn").Pool(8) as pool:
        for attempt in range(10):
            path = tmp_path / f"{attempt}.json"
            won = pool.starmap(_create, [(path, number) for number in range(8)], chunksize=1)
            assert won.count(True) == 1
            assert path.read_text() == str(won.index(True))
    assert len(names(tmp_path)) == 10


def test_json_round_trip_and_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"a": [1, 2.5, None, "ü"]})
    assert read_json(path) == {"a": [1, 2.5, None, "ü"]}
    assert json.loads(path.read_text()) == {"a": [1, 2.5, None, "ü"]}
    for bad in (b"{", b"", b"\xff\xfe"):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="not readable as JSON") as caught:
            read_json(path)
        assert caught.value.file == path
