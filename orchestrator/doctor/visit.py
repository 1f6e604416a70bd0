"""The other side of `node`: submits it as a small job, answers it, and judges what it tells."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.cluster.script import environment_outside, interpreter, log_folder, parameters
from orchestrator.doctor.finding import PROBLEM, Finding, ok, problem, warning
from orchestrator.doctor.node import HELLO, REPLACED, REPLY, SEEN, TAKEN
from orchestrator.schema import SlurmConfig
from orchestrator.sweep.files import create_exclusive, write_atomic, write_json

JOB_MINUTES = 5
SKEW_SECONDS, SLOW_SECONDS = 30.0, 5.0
# submitit's tasks look for their payload for a minute, and fail then.
LOST_SECONDS = 50.0


def check_node(
    resources: SlurmConfig, folder: Path, sweep: str, patience_seconds: float
) -> Iterator[Finding]:
    """Run the check on a compute node that is given what a task is given.

    Args:
        resources: what to ask for.
        folder: an empty one on the sweep's file system.
        sweep: a planned sweep's directory, whose job is imported there; empty for none.
        patience_seconds: how long the job may wait in the queue.
    """
    token = folder.name.lstrip(".")
    write_atomic(folder / REPLACED, "old")
    create_exclusive(folder / TAKEN, "here")
    done = _submit(resources, folder, sweep, token)
    if done.returncode != 0:
        words = done.stderr.strip().replace("sbatch: error: ", "").replace("\n", "; ")
        yield problem(
            "compute node", f"the job was refused: {words}", "Change the section slurm of the sweep"
        )
        return
    job = done.stdout.strip().split(";")[0]
    try:
        yield from _talk(resources, folder, job, patience_seconds)
    finally:
        subprocess.run(["scancel", job], capture_output=True, env=environment_outside())
        _until_gone(job)


def _submit(resources: SlurmConfig, folder: Path, sweep: str, token: str) -> subprocess.CompletedProcess[str]:
    from submitit.slurm.slurm import _make_sbatch_string

    own = replace(resources, timeout_min=min(JOB_MINUTES, resources.timeout_min))
    words = shlex.join(["-m", "orchestrator.doctor.node", str(folder), *([sweep] if sweep else [])])
    text = _make_sbatch_string(
        command=f"{interpreter(resources.python)} {words}",
        folder=log_folder(folder / "log"),
        **parameters(own, token),
    )
    (folder / "log").mkdir()
    return subprocess.run(
        ["sbatch", "--parsable"], input=text, capture_output=True, text=True, cwd=folder,
        env=environment_outside(),
    )  # fmt: skip


def _talk(resources: SlurmConfig, folder: Path, job: str, patience_seconds: float) -> Iterator[Finding]:
    hello = _await(folder / HELLO, job, patience_seconds)
    seen_hello = time.time()
    if hello is None:
        yield _silence(folder, job, patience_seconds)
        return
    write_atomic(folder / REPLACED, "new")
    write_json(folder / REPLY, {"time": time.time()})
    seen = _await(folder / SEEN, job, LOST_SECONDS * 3)
    yield ok("compute node", f"{hello['host']} ran a job ({hello['cores']} cores, {hello['python']})")
    yield _gpus(resources, hello)
    if hello["version"] != __version__:
        found = f"{hello['version']} there, {__version__} here"
        yield problem("python there", found, "Install the same version, or set slurm.python")
    if not hello["sbatch"]:
        advice = "Drive it from a login node: orchestrate run, or orchestrate cron"
        yield warning(
            "driving there", "no sbatch on the node: `orchestrate submit` can't go on there", advice
        )
    if seen is None:
        yield problem("seen there", "a file written here was not seen there", "Use a shared file system")
        return
    yield from _judge(hello, seen_hello, seen)


def _judge(hello: dict[str, Any], seen_hello: float, seen: dict[str, Any]) -> Iterator[Finding]:
    there_to_here, here_to_there = seen_hello - hello["time"], seen["seen"] - seen["wrote"]
    ahead, delay = (there_to_here - here_to_there) / 2, (there_to_here + here_to_there) / 2
    clocks = f"{abs(ahead):.1f} s {'ahead of' if ahead >= 0 else 'behind'} the node's"
    if abs(ahead) > SKEW_SECONDS:
        advice = (
            "Sweeps tolerate it; times in logs and results won't agree. The administrators can set the clocks"
        )
        yield warning("clocks", f"this machine's is {clocks}", advice)
    else:
        yield ok("clocks", f"this machine's is {clocks}")
    text = f"a file is seen on the other machine after {max(0.0, delay):.1f} s"
    if delay > LOST_SECONDS:
        yield problem("seen there", text, "Tasks give up after a minute; use another file system: dir=...")
    elif delay > SLOW_SECONDS:
        yield warning("seen there", text, "Tasks begin that much later")
    else:
        yield ok("seen there", text)
    if not seen["exclusive"]:
        found = "a name taken here could be taken there again, so two processes would both own the sweep"
        yield problem("exclusive link there", found, "Use another file system: dir=/some/folder")
    if seen["replaced"] != "new":
        yield problem(
            "rename there", "a replaced file still had its old content there", "Use another: dir=..."
        )
    bad = [found for found in seen["files"] if found["result"] == PROBLEM]
    for found in bad:
        yield problem(f"{found['check']} there", found["found"], found["advice"])
    if not bad:
        yield ok("files there", "rename, link, append and flush work on the node too")
    if seen["job"]:
        yield problem("job there", seen["job"], "Load on the node what it needs: slurm.setup, slurm.python")
    else:
        yield ok("python there", f"imports this package ({hello['version']}) and the sweep's job, if planned")


def _gpus(resources: SlurmConfig, hello: dict[str, Any]) -> Finding:
    devices, wanted = hello["devices"], resources.gpus_per_task
    named = f"{len(devices)} ({', '.join(devices)})" if devices else "none"
    text = f"{named} visible, {wanted} asked for{'; ' + hello['gpus'] if hello['gpus'] else ''}"
    if wanted and not devices:
        return problem("GPUs", text, "The cluster does not hand GPUs out: ask for them by slurm.sbatch.gres")
    return ok("GPUs", text)


def _await(path: Path, job: str, seconds: float) -> Any:
    """Wait for a file; None when the time is over or the job has ended without it."""
    deadline = time.monotonic() + seconds
    asked = time.monotonic()
    while time.monotonic() < deadline:
        os.listdir(path.parent)
        if path.exists():
            return json.loads(path.read_text())
        if time.monotonic() > asked + 2:
            asked = time.monotonic()
            if _state(job) in (
                "",
                "FAILED",
                "CANCELLED",
                "TIMEOUT",
                "OUT_OF_MEMORY",
                "NODE_FAIL",
                "COMPLETED",
            ):
                # What it wrote last may take a while to be seen.
                deadline = min(deadline, asked + LOST_SECONDS if _state(job) == "COMPLETED" else asked + 3)
        time.sleep(0.02)
    return None


def _silence(folder: Path, job: str, patience_seconds: float) -> Finding:
    state = _state(job)
    if state == "PENDING":
        found = f"job {job} still waited after {patience_seconds:.0f} s ({_field(job, '%r')})"
        return warning("compute node", found, "Try it again with --patience, or ask for less")
    texts = [path.read_text(errors="replace") for path in folder.glob("log/*.out")]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    # srun's own words come last, and only say that something failed.
    last = next((line for line in reversed(lines) if not line.startswith("srun: error")), "no output")
    advice = "Load on the node what python needs: slurm.setup, slurm.python; or use a shared file system"
    return problem("compute node", f"job {job} ended ({state or 'unknown'}) and told nothing: {last}", advice)


def _until_gone(job: str) -> None:
    """Wait a little for the job's end, so that it writes no log into a folder that is being removed."""
    for _ in range(50):
        if _state(job) not in ("RUNNING", "COMPLETING"):
            return
        time.sleep(0.1)


def _state(job: str) -> str:
    return _field(job, "%T")


def _field(job: str, what: str) -> str:
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={what}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment_outside())
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip()
