"""A planned sweep, opened: what driving it, handing it over and looking at it start from."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.cluster.interface import Cluster
from orchestrator.cluster.select import open_cluster
from orchestrator.config import load_frozen
from orchestrator.control.advance import affordable_facts
from orchestrator.control.decide import Decision
from orchestrator.control.standing import Standing, standing
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Plan
from orchestrator.schema import SweepConfig, trials_at_once
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_plan


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A planned sweep, opened for driving."""

    directory: SweepDirectory
    plan: Plan
    config: SweepConfig

    def cluster(self) -> Cluster:
        """Open the sweep's cluster."""
        return open_cluster(self.config.slurm)

    def stand(self, decision: Decision) -> Standing:
        """Say where the sweep stands."""
        return standing(
            affordable_facts(self.directory, self.plan, self.config),
            decision,
            self.config.slurm.attempts,
            trials_at_once(self.config.slurm),
            {phase.kind: Price.of(self.config, phase.kind).share for phase in self.plan.phases},
        )


def open_sweep(directory: SweepDirectory) -> Sweep:
    """Open a sweep that was planned before.

    Raises:
        UserError: the folder is no sweep's.
    """
    return Sweep(directory=directory, plan=read_plan(directory), config=load_frozen(directory.config))
