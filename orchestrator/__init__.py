"""Coarse-to-fine hyper-parameter sweeps on SLURM GPU clusters that nobody has to watch.

In a notebook:

    from orchestrator import load_results, plots

    results = load_results("sweeps/digits")
    results.best(5)
    plots.ranges(results)

See `Results` for what is in them, and `orchestrator.plots` for the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import StopTrial, UserError

if TYPE_CHECKING:
    from orchestrator.results.load import Results
    from orchestrator.worker.trial import Trial

__version__ = "0.1.0"

__all__ = ["Results", "StopTrial", "Trial", "UserError", "__version__", "load_results"]


def load_results(directory: str | Path, *, missing_ok: bool = False) -> Results:
    """Load a sweep's results.

    Args:
        directory: the sweep's directory, such as sweeps/digits.
        missing_ok: a sweep that has no results yet gives empty tables.

    Raises:
        UserError: the directory is no sweep's, or has no results yet.
    """
    # pandas and pyarrow are only paid for by those who load results.
    from orchestrator.results import load

    return load.load_results(directory, missing_ok=missing_ok)


def __getattr__(name: str) -> object:
    if name == "Results":
        from orchestrator.results.load import Results

        return Results
    if name == "Trial":
        from orchestrator.worker.trial import Trial

        return Trial
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
