"""Checks of how many processes train one final run, where, and how many runs share a task."""

from __future__ import annotations

from pathlib import Path

from orchestrator.cluster.script import GPU_FLAGS, sbatch_flags
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig, final_runs, processes
from orchestrator.sweep.directory import FINAL
from orchestrator.worker.sharing import AUTO


def validate_processes(config: SweepConfig, file: Path | str) -> None:
    """Check `final.nodes`, `gpus_per_node`, `processes_per_node` and `runs_at_once`.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    if not final_runs(config.final)[0]:
        return
    try:
        _counts(config)
        _gpus(config)
        _sharing(config)
    except UserError as error:
        raise UserError(error.problem, file=file, key=error.key, hint=error.hint) from None


def _counts(config: SweepConfig) -> None:
    final = config.final
    for key, value, least in (
        ("nodes", final.nodes, 1),
        ("gpus_per_node", final.gpus_per_node, 0),
        ("processes_per_node", final.processes_per_node, 1),
    ):
        if value is not None and value < least:
            raise UserError(f"{value} is too few; the least is {least}", key=f"final.{key}")
    if final.nodes > 1 and config.slurm.executor == "local":
        raise UserError(
            f"{final.nodes} nodes are more than this machine", key="final.nodes",
            hint="Run it on a cluster, slurm=gpu; or here with several processes: final.processes_per_node",
        )  # fmt: skip


def _gpus(config: SweepConfig) -> None:
    final, together = config.final, processes(config, FINAL)
    if 0 < together.gpus_per_node < together.per_node:
        raise UserError(
            f"{together.per_node} processes can't share the {together.gpus_per_node} of a node's GPUs: each "
            "trains on one of its own",
            key="final.processes_per_node", hint=f"Write final.gpus_per_node={together.per_node}",
        )  # fmt: skip
    asked = sorted(GPU_FLAGS & set(sbatch_flags(config.slurm.sbatch)))
    if final.gpus_per_node is not None and asked and config.slurm.executor == "slurm":
        raise UserError(
            f"slurm.sbatch.{asked[0]} asks for GPUs in another way, and only one of the two can count",
            key="final.gpus_per_node", hint="Write slurm.gpus_per_task instead of that flag",
        )  # fmt: skip


def _sharing(config: SweepConfig) -> None:
    key, wanted = "final.runs_at_once", config.final.runs_at_once
    whole = isinstance(wanted, int) and not isinstance(wanted, bool) and wanted >= 1
    if wanted is None or whole or wanted == AUTO:
        count = processes(config, FINAL).count
        if count > 1 and wanted not in (None, 1):
            raise UserError(
                f"a run of {count} processes shares its GPUs with no other", key=key, hint="Leave it out"
            )
        return
    raise UserError(
        f"{wanted!r} is no count of runs", key=key,
        hint="Write 2, or auto for as many as fit, or null for slurm.trials_at_once",
    )  # fmt: skip
