"""Coarse-to-fine hyper-parameter sweeps on SLURM GPU clusters that nobody has to watch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orchestrator.errors import StopTrial, UserError

if TYPE_CHECKING:
    from orchestrator.results.load import Results, load_results
    from orchestrator.worker.trial import Trial

__version__ = "0.1.0"

__all__ = ["Results", "StopTrial", "Trial", "UserError", "__version__", "load_results"]


def __getattr__(name: str) -> object:
    # pandas and pyarrow are only paid for by those who load results.
    if name in ("load_results", "Results"):
        from orchestrator.results import load

        return getattr(load, name)
    if name == "Trial":
        from orchestrator.worker.trial import Trial

        return Trial
    raise AttributeError(f"module 'orchestrator' has no attribute {name!r}")
