"""All checks, in the order in which one rests on the other."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from orchestrator.cluster.script import log_folder
from orchestrator.doctor.cluster import (
    check_commands,
    check_configuration,
    check_controller,
    check_partitions,
    check_request,
)
from orchestrator.doctor.files import check_files
from orchestrator.doctor.finding import PROBLEM, Finding, problem
from orchestrator.doctor.visit import check_node
from orchestrator.schema import SlurmConfig


def examine(
    resources: SlurmConfig,
    place: Path,
    *,
    sweep: str = "",
    most_tasks: int = 0,
    job: bool = True,
    patience_seconds: float = 120.0,
) -> Iterator[Finding]:
    """Check everything that a sweep relies on; leaves nothing behind.

    Args:
        resources: what its tasks ask for.
        place: where the sweep lives or will; the nearest folder that is there is used.
        sweep: a planned sweep's directory, empty for none.
        most_tasks: of its largest stage, 0 where that is not known.
        job: run a small job on a compute node.
        patience_seconds: how long that one may wait in the queue.
    """
    place = next(folder for folder in (place, *place.parents) if folder.is_dir())
    try:
        folder = Path(tempfile.mkdtemp(prefix=".orchestrate-doctor-", dir=place))
    except OSError as error:
        yield problem(
            "file system", f"{place} can't be written to ({error.strerror})", "Choose another: dir=..."
        )
        return
    try:
        here = folder / "here"
        here.mkdir()
        yield from check_files(here)
        if resources.executor == "slurm":
            yield from _cluster(resources, folder, sweep, most_tasks, patience_seconds if job else None)
    finally:
        _remove(folder)


def _cluster(
    resources: SlurmConfig, folder: Path, sweep: str, most_tasks: int, patience_seconds: float | None
) -> Iterator[Finding]:
    found: list[Finding] = []
    for finding in (*check_commands(), *([] if shutil.which("sbatch") is None else [check_controller()])):
        found.append(finding)
        yield finding
    if any(finding.result == PROBLEM for finding in found):
        return
    yield from check_configuration(most_tasks)
    requests = [*check_partitions(resources), *check_request(resources, folder / "request")]
    yield from requests
    if patience_seconds is not None and not any(finding.result == PROBLEM for finding in requests):
        yield from check_node(resources, folder, sweep, patience_seconds)


def _remove(folder: Path) -> None:
    alias = log_folder(folder / "log").parent
    if alias != folder and alias.is_symlink():
        alias.unlink()
    # A slow file system may still show what was just removed.
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
    assert os.path.isabs(folder), "only our own folder is removed"
