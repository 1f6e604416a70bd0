"""The lease: one owner at a time, a dead one replaced, a stalled one fenced off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from orchestrator.errors import Busy, LeaseLost
from orchestrator.sweep import lease

HOLD = """
import sys
from pathlib import Path
from orchestrator.sweep import lease
with lease.hold(Path(sys.argv[1]), "holder") as held:
    print(held.number, flush=True)
    sys.stdin.read()
"""
COUNT = """
import sys, time
from pathlib import Path
from orchestrator.sweep import lease
folder, counter = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(5):
    with lease.hold(folder, "counter", wait=lambda owner: True, poll_seconds=0.001) as held:
        before = int(counter.read_text())
        time.sleep(0.002)
        held.confirm()
        counter.write_text(str(before + 1))
"""


@contextmanager
def another_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold the lease in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip()
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that must come; a hang is a failure of the whole run, not a race lost."""
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it never came")


def rewrite(folder: Path, number: int, **changes: object) -> None:
    path = folder / f"{number:06d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_held_and_given_back(tmp_path: Path) -> None:
    folder = tmp_path / "lease"
    assert lease.current_owner(folder) is None
    with lease.hold(folder, "orchestrate run") as held:
        owner = lease.current_owner(folder)
        assert owner is not None
        assert (owner.number, owner.pid, owner.command, owner.released) == (
            held.number, os.getpid(), "orchestrate run", False,
        )  # fmt: skip
        assert str(os.getpid()) in owner.describe()
        held.confirm()
    assert lease.current_owner(folder) is None
    with lease.hold(folder, "again") as next_one:
        assert next_one.number == held.number + 1


def test_given_back_when_the_work_raises(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lease.hold(tmp_path, "fails"):
        raise RuntimeError
    assert lease.current_owner(tmp_path) is None


def test_nobody_else_of_the_same_process_gets_it(tmp_path: Path) -> None:
    busy = pytest.raises(Busy, match=f"one .process {os.getpid()} on ")
    with lease.hold(tmp_path, "one"), busy, lease.hold(tmp_path, "two"):
        pass


def test_another_process_has_it(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        with pytest.raises(Busy, match=f"holder .process {process.pid} on "), lease.hold(tmp_path, "mine"):
            pass
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        with lease.hold(tmp_path, "mine"):
            pass


def test_a_killed_owner_is_replaced_at_once(tmp_path: Path) -> None:
    with another_process(tmp_path) as process:
        os.kill(process.pid, signal.SIGKILL)
        # Not waited for yet: a zombie is as dead.
        until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
        assert lease.current_owner(tmp_path) is None
        with lease.hold(tmp_path, "mine") as held:
            assert held.number == 2
        process.wait()


def test_a_process_number_used_again_is_another_process(tmp_path: Path) -> None:
    with lease.hold(tmp_path, "one") as held:
        rewrite(tmp_path, held.number, started=psutil.Process().create_time() - 1000)
        assert lease.current_owner(tmp_path) is None


def test_waiting_until_it_is_free(tmp_path: Path) -> None:
    seen: list[int] = []
    with another_process(tmp_path) as process:

        def wait(owner: lease.Owner) -> bool:
            seen.append(owner.pid)
            if len(seen) == 3:
                assert process.stdin is not None
                process.stdin.close()
                process.wait()
            return True

        with lease.hold(tmp_path, "mine", wait=wait, poll_seconds=0.001) as held:
            held.confirm()
    assert seen == [process.pid] * 3


def test_waiting_may_give_up(tmp_path: Path) -> None:
    answers = iter([True, True, False])
    waiting = lease.hold(tmp_path, "mine", wait=lambda owner: next(answers), poll_seconds=0.001)
    with another_process(tmp_path), pytest.raises(Busy), waiting:
        pass
    assert list(answers) == []


def test_a_stalled_owner_finds_out_before_it_writes(tmp_path: Path) -> None:
    stalled = lease.hold(tmp_path, "stalled")
    held = stalled.__enter__()
    held.confirm()
    content = (tmp_path / f"{held.number:06d}.json").read_text()
    after = tmp_path / f"{held.number + 1:06d}.json"
    after.write_text(content.replace("stalled", "taker"))
    with pytest.raises(LeaseLost, match="another process took over"):
        held.confirm()
    stalled.__exit__(None, None, None)
    assert json.loads(after.read_text())["released"] is False, "what it gives back is not the other's"


@pytest.mark.parametrize("beats", [True, False])
def test_an_owner_on_another_machine_is_dead_when_it_beats_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beats: bool
) -> None:
    clock = iter(range(0, 10_000, 2))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    tmp_path.joinpath("000004.json").write_text(
        json.dumps(
            {"host": "elsewhere", "pid": 1, "started": 0.0, "command": "c", "beat": 0, "released": False}
        )
    )
    asked = 0

    def wait(owner: lease.Owner) -> bool:
        nonlocal asked
        asked += 1
        if beats:
            rewrite(tmp_path, 4, beat=asked)
        return asked < 100

    if beats:
        with pytest.raises(Busy), lease.hold(tmp_path, "mine", wait=wait):
            pass
        assert asked == 100
    else:
        with lease.hold(tmp_path, "mine", wait=wait) as held:
            assert held.number == 5
        assert 14 <= asked <= 16, "30 seconds of a clock that goes two seconds at a look"


def test_a_process_that_does_not_wait_takes_over_from_one_long_silent_elsewhere(tmp_path: Path) -> None:
    content = {"host": "elsewhere", "pid": 1, "started": 0.0, "command": "c", "beat": 0, "released": False}
    file = tmp_path / "000001.json"
    file.write_text(json.dumps(content))
    with pytest.raises(Busy), lease.hold(tmp_path, "orchestrate advance"):
        pass
    long_ago = time.time() - lease.STALE_AFTER_SECONDS - 60
    os.utime(file, (long_ago, long_ago))
    with lease.hold(tmp_path, "orchestrate advance") as held:
        assert held.number == 2
    assert not list(tmp_path.glob(".probe*")), "nothing is left behind"


def test_the_owner_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.005)
    with lease.hold(tmp_path, "mine") as held:
        path = tmp_path / f"{held.number:06d}.json"
        until(lambda: json.loads(path.read_text())["beat"] >= 3)
        assert json.loads(path.read_text())["released"] is False
    assert json.loads(path.read_text())["released"] is True
    assert not any(thread.name == "lease" for thread in threading.enumerate())


def test_a_fenced_owner_beats_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "HEARTBEAT_SECONDS", 0.005)
    with lease.hold(tmp_path, "mine") as held:
        (tmp_path / f"{held.number + 1:06d}.json").write_text("{}")
        until(lambda: not any(thread.name == "lease" for thread in threading.enumerate()))


def test_a_file_that_is_no_owner_holds_nothing(tmp_path: Path) -> None:
    for content in ("", "{", "[]", '{"host": "x"}'):
        (tmp_path / "000007.json").write_text(content)
        assert lease.current_owner(tmp_path) is None
    with lease.hold(tmp_path, "mine") as held:
        assert held.number == 8


def test_old_files_are_cleaned_up(tmp_path: Path) -> None:
    for _ in range(6):
        with lease.hold(tmp_path, "mine"):
            pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000005.json", "000006.json"]


def test_a_number_that_was_had_and_cleaned_away_is_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        with lease.hold(tmp_path, "before"):
            pass
    with lease.hold(tmp_path, "mine") as held:
        looked = iter([1])  # long ago, before most of them
        highest = lease._highest
        monkeypatch.setattr(lease, "_highest", lambda folder: next(looked, None) or highest(folder))
        with pytest.raises(Busy, match="mine"), lease.hold(tmp_path, "stalled"):
            pass
        held.confirm()


def test_one_at_a_time_among_threads_and_processes(tmp_path: Path) -> None:
    folder, counter = tmp_path / "lease", tmp_path / "counter"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(folder), str(counter)]) for _ in range(3)]

    def count() -> None:
        for _ in range(5):
            with lease.hold(folder, "thread", wait=lambda owner: True, poll_seconds=0.001) as held:
                before = int(counter.read_text())
                time.sleep(0.002)
                held.confirm()
                counter.write_text(str(before + 1))

    with ThreadPoolExecutor(3) as pool:
        for future in [pool.submit(count) for _ in range(3)]:
            future.result()
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "30"
