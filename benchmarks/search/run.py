"""Run the search benchmark: tasks x methods x seeds x budgets; what is there already is not run again.

python benchmarks/search/run.py --data FOLDER --seeds 20 --out results/
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
import methods
import shards
import tasks

BUDGETS = (2.0, 5.0, 10.0, 20.0)
# Random settings that say what is good and what is ordinary; a live task's are trained one by one.
REFERENCE_SETTINGS, LIVE_REFERENCE_SETTINGS = 4000, 32
REFERENCE_SEED = 2_000_000
PACKAGES = (
    "coarse-to-fine-orchestrator", "numpy", "scipy", "pandas", "torch", "optuna", "onnxruntime", "syne-tune",
    "smac", "ConfigSpace", "neural-pipeline-search", "cmaes",
)  # fmt: skip
Job = tuple[str, str]


@click.command()
@click.option(
    "--data", type=click.Path(file_okay=False, path_type=Path), help="Folder of yahpo/ and taskset/."
)
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="For the results."
)
@click.option("--seeds", default=20, show_default=True, help="Runs of each method on each task.")
@click.option("--budgets", default=",".join(f"{budget:g}" for budget in BUDGETS), show_default=True)
@click.option(
    "--tasks", "task_patterns", default="*", show_default=True, help="Patterns, as in rpart/*,live/*."
)
@click.option("--half", type=click.Choice(["tuning", "held-out"]), help="Only this half of the tasks.")
@click.option(
    "--methods", "method_patterns", default="*", show_default=True, help="Patterns, as in asha,optuna*."
)
@click.option("--jobs", default=os.cpu_count() or 1, show_default=True, help="Processes.")
def main(
    data: Path | None, out: Path, seeds: int, budgets: str, task_patterns: str, half: str | None,
    method_patterns: str, jobs: int,
) -> None:  # fmt: skip
    """Run every chosen method on every chosen task and write one shard for each pair."""
    names, no_data = tasks.available(data)
    known, not_installed = methods.installed()
    for sentence in (*no_data, *not_installed):
        click.echo(sentence, err=True)
    chosen = [name for name in names if _matches(name, task_patterns) and half in (None, tasks.half_of(name))]
    picked = [name for name in known if _matches(name, method_patterns)]
    if not chosen or not picked:
        raise click.UsageError("no task or no method is left to run")
    amounts = tuple(float(budget) for budget in budgets.split(","))
    record_machine(out, data, jobs)
    pairs = [(name, shards.REFERENCE) for name in chosen]
    pairs += [(name, method) for method in picked for name in chosen]
    failures = run_all(pairs, data, out, seeds, amounts, jobs)
    for (task, method), error in failures.items():
        click.echo(f"{method} on {task}: {type(error).__name__}: {error}", err=True)
    raise SystemExit(1 if failures else 0)


def _matches(name: str, patterns: str) -> bool:
    return any(fnmatch(name, pattern.strip()) for pattern in patterns.split(","))


def run_all(
    pairs: list[Job], data: Path | None, out: Path, seeds: int, budgets: tuple[float, ...], jobs: int
) -> dict[Job, BaseException]:
    """Run pairs of task and method in so many processes, with a progress bar; return those that failed."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # for the processes started here
    failures: dict[Job, BaseException] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Spawned, not forked: torch and ONNX Runtime have threads of their own.
    with (
        Progress(*columns) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), initializer=be_quiet) as pool,
    ):
        bar = progress.add_task("", total=len(pairs))
        futures: dict[Future[None], Job] = {
            pool.submit(run_pair, pair, data, out, seeds, budgets): pair for pair in pairs
        }
        for future in as_completed(futures):
            task, method = futures[future]
            progress.update(bar, advance=1, description=f"{method} on {task}")
            error = future.exception()
            if error is not None:
                failures[task, method] = error
    return failures


def be_quiet() -> None:
    """Keep the libraries' warnings and logs out of the progress view; errors are still raised."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)


def run_pair(pair: Job, data: Path | None, out: Path, seeds: int, budgets: tuple[float, ...]) -> None:
    """Run what is missing of a method on a task; each seed is written as soon as it is done."""
    name, method = pair
    file = shards.shard(out, name, method)
    done = shards.present(file)
    task = tasks.load(name, data)
    if method == shards.REFERENCE:
        if not done:
            shards.add(file, [shards.reference_row(task, reference_settings(task))])
        return
    for seed in range(seeds):
        missing = [budget for budget in budgets if (seed, budget) not in done]
        if missing:
            start = time.process_time()
            outcomes = methods.outcomes(method, task, missing, seed)
            seconds = time.process_time() - start
            rows = [
                shards.row(task, method, seed, budget, outcomes.get(budget), seconds) for budget in missing
            ]
            shards.add(file, rows)


def reference_settings(task: tasks.Task) -> list[tasks.Setting]:
    """Return a table's settings, or random ones that no method's seed draws."""
    import numpy as np
    from opponents.draw import place

    if task.pool:
        return list(task.pool)
    count = LIVE_REFERENCE_SETTINGS if task.family == "live" else REFERENCE_SETTINGS
    generator = np.random.default_rng(REFERENCE_SEED)
    return [place(task.space, generator.random(len(task.space))) for _ in range(count)]


def record_machine(out: Path, data: Path | None, jobs: int) -> None:
    """Add the machine and the versions of this run to machine.json."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / "machine.json"
    runs: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    runs.append(
        {
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "system": f"{platform.system()} {platform.machine()}",
            "processor": _processor(),
            "cores": os.cpu_count(),
            "processes": jobs,
            "public_data": data is not None,
            "python": platform.python_version(),
            "versions": {name: found for name in PACKAGES if (found := _version(name))},
        }
    )
    file.write_text(json.dumps(runs, indent=2) + "\n")


def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text().splitlines() if names.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
