"""What SLURM says of itself and of a sweep's request, without running anything."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.cluster.driver import asked_for
from orchestrator.cluster.script import comma_separated, environment_outside, script_text
from orchestrator.doctor.finding import Finding, ok, problem, warning
from orchestrator.errors import nearest
from orchestrator.schema import SlurmConfig

NEEDED, USEFUL = ("sbatch", "squeue", "scancel", "srun"), ("scontrol", "sacct", "sacctmgr")
SLOW_SECONDS, COMMAND_SECONDS = 5.0, 60.0


def check_commands() -> Iterator[Finding]:
    """Look for SLURM's commands."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        yield problem(
            "commands",
            f"no {', '.join(missing)} on this machine",
            "Go to a login node, or load the cluster's module; slurm=local needs none of them",
        )
        return
    lacking = [name for name in USEFUL if shutil.which(name) is None]
    if lacking:
        yield warning("commands", f"no {', '.join(lacking)}", "Limits and causes of failures are known less")
    else:
        yield ok("commands", ", ".join((*NEEDED, *USEFUL)))


def check_controller() -> Finding:
    """Ask the controller something."""
    began = time.monotonic()
    done = _call(["squeue", "--noheader", "--user", "root", "--format=%i"])
    seconds = time.monotonic() - began
    if done.returncode != 0:
        return problem("controller", _words(done), "Nothing can be submitted until it answers")
    if seconds > SLOW_SECONDS:
        return warning("controller", f"answers in {seconds:.1f} s", "It is busy; a sweep asks seldom")
    return ok("controller", f"answers in {seconds:.2f} s")


def check_configuration(most_tasks: int) -> Iterator[Finding]:
    """Read the cluster's limits and whether it keeps accounts.

    Args:
        most_tasks: of the largest stage, 0 where that is not known.
    """
    shown = dict(
        re.findall(r"^(\w+)\s*=\s*(.*\S)", _call(["scontrol", "show", "config"]).stdout, re.MULTILINE)
    )
    limits = ", ".join(f"{name} {shown[name]}" for name in ("MaxArraySize", "MaxJobCount") if name in shown)
    array = shown.get("MaxArraySize", "")
    if array.isdigit() and most_tasks >= int(array):
        yield ok("limits", f"{limits}; the largest stage of {most_tasks} tasks is sent in waves")
    elif limits:
        yield ok("limits", limits)
    kept = shown.get("AccountingStorageType", "")
    if "none" in kept or not kept:
        advice = "What ended a task is then told by its own records alone; that is enough to go on"
        yield warning("accounting", "is off", advice)
    else:
        done = _call(["sacct", "--noheader", "--allocations", "--format=JobID", "--starttime=now-1minute"])
        if done.returncode == 0:
            yield ok("accounting", "sacct answers")
        else:
            yield warning("accounting", _words(done), "What ended a task may not be known")
    done = _call(["scrontab", "-l"])
    if done.returncode == 0 or "no crontab" in _words(done).lower():
        yield ok("scrontab", "enabled: orchestrate cron DIR --install")
    else:
        yield ok("scrontab", "not enabled; orchestrate submit needs none")


def check_partitions(resources: SlurmConfig) -> Iterator[Finding]:
    """Compare the partitions with what is asked of them."""
    text = _call(["scontrol", "show", "partition", "--oneliner"]).stdout
    known = {}
    for line in text.splitlines():
        pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if name := pairs.get("PartitionName"):
            known[name] = pairs
    default = [name for name, pairs in known.items() if pairs.get("Default") == "YES"]
    asked = str(comma_separated(resources.partition) or "").split(",") if resources.partition else default
    if not asked:
        advice = f"Name one: slurm.partition=...; there are {', '.join(known)}"
        yield problem("partition", "none is named, and the cluster has no default", advice)
    for name in asked:
        if name not in known:
            yield problem("partition", f"there is no '{name}'", nearest(name, known))
            continue
        state, limit = known[name].get("State", ""), _minutes(known[name].get("MaxTime", ""))
        if state not in ("UP", ""):
            yield warning("partition", f"{name} is {state}", "Tasks wait until it is UP")
        if limit is not None and resources.timeout_min > limit:
            yield problem(
                "partition",
                f"{name} allows {limit:g} minutes, and slurm.timeout_min is {resources.timeout_min}",
                f"Write slurm.timeout_min={limit:.0f}; longer trials go on in the next leg",
            )
        elif state in ("UP", ""):
            yield ok(
                "partition", f"{name} is up, {'no time limit' if limit is None else f'{limit:g} minutes'}"
            )


def check_request(resources: SlurmConfig, folder: Path) -> Iterator[Finding]:
    """Let sbatch say whether it would take what is asked for; nothing is submitted."""
    script = script_text(replace(resources, setup=[]), "orchestrate-doctor", folder, tasks=2)
    done = _call(["sbatch", "--test-only"], script)
    if done.returncode == 0:
        yield ok("request of tasks", "sbatch would take it")
    else:
        yield problem("request of tasks", _words(done), "Change the section slurm of the sweep")
    flags = [f"--{k}" if v is True else f"--{k}={v}" for k, v in asked_for(resources).items()]
    done = _call(["sbatch", "--test-only", *flags], "#!/bin/sh\ntrue\n")
    if done.returncode == 0:
        yield ok("request of driver", "sbatch would take it")
    else:
        advice = "Say in slurm.driver what the jobs of `orchestrate submit` shall ask for instead"
        yield problem("request of driver", _words(done), advice)


def _minutes(text: str) -> float | None:
    """Read SLURM's D-HH:MM:SS; None is without limit."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text)
    if not found:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return 1440 * days + 60 * hours + minutes + seconds / 60


def _words(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.replace("sbatch: error: ", "").strip() for line in done.stderr.splitlines()]
    return "; ".join(filter(None, lines)) or f"exit status {done.returncode}"


def _call(command: Sequence[str], given: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=COMMAND_SECONDS,
            env=environment_outside(),
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(list(command), 127, "", str(error))
