"""The launcher of the local cluster: submits the tasks of one intent and writes its receipt."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

from submitit.local.local import LocalExecutor

from orchestrator.cluster.local import job_of
from orchestrator.config import load_frozen
from orchestrator.schema import larger, processes
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.submissions import Receipt, read_intent, write_receipt
from orchestrator.worker.task import tasks_of


def launch(sweep: Path, kind: str, phase: str, number: int) -> None:
    """Submit the tasks of an intent with submitit's local executor."""
    directory = SweepDirectory(sweep)
    config = load_frozen(directory.config)
    folder = directory.phase(kind, phase).submissions
    intent = read_intent(folder, number)
    if intent.larger:
        config = replace(config, slurm=larger(config.slurm))
    resources, together = config.slurm, processes(config, kind)
    executor = LocalExecutor(directory.logs / intent.token, python=resources.python)
    executor.update_parameters(
        timeout_min=resources.timeout_min,
        gpus_per_node=together.gpus_per_node,
        tasks_per_node=together.per_node,
        setup=resources.setup,
        stderr_to_stdout=True,
    )
    jobs = executor.submit_array(tasks_of(sweep, kind, phase, intent))
    receipt = Receipt(jobs=tuple(job_of(int(job.job_id)) for job in jobs), host=socket.gethostname())
    write_receipt(folder, number, receipt)


if __name__ == "__main__":
    # Started from a terminal that may close: nothing but the work itself ends the launcher.
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    launch(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
