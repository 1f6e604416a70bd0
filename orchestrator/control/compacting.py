"""Where a sweep's records are read into tables: by threads, or by Dask's workers elsewhere.

What only was wanted by the way (the tables that the controller keeps up to date) is done by threads where the
workers can't: it must neither stop a sweep nor wait for ever. Who asks for workers by name is told.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan
from orchestrator.planning.validate_results import THREADS, check_dask
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory

log = logging.getLogger(__name__)


def compact_sweep(
    directory: SweepDirectory,
    plan: Plan,
    config: SweepConfig,
    given_up: Mapping[str, str],
    dask: str | None = None,
) -> None:
    """Bring the Parquet results up to date with the records; reads only what is new.

    Args:
        directory: the sweep's.
        plan: the sweep's.
        config: says where it is done.
        given_up: as `compact` takes it.
        dask: where it shall be done in any case, as `results.dask` says it.

    Raises:
        UserError: what is asked for by `dask` can't be had; or a file of the sweep is damaged.
    """
    from orchestrator.results.compact import compact

    if dask is not None:
        check_dask(dask, "command line", "--dask")
    if (dask or config.results.dask) == THREADS:
        compact(directory.path, given_up=given_up)
        return
    work = partial(_by_workers, directory, plan, config, dask)
    compact(directory.path.resolve(), given_up=given_up, scheduler=work)


def _by_workers(
    directory: SweepDirectory,
    plan: Plan,
    config: SweepConfig,
    dask: str | None,
    tasks: Sequence[Any],
    size: int,
) -> list[Any]:
    from orchestrator.cluster.dask_jobs import Place
    from orchestrator.cluster.workers import compute_on, dask_client
    from orchestrator.results.compact import by_threads

    if dask is None and size < config.results.least_mb * 1e6:
        return by_threads(tasks)
    path = directory.path.resolve()
    whole = SweepDirectory(path)
    token = results_token(plan)
    place = Place(token=token, plan=whole.plan, results=whole.results, logs=whole.logs / token)
    try:
        with dask_client(dask or config.results.dask, place, config.results, config.slurm) as client:
            return compute_on(client, tasks, config.results.wait_seconds)
    except UserError as error:
        if dask is not None:
            raise
        log.warning(f"Dask's workers could not compact the results, so threads do: {error}")
    except Exception as error:
        # Whatever went wrong there: what is wrong here too is said by the threads.
        if dask is not None:
            raise
        log.warning(f"Dask's workers could not compact the results, so threads do: {error!r}")
    return by_threads(tasks)


def results_token(plan: Plan) -> str:
    """Return a name for the jobs in which a sweep's records are read; two that read at once have two."""
    return f"{plan.name.replace(' ', '_')}-results-{plan.uid}-{uuid.uuid4().hex[:6]}"
