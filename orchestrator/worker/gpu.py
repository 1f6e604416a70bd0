"""The name of the GPU that a task sees, asked of the driver without importing a library that would use it."""

from __future__ import annotations

import os
import re
import subprocess
from functools import cache
from pathlib import Path

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
    command = ["nvidia-smi", "--query-gpu=index,uuid,name", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [row.split(", ", 2) for row in done.stdout.splitlines() if row.count(", ") >= 2]
    chosen = None if visible is None else [part.strip() for part in visible.split(",")]
    return [
        name
        for index, uuid, name in rows
        if chosen is None or index in chosen or any(part and uuid.startswith(part) for part in chosen)
    ]
