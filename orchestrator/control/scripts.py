"""The batch scripts of a sweep as they will be sent, for a person to read before anything is."""

from __future__ import annotations

import shlex
from dataclasses import replace

from orchestrator.cluster.driver import Wake, driver_flags, driver_script
from orchestrator.cluster.script import script_text
from orchestrator.control.submit import driver_log, driver_token
from orchestrator.errors import UserError
from orchestrator.planning.plan import Plan
from orchestrator.schema import SlurmConfig, SweepConfig, larger, processes
from orchestrator.sweep.directory import SweepDirectory

OUT_OF_MEMORY, DRIVER = "after out of memory", "driver"


def scripts(plan: Plan, config: SweepConfig, directory: SweepDirectory) -> dict[str, str]:
    """Return the script of each phase's first array, of what runs again with more memory, and of the driver.

    Raises:
        UserError: the sweep runs on this machine alone.
    """
    resources = config.slurm
    if resources.executor != "slurm":
        raise UserError(
            "nothing is sent to SLURM, so there is no script", key="slurm.executor", hint="Add slurm=gpu"
        )
    first = {phase.name: (phase, phase.tasks, config) for phase in plan.phases}
    if resources.on_out_of_memory:
        first[OUT_OF_MEMORY] = (plan.phases[0], 1, replace(config, slurm=larger(resources)))
    found = {}
    for title, (phase, tasks, asked) in first.items():
        token = f"{plan.name.replace(' ', '_')}-{phase.name}-{plan.uid}-0001"
        together = processes(asked, phase.kind)
        found[title] = script_text(asked.slurm, token, directory.logs / token, tasks, together)
    found[DRIVER] = _driver(plan, resources, directory)
    return found


def _driver(plan: Plan, resources: SlurmConfig, directory: SweepDirectory) -> str:
    log = driver_log(directory)
    flags = driver_flags(driver_token(plan), Wake("after ARRAY", ("ARRAY",)), resources, directory.path, log)
    script = driver_script(resources, directory.path, log)
    return f"{script}# sent by: {shlex.join(['sbatch', *flags])}\n"
