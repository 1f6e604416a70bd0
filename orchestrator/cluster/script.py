"""The batch script of a submission: what a sweep's `slurm` section asks for, in the words of submitit."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError
from orchestrator.schema import Processes, SlurmConfig, flag_name

# sbatch and submitit both read patterns such as %j in a path; sbatch reads none where there is a backslash,
# and a script's option can't hold a line break.
_AWKWARD = frozenset("%\\\n")

# GPUs asked for in another way, so that ours would ask for them twice.
GPU_FLAGS = {"gres", "gpus", "gpus-per-node", "gpus-per-task", "gpus-per-socket"}

# So long after the first of a job's processes has ended, all the others are.
LEAVING_SECONDS = 60

# What a job's processes are told of it. A job that they submit would believe it to be its own.
_OF_A_JOB = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
_OF_A_JOB_TOO = {"CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "PMI_RANK", "PMI_SIZE"}
_OF_THE_CLUSTER = {"SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONF_SERVER", "SLURM_TIME_FORMAT"}


def parameters(resources: SlurmConfig, token: str, together: Processes | None = None) -> dict[str, Any]:
    """Return submitit's parameters for a submission; what is not declared is left to the cluster.

    Args:
        resources: the sweep file's section; its cores and memory are one process's.
        token: the job's name.
        together: the processes of one task; None: one, with the GPUs of `resources`.
    """
    flags = sbatch_flags(resources.sbatch)
    chosen: dict[str, Any] = {
        "job_name": token,
        "comment": token,
        "time": resources.timeout_min,
        # The warning before the limit: submitit's 90 seconds are longer than a short job.
        "signal_delay_s": min(90, 15 * resources.timeout_min),
        "cpus_per_task": resources.cpus_per_task,
        "array_parallelism": resources.tasks_at_once,
        "partition": comma_separated(resources.partition),
        "account": resources.account,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "exclusive": resources.exclusive or None,
        "setup": list(resources.setup) or None,
        "stderr_to_stdout": True,
        "additional_parameters": flags or None,
        **_by_processes(resources, together or Processes(gpus_per_node=resources.gpus_per_task)),
    }
    # submitit's own key of accounting, which a cluster that checks them would not know.
    return {**{name: value for name, value in chosen.items() if value is not None}, "wckey": None}


def _by_processes(resources: SlurmConfig, together: Processes) -> dict[str, Any]:
    gpus: int | str | None = together.gpus_per_node or None
    if gpus and resources.gpu_type:
        gpus = f"{resources.gpu_type}:{gpus}"
    chosen: dict[str, Any] = {
        "gpus_per_node": None if GPU_FLAGS & set(sbatch_flags(resources.sbatch)) else gpus,
        # sbatch counts it by nodes
        "mem": megabytes(resources.mem_gb * together.per_node) if resources.mem_gb else None,
        # Since SLURM 22.05 srun no longer takes over what sbatch was asked for, and a task gets one core.
        "srun_args": [f"--cpus-per-task={resources.cpus_per_task}"],
    }
    if together.count > 1:
        chosen |= {"nodes": together.nodes, "ntasks_per_node": together.per_node}
        # When one process ends badly the leader says of what, for which it needs some seconds. When the
        # leader has ended, whatever keeps another one, nothing waits for that.
        chosen["srun_args"] += ["--kill-on-bad-exit=0", f"--wait={LEAVING_SECONDS}"]
    return chosen


def interpreter(python: str | None) -> str:
    """Return the shell words that start python: a path, quoted, or a command such as a container's, as it is.

    Args:
        python: from the sweep file; None is the python of this process.
    """
    if python is None:
        return shlex.quote(sys.executable)
    path = Path(python).expanduser()
    return shlex.quote(str(path)) if path.is_file() else python


def log_folder(logs: Path) -> Path:
    """Return a name for a submission's folder that sbatch and submitit take as it is written.

    A path that holds `%`, a backslash or a line break gets a second name, a symbolic link: the sweep's logs
    are then seen beside the first folder on the way to them that is called so.

    Raises:
        UserError: that folder's parent is not writable.
    """
    alias = _alias(logs.parent)
    if alias is None:
        return logs
    try:
        with contextlib.suppress(FileExistsError):
            alias.symlink_to(logs.parent, target_is_directory=True)
        if Path(os.readlink(alias)) == logs.parent:
            return alias / logs.name
        problem = "is in the way"
    except OSError as error:
        problem = f"can't be made ({error.strerror})"
    raise UserError(
        f"a link to the sweep's logs {problem}; SLURM can't read '%', '\\' and line breaks in a path",
        file=alias,
        hint="Choose another place for the sweep: dir=/some/folder",
    )


def script_text(
    resources: SlurmConfig, token: str, logs: Path, tasks: int, together: Processes | None = None
) -> str:
    """Return the batch script as submitit will write it for an array of so many tasks; writes nothing.

    Args:
        resources: the sweep file's section.
        token: the job's name.
        logs: the submission's folder.
        tasks: a single one is sent as a plain job.
        together: as for `parameters`.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    alias = _alias(logs.parent)
    folder = logs if alias is None else alias / logs.name
    command = f"{interpreter(resources.python)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    text: str = _make_sbatch_string(
        command=command,
        folder=folder,
        map_count=tasks if tasks > 1 else None,
        **parameters(resources, token, together),
    )
    return text


def sbatch_flags(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return flags by their long names as sbatch spells them; one that is false or null is left out."""
    return {
        flag_name(name): comma_separated(value)
        for name, value in flags.items()
        if value is not None and value is not False
    }


def comma_separated(value: Any) -> Any:
    """Return a list as SLURM writes it; anything else as it is."""
    return ",".join(str(item) for item in value) if isinstance(value, list | tuple) else value


def megabytes(gigabytes: float) -> str:
    """Return an amount of memory as sbatch takes it."""
    return f"{gigabytes * 1024:.0f}M"


def environment_outside() -> dict[str, str]:
    """Return this process's environment without what a job's processes are told of their job."""
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    return {
        name: value
        for name, value in os.environ.items()
        if name in _OF_THE_CLUSTER or not (name in _OF_A_JOB_TOO or name.startswith(_OF_A_JOB))
    }


@contextlib.contextmanager
def outside_of_job() -> Iterator[None]:
    """Submit from within a job (the one that drives a sweep, a shell of salloc) as from outside of it.

    sbatch hands the environment on, and srun in the new job would take this job's memory, tasks and GPUs for
    its own.
    """
    hidden = {name: os.environ[name] for name in os.environ if name not in environment_outside()}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def _alias(logs: Path) -> Path | None:
    """Return the second name of a sweep's logs, None where they need none."""
    parts = logs.absolute().parts
    for index, part in enumerate(parts):
        if _AWKWARD & set(part):
            name = hashlib.sha256(os.fsencode(logs.absolute())).hexdigest()[:10]
            return Path(*parts[:index]) / f".orchestrate-logs-{name}"
    return None
