"""Data larger than memory, and data that changed."""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_data_sources import refused

from orchestrator.data import streaming
from orchestrator.data.dataset import open_dataset
from orchestrator.data.fingerprint import fingerprint
from orchestrator.data.source import Source
from orchestrator.data.streaming import available_memory, gather, memory_limit
from orchestrator.errors import UserError
from orchestrator.worker.shortage import out_of_disk

DIGITS: dict[str, Any] = {"_target_": "orchestrator.data.sources.digits"}
TINY = 1e-4  # GB: 107 kB, of the 276 kB that the training part takes


def test_a_part_larger_than_memory_is_mapped_from_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    whole, mapped = open_dataset(DIGITS), open_dataset(DIGITS | {"memory_gb": TINY})
    assert isinstance(mapped.train.inputs, np.memmap) and not isinstance(whole.train.inputs, np.memmap)
    for name in ("train", "validation", "test"):
        assert np.array_equal(whole.part(name).inputs, mapped.part(name).inputs)
    assert not isinstance(mapped.validation.inputs, np.memmap)  # it fits
    assert list(tmp_path.iterdir()) == []
    assert mapped.train.inputs.flags.writeable  # torch warns of others


def test_no_more_than_a_chunk_is_read_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.data import sources

    asked: list[int] = []

    def big() -> Source:
        def load(indices: Any) -> Any:
            asked.append(len(indices))
            return np.repeat(indices[:, None].astype(np.float32), 100, axis=1)

        return Source(labels=np.arange(5000) % 2, class_names=("a", "b"), shape=(100,), load=load)

    monkeypatch.setattr(sources, "big", big, raising=False)
    data = open_dataset({"_target_": "orchestrator.data.sources.big", "memory_gb": 1e-3, "transform": "unit"})
    assert data.train.inputs.shape == (3000, 100)
    assert sum(asked) > 3000 and max(asked) <= 1e-3 * 2**30 / 8 / 400
    # The transform is fitted to a part of the training part, chosen by hash: its range is nearly all of it.
    assert data.train.inputs.min() == pytest.approx(0, abs=0.02)
    assert data.train.inputs.max() == pytest.approx(1, abs=0.02)


class Slow(io.FileIO):
    def write(self, content: Any) -> int:
        return super().write(content[:1000])  # as the system may, and does above 2 GB


def test_what_is_written_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Slow(tmp_path / "slow", "w+"))
    values = np.random.default_rng(0).random((50, 90))
    assert np.array_equal(gather(lambda places: values[places], 50, 20, 0), values)


def always_full(**_: Any) -> Any:
    return Path("/dev/full").open("wb", buffering=0)


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", always_full)
    data = open_dataset(DIGITS | {"memory_gb": TINY})
    with pytest.raises(
        UserError, match=r"0.00026 GB of samples do not fit .*No space left.*TMPDIR"
    ) as caught:
        _ = data.train
    assert out_of_disk(caught.value)
    monkeypatch.undo()
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    refused("No such file or directory.*TMPDIR", lambda: open_dataset(DIGITS | {"memory_gb": TINY}).train)
    refused("0 is not above 0", lambda: open_dataset(DIGITS | {"memory_gb": 0.0}).train)


@pytest.mark.parametrize("count", [0, 1, 6, 7, 8, 20, 21])
@pytest.mark.parametrize("limit", [0, 10**6])
def test_chunks_make_the_whole(count: int, limit: int) -> None:
    values = np.arange(count * 3).reshape(count, 3)
    whole = gather(lambda places: values[places], count, 7, limit)
    assert np.array_equal(whole, values)
    assert isinstance(whole, np.memmap) == (count > 7 and limit == 0)


def test_the_memory_of_a_cgroup_counts(tmp_path: Path) -> None:
    own, machine = tmp_path / "own", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    own.write_text("0::/system/job/step\n")
    assert available_memory(own, tmp_path) == machine
    (tmp_path / "system" / "job" / "step").mkdir(parents=True)
    (tmp_path / "system" / "job" / "step" / "memory.max").write_text("max\n")
    (tmp_path / "system" / "job" / "memory.max").write_text("1000000\n")
    assert available_memory(own, tmp_path) == 1000000
    own.write_text("5:cpu:/a\n4:memory:/job\n")
    (tmp_path / "memory" / "job").mkdir(parents=True)
    (tmp_path / "memory" / "job" / "memory.limit_in_bytes").write_text("2000000\n")
    assert available_memory(own, tmp_path) == 2000000
    assert available_memory(tmp_path / "none", tmp_path) == machine
    assert memory_limit(None) <= machine // 4
    assert memory_limit(2.0) == 2 << 30
    assert streaming.rows_of(streaming.FIT_BYTES, 1 << 40, None) == 2


# ---- fingerprints


def write(path: Path, seed: int = 0) -> dict[str, Any]:
    np.savez(path, x=np.random.default_rng(seed).random((50_000, 1)), y=np.arange(50_000) % 2)
    return {"_target_": "orchestrator.data.sources.npz", "path": str(path)}


def test_a_dataset_that_changed_since_planning_is_refused(tmp_path: Path) -> None:
    config = write(tmp_path / "data.npz")
    frozen = config | {"fingerprint": fingerprint(config)}
    assert len(open_dataset(frozen).train.ids) == 30_000
    (tmp_path / "data.npz").rename(tmp_path / "moved.npz")
    assert fingerprint(config | {"path": str(tmp_path / "moved.npz")}) == frozen["fingerprint"]
    write(tmp_path / "data.npz", seed=1)
    message = r"has changed since the sweep was planned: 1 file, \d+ bytes, \w{12} then, 1 file, .* now"
    refused(message, lambda: open_dataset(frozen))
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 1)), y=np.arange(40) % 2)
    refused(message, lambda: open_dataset(frozen))
    (tmp_path / "data.npz").unlink()
    refused("no files now", lambda: open_dataset(frozen))


def test_what_a_fingerprint_sees(tmp_path: Path) -> None:
    assert fingerprint(None) is None
    assert fingerprint(DIGITS) is None
    assert fingerprint({"path": "???"}) is None
    folder = tmp_path / "folder"
    folder.mkdir()
    config = {"path": str(folder), "labels_path": str(tmp_path / "labels")}
    seen = set()

    def changed() -> bool:
        print_ = fingerprint(config)
        new = print_ not in seen
        seen.add(print_)
        return new

    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"x" * number)
    assert changed() and not changed()
    (folder / "3.png").write_bytes(b"")
    assert changed()
    (folder / "0.png").write_bytes(b"y")
    assert changed()
    (folder / "3.png").rename(folder / "4.png")
    assert changed()
    (tmp_path / "labels").write_bytes(b"0" * 300_000)
    assert changed()
    (tmp_path / "labels").write_bytes(b"0" * 299_999 + b"1")
    assert changed()
    for number in range(100):  # of so many, names and sizes
        (folder / f"more{number}.png").write_bytes(b"x")
    assert changed()
    (folder / "more7.png").write_bytes(b"xx")
    assert changed() and not changed()
