"""The part of the check that runs on a compute node: `python -m orchestrator.doctor.node FOLDER [SWEEP]`.

The two sides talk through files in the folder, as a sweep's do: `hello`, `reply`, `seen`. From the four times
of that both the clocks' difference and the time until a file is seen over there are known.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

from orchestrator import __version__
from orchestrator.doctor.files import check_files
from orchestrator.sweep.files import read_json, write_json

HELLO, REPLY, SEEN, TAKEN, REPLACED = "hello.json", "reply.json", "seen.json", "taken", "replaced"
PATIENCE_SECONDS = 120.0


def answer(folder: Path, sweep: str) -> None:
    """Tell what there is on this node, and answer the other side."""
    write_json(folder / HELLO, {"time": time.time(), **_told()})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (folder / REPLY).exists():
        if time.monotonic() > deadline:
            sys.exit(
                f"no answer within {PATIENCE_SECONDS:.0f} s: files of one machine are not seen on the other"
            )
        # Listing the folder makes NFS look again.
        os.listdir(folder)
        time.sleep(0.02)
    seen = time.time()
    private = folder / "node"
    private.mkdir()
    content = {
        "seen": seen,
        "wrote": read_json(folder / REPLY)["time"],
        "exclusive": _refused(folder),
        "replaced": (folder / REPLACED).read_text(),
        "files": [asdict(found) for found in check_files(private)],
        "job": _job_error(sweep),
    }
    write_json(folder / SEEN, content)


def _told() -> dict[str, object]:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", os.environ.get("ROCR_VISIBLE_DEVICES", ""))
    return {
        "host": socket.gethostname(),
        "python": sys.executable,
        "version": __version__,
        "devices": [name for name in devices.split(",") if name and name != "NoDevFiles"],
        "gpus": _gpus(),
        "cores": len(os.sched_getaffinity(0)),
        "sbatch": shutil.which("sbatch") is not None,
    }


def _gpus() -> str:
    if shutil.which("nvidia-smi") is None:
        return ""
    done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return done.stdout.splitlines()[0].partition(" (")[0] if done.stdout else done.stderr.strip()


def _refused(folder: Path) -> bool:
    """Try to take a name that the other machine has taken."""
    own = folder / "mine"
    own.write_text("node")
    try:
        os.link(own, folder / TAKEN)
    except FileExistsError:
        return True
    return False


def _job_error(sweep: str) -> str:
    """Import the sweep's job as a task does; returns the last line of what went wrong."""
    if not sweep:
        return ""
    command = [sys.executable, "-m", "orchestrator.worker.job", sweep]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = done.stderr.strip().splitlines()
    return "" if done.returncode == 0 else (lines[-1] if lines else f"exit status {done.returncode}")


if __name__ == "__main__":
    answer(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")
