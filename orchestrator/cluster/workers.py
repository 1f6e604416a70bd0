"""Workers of Dask: a cluster that runs already, by its address, or jobs of SLURM that end with the caller."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from orchestrator import __version__
from orchestrator.cluster.dask_jobs import COMMAND_SECONDS, KEY, Place, close, in_one_line, slurm_jobs
from orchestrator.errors import UserError, how_to_install
from orchestrator.schema import ResultsConfig, SlurmConfig

SLURM = "slurm"
EXTRA = how_to_install("dask-cluster")
POLL_SECONDS = 2.0
# What both sides must have of the same version, for what they send each other.
_PACKAGES = ("dask", "distributed", "numpy", "pandas", "pyarrow")


@contextlib.contextmanager
def dask_client(where: str, place: Place, config: ResultsConfig, slurm: SlurmConfig) -> Iterator[Any]:
    """Give a Dask client whose workers see the sweep and have the versions of this process.

    Args:
        where: the scheduler's address, or slurm.
        place: the sweep.
        config: how many jobs, and how long to wait for them.
        slurm: what they ask for.

    Raises:
        UserError: it can't be reached, nobody works for it, or the workers see or have something else.
    """
    _require("distributed", *(["dask_jobqueue", "cryptography"] if where == SLURM else []))
    import distributed

    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        given: Any = where
        if where == SLURM:
            given = stack.enter_context(slurm_jobs(place, config, slurm))
        try:
            patience = min(config.wait_seconds, COMMAND_SECONDS)
            client = distributed.Client(given, timeout=patience, set_as_default=False)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"no Dask scheduler answers at {where} ({in_one_line(error)})", key=KEY,
                hint="Start one there: dask scheduler; or let threads do it: results.dask=threads",
            ) from None  # fmt: skip
        stack.callback(close, client)
        _wait_for_worker(client, where, place, config.wait_seconds)
        _compare(client, place)
        yield client


def compute_on(client: Any, tasks: Sequence[Any], patience: float) -> list[Any]:
    """Compute some of Dask's tasks on a client's workers; returns what they return.

    Args:
        client: of `dask_client`.
        tasks: delayed values.
        patience: seconds without any worker after which nothing is waited for any longer.

    Raises:
        UserError: the cluster is gone, or loses worker after worker.
    """
    import distributed

    futures = client.compute(list(tasks))
    left = time.monotonic()
    try:
        while any(not one.done() for one in futures):
            with contextlib.suppress(TimeoutError), client.as_current():
                distributed.wait(futures, timeout=POLL_SECONDS)
            if client.status != "running":
                raise UserError("the Dask scheduler was lost", key=KEY)
            if client.scheduler_info().get("workers"):
                left = time.monotonic()
            elif time.monotonic() - left > patience:
                raise UserError(f"Dask has had no worker for {patience:.0f} s", key=KEY)
        found: list[Any] = client.gather(futures)
        return found
    except (CancelledError, distributed.comm.CommClosedError):
        raise UserError("the Dask scheduler was lost", key=KEY) from None
    except distributed.KilledWorker as error:
        hint = "They may have had too little memory"
        raise UserError(f"Dask's workers died ({in_one_line(error)})", key=KEY, hint=hint) from None
    finally:
        with contextlib.suppress(Exception):
            client.cancel(futures)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Let Dask not log what is said in one sentence here."""
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "distributed"]
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _require(*packages: str) -> None:
    for name in packages:
        try:
            __import__(name)
        except ImportError:
            raise UserError(f"the package {name} is missing", key=KEY, hint=f"Install it: {EXTRA}") from None


def _wait_for_worker(client: Any, where: str, place: Place, seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=max(seconds, 0.1))
    except TimeoutError:
        hint = "Start some: dask worker ADDRESS"
        if where == SLURM:
            hint = f"See squeue, and the jobs' logs in {place.logs}; results.wait_seconds may be more"
        raise UserError(f"no Dask worker came within {seconds:g} s ({where})", key=KEY, hint=hint) from None


def _compare(client: Any, place: Place) -> None:
    """See to it that the workers see the sweep's files and can work on them as this process can.

    Raises:
        UserError: what one of them has otherwise.
    """
    own = look(str(place.plan), str(place.results))
    for address, seen in client.run(look, str(place.plan), str(place.results), on_error="return").items():
        if not isinstance(seen, Mapping):
            raise UserError(
                f"the worker at {address} can't do it: {in_one_line(seen)}", key=KEY,
                hint="It needs this package, in the environment that it runs in",
            )  # fmt: skip
        for what, value in own.items():
            if seen.get(what) != value:
                raise UserError(_otherwise(address, what, str(seen.get(what)), str(value), place), key=KEY)


def _otherwise(address: str, what: str, its: str, own: str, place: Place) -> str:
    if what == "plan":
        return f"the worker at {address} does not see the sweep's files: {place.plan} is {its} there"
    if what == "results":
        return f"the worker at {address} can't write to {place.results}: it is {its} there"
    return f"the worker at {address} has {what} {its}, and this process {own}"


def look(plan: str, results: str) -> dict[str, str]:
    """Return what a process has of versions and sees of a sweep; runs on the workers too."""
    seen = {"python": ".".join(platform.python_version_tuple()[:2]), "orchestrator": __version__}
    for name in _PACKAGES:
        try:
            seen[name] = version(name)
        except PackageNotFoundError:
            seen[name] = "missing"
    try:
        seen["plan"] = hashlib.sha256(Path(plan).read_bytes()).hexdigest()[:12]
    except OSError as error:
        seen["plan"] = str(error.strerror)
    folder = Path(results) if Path(results).exists() else Path(results).parent
    seen["results"] = "writable" if os.access(folder, os.W_OK | os.X_OK) else "not writable"
    return seen
