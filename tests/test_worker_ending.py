"""How a trial ended, told from its exception, its stacks and the kernel's counts; and what GPU it had."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.sweep.records import FAILED, HUNG, MEMORY
from orchestrator.worker import gpu
from orchestrator.worker.ending import innermost, judge, killed, outcome_line, silent
from orchestrator.worker.shortage import killings, out_of_disk, out_of_memory

STACKS = """Thread 0x00007f01 (most recent call first):
  File "/x/child.py", line 9 in _end_with_parent

Current thread 0x00007f02 (most recent call first):
  File "/x/loader.py", line 3 in fetch
  File "/x/my_train.py", line 7 in epoch
  File "/x/my_train.py", line 8 in train
  File "/x/child.py", line 1 in run_trial
"""


class OutOfMemoryError(RuntimeError):
    """As torch has it."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cudaErrorMemoryAllocation: out of memory"), True),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), True),
        (raised(RuntimeError("no model"), MemoryError()), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (raised(ValueError("memory is a fine word"), KeyError("x")), False),
        (Unspeakable(), False),
    ],
)
def test_out_of_memory(error: BaseException, expected: bool) -> None:
    assert out_of_memory(error) == expected


def test_an_exception_while_handling_want_of_memory_is_for_want_of_memory() -> None:
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise KeyError("cleaning up") from None
    except KeyError as hidden:
        assert not out_of_memory(hidden)
    try:
        try:
            raise MemoryError
        except MemoryError:
            raise KeyError("cleaning up")  # noqa: B904 - what happens by mistake
    except KeyError as during:
        assert out_of_memory(during)


def test_the_kernels_count_of_killings(tmp_path: Path) -> None:
    proc = tmp_path / "cgroup"
    assert killings(proc, tmp_path) is None
    proc.write_text("4:memory:/slurm/job_7\n0::/\n")
    assert killings(proc, tmp_path) is None
    control = tmp_path / "memory" / "slurm" / "job_7" / "memory.oom_control"
    control.parent.mkdir(parents=True)
    control.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    assert killings(proc, tmp_path) == 3
    proc.write_text("0::/system.slice/job_8\n")
    events = tmp_path / "system.slice" / "job_8" / "memory.events"
    events.parent.mkdir(parents=True)
    events.write_text("low 0\noom 1\noom_kill 2\n")
    assert killings(proc, tmp_path) == 2
    events.write_text("spoiled")
    assert killings(proc, tmp_path) is None


@pytest.mark.parametrize(
    ("counted", "said"),
    [(2, "counts 2 ended"), (0, "counts no oom_kill"), (None, "out of memory, most likely")],
)
def test_killed(counted: int | None, said: str) -> None:
    ending = killed(counted)
    assert (ending.state, ending.cause) == (FAILED, MEMORY)
    assert "SIGKILL" in ending.error and said in ending.error


def test_the_innermost_lines_are_those_of_the_thread_that_took_the_signal() -> None:
    lines = innermost(STACKS).splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["fetch", "epoch", "train"]
    # A signal in a thread of a C library has no current thread of Python's.
    without = STACKS.replace("Current thread", "Thread")
    assert innermost(without) == innermost(STACKS)
    assert innermost("Fatal Python error: Segmentation fault\n") == innermost("") == ""


def test_silent() -> None:
    ending = silent(30, 12, STACKS)
    assert (ending.state, ending.cause) == (FAILED, HUNG)
    for said in ("30 minutes", "slurm.quiet_minutes", "was 12", "trial.alive()", "line 3 in fetch"):
        assert said in ending.error
    assert "no step" in silent(30, None, "").error and "could not write down" in silent(30, None, "").error


def test_a_crash_names_its_place_and_a_raise_its_cause() -> None:
    assert "SIGSEGV, in\n" in judge({}, -11, "m", STACKS).error
    assert judge({"kind": "raise", "error": "x", "cause": MEMORY}, 0, "m").cause == MEMORY
    assert "not known" in judge({}, None, "m").error
    assert "cause" not in outcome_line("a", judge({}, 1, "m"), 1.0)
    assert outcome_line("a", killed(1), 1.0, step=3)["step"] == 3


def driver(folder: Path, *models: str) -> Path:
    for number, model in enumerate(models):
        place = folder / f"0000:{number:02d}:00.0"
        place.mkdir(parents=True)
        (place / "information").write_text(f"Model: \t\t {model}\nIRQ:   \t\t 0\n")
    return folder


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu.gpu_name.cache_clear()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def test_gpus_of_one_kind_need_nobody_to_be_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", None)
    assert gpu.gpu_name(driver(tmp_path, "NVIDIA H200", "NVIDIA H200")) == "NVIDIA H200"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    gpu.gpu_name.cache_clear()
    assert gpu.gpu_name(tmp_path) == "", "a task without a GPU on a node that has some"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, "NVIDIA A100, Tesla T4"),
        ("1", "Tesla T4"),
        ("GPU-aa", "NVIDIA A100"),
        ("1,0", "NVIDIA A100, Tesla T4"),
    ],
)
def test_gpus_of_several_kinds_are_told_by_nvidia_smi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, expected: str
) -> None:
    command = tmp_path / "bin" / "nvidia-smi"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\necho '0, GPU-aabb, NVIDIA A100'\necho '1, GPU-ccdd, Tesla T4'\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=":")
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.gpu_name(driver(tmp_path / "gpus", "NVIDIA A100", "Tesla T4")) == expected


def test_no_driver_is_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu.gpu_name(tmp_path / "nowhere") == ""


def test_a_full_disk_is_told_from_an_error_of_the_users() -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert out_of_disk(full)
    assert out_of_disk(RuntimeError("PytorchStreamWriter failed: No space left on device"))
    assert not out_of_disk(FileNotFoundError(errno.ENOENT, "no such file"))
    try:
        try:
            raise full
        except OSError as error:
            raise ValueError("could not save") from error
    except ValueError as wrapped:
        assert out_of_disk(wrapped)
