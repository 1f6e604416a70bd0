"""Checks of the section `results`: where records are read into tables."""

from __future__ import annotations

import re
from pathlib import Path

from orchestrator.errors import UserError, nearest
from orchestrator.schema import ResultsConfig

THREADS, SLURM = "threads", "slurm"
_ADDRESS = re.compile(r"(tcp|tls|ucx|ws|wss)://([^\s:/\[\]]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})")


def validate_results(results: ResultsConfig, file: Path | str) -> None:
    """Check where records are read.

    Raises:
        UserError: the first key that is wrong.
    """
    check_dask(results.dask, file, "results.dask")
    if results.jobs < 1:
        raise UserError(f"{results.jobs} is less than 1", file=file, key="results.jobs")
    for key, value in (("least_mb", results.least_mb), ("wait_seconds", results.wait_seconds)):
        if not 0 <= value < float("inf"):
            raise UserError(f"{value:g} can't be", file=file, key=f"results.{key}")


def check_dask(dask: str, file: Path | str, key: str) -> None:
    """Check what says where Dask works.

    Raises:
        UserError: it is none of threads, slurm and an address.
    """
    if dask in (THREADS, SLURM):
        return
    found = _ADDRESS.fullmatch(dask)
    if not found or not 0 < int(found[3]) < 2**16:
        hint = nearest(dask, (THREADS, SLURM)) if dask.isidentifier() else ""
        raise UserError(
            f"'{dask}' is neither threads nor slurm nor an address such as tcp://host:8786",
            file=file,
            key=key,
            hint=hint if hint.startswith("Did") else "",
        )
