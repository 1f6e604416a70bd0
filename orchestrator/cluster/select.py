"""Choosing the cluster that a sweep's config names."""

from __future__ import annotations

from orchestrator.cluster.interface import Cluster
from orchestrator.schema import SlurmConfig


def open_cluster(resources: SlurmConfig) -> Cluster:
    """Return the cluster for `slurm.executor`.

    Raises:
        UserError: SLURM's commands are not on this machine.
    """
    if resources.executor == "slurm":
        from orchestrator.cluster.slurm import SlurmCluster

        return SlurmCluster(resources)
    from orchestrator.cluster.local import LocalCluster

    return LocalCluster(resources)
