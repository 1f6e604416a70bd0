"""Checks of the section `slurm`: what sbatch would refuse hours later, or take for something else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, nearest
from orchestrator.schema import SlurmConfig, flag_name

# What the sections of free keys may hold, and of which type.
_WORDS, _WHOLE, _AMOUNT = "text", "a whole number from 1 up", "a number above 0"
DRIVER_KEYS = {
    "partition": "text or a list",
    "account": _WORDS,
    "qos": _WORDS,
    "timeout_min": _WHOLE,
    "mem_gb": _AMOUNT,
    "setup": "a list of shell lines",
    "python": _WORDS,
    "sbatch": "a mapping of flags",
}
LARGER_KEYS = {
    "mem_gb": _AMOUNT,
    "trials_at_once": _WHOLE,
    "cpus_per_task": _WHOLE,
    "gpus_per_task": _WHOLE,
    "gpu_type": _WORDS,
    "exclusive": "true or false",
    "partition": "text or a list",
    "account": _WORDS,
    "qos": _WORDS,
    "constraint": _WORDS,
    "timeout_min": _WHOLE,
    "sbatch": "a mapping of flags",
}

# sbatch's flags that a key of ours sets, and those that must be as they are.
_OWN_KEY = {
    "partition": "partition",
    "account": "account",
    "qos": "qos",
    "constraint": "constraint",
    "time": "timeout_min",
    "mem": "mem_gb",
    "cpus-per-task": "cpus_per_task",
    "gpus-per-node": "gpus_per_task and slurm.gpu_type",
    "exclusive": "exclusive",
}
_OURS = {
    "array": "the tasks of a stage are the array",
    "job-name": "it is how a sweep finds its jobs again",
    "comment": "it is how a sweep finds its jobs again",
    "dependency": "the order of the stages is seen to",
    "output": "logs are in the sweep's directory",
    "error": "logs are in the sweep's directory",
    "open-mode": "logs are appended to",
    "signal": "it is how a task learns of its time limit",
    "parsable": "it changes sbatch's answer",
    "test-only": "nothing would be submitted",
    "wait": "sbatch would not return",
    "wrap": "there is a script",
    "chdir": "a task runs in the sweep file's folder",
    "input": "a task reads nothing",
    "ntasks": "a task is one process; those of a final run are final.processes_per_node",
    "ntasks-per-node": "a task is one process; those of a final run are final.processes_per_node",
    "nodes": "a task is one process on one node; a final run has final.nodes",
    "no-requeue": "a preempted task goes on by itself",
    "hold": "nothing would start",
}


def validate_slurm(slurm: SlurmConfig, file: Path | str) -> None:
    """Check what a cluster is asked for.

    Raises:
        UserError: the first key that is wrong.
    """
    _type("slurm.partition", slurm.partition, "text or a list", file)
    _flags("slurm.sbatch", slurm.sbatch, file)
    _section("slurm.driver", slurm.driver, DRIVER_KEYS, file)
    _section("slurm.on_out_of_memory", slurm.on_out_of_memory, LARGER_KEYS, file)
    if slurm.gpu_type is not None and slurm.gpus_per_task == 0:
        raise UserError(
            "names a kind of GPU, and no GPU is asked for", file=file, key="slurm.gpu_type",
            hint="Write slurm.gpus_per_task=1 too",
        )  # fmt: skip
    larger = slurm.on_out_of_memory.get("mem_gb")
    if larger is not None and slurm.mem_gb is not None and larger <= slurm.mem_gb:
        raise UserError(
            f"{larger:g} GB are not more than the {slurm.mem_gb:g} GB of slurm.mem_gb", file=file,
            key="slurm.on_out_of_memory.mem_gb",
        )  # fmt: skip
    for key, value in (("quiet_minutes", slurm.quiet_minutes), ("max_queued", slurm.max_queued)):
        if value is not None and not value > 0:
            raise UserError(
                f"{value:g} can't be", file=file, key=f"slurm.{key}", hint="Write null for no limit"
            )


def _section(key: str, section: Mapping[str, Any], known: Mapping[str, str], file: Path | str) -> None:
    for name, value in section.items():
        if name not in known:
            own = [item.name for item in fields(SlurmConfig)]
            hint = nearest(str(name), known)
            if name in own:
                hint = f"It can't be another one here. Valid: {', '.join(sorted(known))}"
            raise UserError(f"unknown key '{name}'", file=file, key=key, hint=hint)
        _type(f"{key}.{name}", value, known[name], file)
    _flags(f"{key}.sbatch", section.get("sbatch") or {}, file)


def _type(key: str, value: Any, wanted: str, file: Path | str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    texts = isinstance(value, list | tuple) and all(isinstance(item, str) and item for item in value)
    fits = {
        _WORDS: isinstance(value, str) and value != "",
        _WHOLE: isinstance(value, int) and number and value >= 1,
        _AMOUNT: number and 0 < value < float("inf"),
        "text or a list": (isinstance(value, str) and value != "") or (texts and bool(value)),
        "a list of shell lines": texts,
        "a mapping of flags": isinstance(value, Mapping),
        "true or false": isinstance(value, bool),
    }
    if value is not None and not fits[wanted]:
        raise UserError(f"{value!r} is not {wanted}", file=file, key=key)


def _flags(key: str, flags: Mapping[str, Any], file: Path | str) -> None:
    """Check flags for sbatch: each once, by its long name, none that is ours to set."""
    seen: dict[str, str] = {}
    for given, value in flags.items():
        name = flag_name(given)
        where = f"{key}.{given}"
        if len(name) < 2 or not name.replace("-", "").isalnum():
            hint = "Write long names, such as {reservation: maintenance}"
            raise UserError("is no long name of a flag", file=file, key=where, hint=hint)
        if name in _OWN_KEY:
            section = key.removesuffix(".sbatch")
            raise UserError(
                "has a key of its own", file=file, key=where, hint=f"Write {section}.{_OWN_KEY[name]}"
            )
        if name in _OURS:
            raise UserError(f"can't be changed: {_OURS[name]}", file=file, key=where)
        if name in seen:
            raise UserError(f"is given twice, as '{seen[name]}' too", file=file, key=where)
        if isinstance(value, Mapping) or (isinstance(value, str) and "\n" in value):
            raise UserError(f"{value!r} is no value of a flag", file=file, key=where)
        seen[name] = str(given)
