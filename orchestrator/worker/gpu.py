"""The GPU that a task sees: its name and memory, asked of the driver, and what a trial took of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

_SECONDS = 2.0


@cache
def gpu_name(proc: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """Return the kind of the visible GPU, several kinds separated by commas; empty where none can be told.

    Args:
        proc: where the driver lists its GPUs, which takes no time; without it `nvidia-smi` is asked.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1", "NoDevFiles"):
        return ""
    names = _listed(proc)
    # With one kind it does not matter which of them are visible, nor how they are numbered.
    if len(set(names)) != 1:
        names = _asked(visible)
    return ", ".join(dict.fromkeys(names))


def _listed(proc: Path) -> list[str]:
    try:
        texts = [path.read_text() for path in sorted(proc.glob("*/information"))]
    except OSError:
        return []
    return [
        found[1].strip() for text in texts if (found := re.search(r"^Model:\s*(.+)$", text, re.MULTILINE))
    ]


def _asked(visible: str | None) -> list[str]:
    return _query("name", visible)


def gpu_memory_gb() -> float | None:
    """Return the memory of the smallest visible GPU, in units of 2**30 bytes; None where none can be told."""
    sizes = _query("memory.total", os.environ.get("CUDA_VISIBLE_DEVICES"))
    # nvidia-smi writes "81559 MiB", and "[N/A]" of what shares its memory with the processor.
    known = [float(size.split()[0]) for size in sizes if re.match(r"\d+ MiB$", size)]
    return min(known) / 1024 if known else None


def memory_taken() -> dict[str, float]:
    """Return the most that this process has held of a GPU's memory, and what that GPU has; in 2**30 bytes.

    Nothing where PyTorch is not there, or has not used a GPU.
    """
    torch: Any = sys.modules.get("torch")
    try:
        if torch is None or not torch.cuda.is_initialized():
            return {}
        devices = range(torch.cuda.device_count())
        most = max(devices, key=torch.cuda.max_memory_reserved)
        taken, whole = torch.cuda.max_memory_reserved(most), torch.cuda.mem_get_info(most)[1]
    except Exception:  # a driver that is in trouble says so to the trial itself
        return {}
    return {"gpu_memory_gb": taken / 2**30, "gpu_total_gb": whole / 2**30} if taken else {}


def _query(wanted: str, visible: str | None) -> list[str]:
    """Ask the driver one thing of each visible GPU."""
    command = ["nvidia-smi", f"--query-gpu=index,uuid,{wanted}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [row.split(", ", 2) for row in done.stdout.splitlines() if row.count(", ") >= 2]
    chosen = None if visible is None else [part.strip() for part in visible.split(",")]
    return [
        answer
        for index, uuid, answer in rows
        if chosen is None or index in chosen or any(part and uuid.startswith(part) for part in chosen)
    ]
