"""Plain submitit: one array of all trials, and a wait for their results."""

from __future__ import annotations

import functools
import json
import sys

import submitit
from my_train import score

trials, at_once, log, pause = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], float(sys.argv[4])
executor = submitit.AutoExecutor(folder="submitit")
executor.update_parameters(timeout_min=10, cpus_per_task=1, mem_gb=0.5, slurm_array_parallelism=at_once)
run = functools.partial(score, log=log, pause=pause)
jobs = executor.map_array(run, [number / trials for number in range(trials)], list(range(trials)))
print(json.dumps({"results": len([job.result() for job in jobs])}))
