"""SLURM jobs that work for Dask, asked for by dask-jobqueue in the words of the sweep's `slurm` section.

They are found by their name, which is the sweep's and no other job's; they end with the connection to this
process, however that ends. Whoever could connect to the scheduler could run anything as its user, so it takes
none but its own workers: by certificates that are made for the purpose.
"""

from __future__ import annotations

import contextlib
import getpass
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.cluster.driver import asked_for
from orchestrator.cluster.script import interpreter, log_folder, megabytes, outside_of_job
from orchestrator.errors import UserError
from orchestrator.schema import ResultsConfig, SlurmConfig, task_cores

KEY = "results.dask"
COMMAND_SECONDS, CLOSING_SECONDS = 60.0, 30.0
# Where pages of Dask's are served, which have no lock: on this machine alone, at any port.
PRIVATE = "127.0.0.1:0"


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """For which sweep workers are wanted.

    Attributes:
        token: the name of their jobs.
        plan: a file of the sweep that the workers must see as well.
        results: the folder that they write to.
        logs: of their jobs; gone afterwards if all went well.
    """

    token: str
    plan: Path
    results: Path
    logs: Path


def in_one_line(error: BaseException) -> str:
    """Return an error in one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def close(client: Any) -> None:
    """Close a client or a cluster; one that does not answer any more is gone all the same."""
    with contextlib.suppress(Exception):
        client.close(timeout=CLOSING_SECONDS)


@contextlib.contextmanager
def slurm_jobs(place: Place, config: ResultsConfig, slurm: SlurmConfig) -> Iterator[Any]:
    """Give a cluster of SLURM jobs; they are cancelled in the end, whatever happened.

    Raises:
        UserError: SLURM is not there, or refuses such a job.
    """
    if missing := [name for name in ("sbatch", "scancel") if shutil.which(name) is None]:
        raise UserError(f"no {', '.join(missing)} on this machine", key=KEY, hint="results.dask=threads")
    import dask
    from dask_jobqueue import SLURMCluster

    place.logs.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(outside_of_job())
        trusted = stack.enter_context(_certificates(place.logs))
        stack.enter_context(dask.config.set(trusted))
        stack.callback(_cancel, place.token)
        try:
            cluster = SLURMCluster(
                **asked(place, config, slurm, trusted),
                scheduler_options={"dashboard": False, "dashboard_address": PRIVATE, "port": 0},
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"no Dask scheduler can be started here ({in_one_line(error)})", key="results.interface"
            ) from None
        stack.callback(close, cluster)
        _try(cluster.job_script())
        cluster.scale(jobs=config.jobs)
        yield cluster
    # Only where nothing went wrong.
    shutil.rmtree(place.logs, ignore_errors=True)


@contextlib.contextmanager
def _certificates(logs: Path) -> Iterator[dict[str, str]]:
    """Give Dask's settings for a scheduler that takes only who can read some files; gone afterwards."""
    from distributed.security import Security

    made = Security.temporary()
    # A folder that nobody else may look into.
    folder = Path(tempfile.mkdtemp(prefix=".certificates-", dir=logs))
    try:
        own, key, authority = (folder / name for name in ("certificate.pem", "key.pem", "authority.pem"))
        own.write_text(made.tls_worker_cert)
        key.write_text(made.tls_worker_key)
        authority.write_text(made.tls_ca_file)
        roles = {role: {"cert": str(own), "key": str(key)} for role in ("scheduler", "worker", "client")}
        yield {
            "distributed.comm.require-encryption": "true",
            "distributed.comm.tls.ca-file": str(authority),
            **{
                f"distributed.comm.tls.{role}.{what}": path
                for role, has in roles.items()
                for what, path in has.items()
            },
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def asked(
    place: Place, config: ResultsConfig, slurm: SlurmConfig, trusted: Mapping[str, str]
) -> dict[str, Any]:
    """Return dask-jobqueue's arguments for the jobs, whose lines for sbatch are all ours.

    Args:
        place: the sweep.
        config: the network interface.
        slurm: what the jobs ask for.
        trusted: Dask's settings that they need, handed on as its environment variables.
    """
    cores = task_cores(slurm)
    flags = {
        **asked_for(slurm),
        "job-name": place.token,
        "output": str(log_folder(place.logs) / "%j.log"),
        "time": slurm.timeout_min,
        "cpus-per-task": cores,
        "mem": megabytes(slurm.mem_gb) if slurm.mem_gb else None,
    }
    lines = [
        f"--{name}" if value is True else f"--{name}={shlex.quote(str(value))}"
        for name, value in flags.items()
        if value is not None
    ]
    # Without an amount a worker takes its share of what the node has.
    memory = f"{slurm.mem_gb}GiB" if slurm.mem_gb else "1GiB"
    return {
        "cores": cores,
        "memory": memory,
        "processes": 1,
        "job_directives_skip": ["#SBATCH"],
        "job_extra_directives": lines,
        "job_script_prologue": [
            *(str(line) for line in slurm.driver.get("setup", slurm.setup)),
            *(f"export {_variable(name)}={shlex.quote(value)}" for name, value in trusted.items()),
        ],
        "python": interpreter(slurm.python),
        "interface": config.interface,
        "protocol": "tls://",
        "worker_extra_args": [
            "--dashboard-address",
            PRIVATE,
            *([] if slurm.mem_gb else ["--memory-limit", "auto"]),
        ],
    }


def _variable(setting: str) -> str:
    """Return the environment variable by which Dask takes a setting."""
    return "DASK_" + setting.upper().replace("-", "_").replace(".", "__")


def _try(script: str) -> None:
    """Ask SLURM whether it would take a job: dask-jobqueue would go on without one.

    Raises:
        UserError: what SLURM says.
    """
    command = ["sbatch", "--test-only"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"SLURM does not answer ({in_one_line(error)})", key=KEY) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.replace("sbatch: error:", "").split())
        raise UserError(
            f"SLURM refuses the jobs of Dask: {said}", key="slurm.driver",
            hint="Say there what they shall ask for instead, such as {partition: cpu}",
        )  # fmt: skip


def _cancel(token: str) -> None:
    """Cancel what is left of some jobs; also those that were just being submitted."""
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        command = ["scancel", f"--name={token}", f"--user={getpass.getuser()}"]
        subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS)
