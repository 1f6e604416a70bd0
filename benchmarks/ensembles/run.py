"""What do ensembles give here? Run a small sweep of each data set from several seeds.

python benchmarks/ensembles/run.py --out benchmarks/ensembles --data FOLDER
python benchmarks/ensembles/run.py --out /tmp/ensembles --only 'digits,tumours' --seeds 3
"""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent))

import data as tasks
import page

KEPT = (
    "score", "combine", "candidates", "temperature", "nested", "validation", "test", "test_intervals",
    "gains", "methods", "ablation", "other_scores", "validation_samples", "test_samples", "test_looks",
)  # fmt: skip
DESCRIBED = ("model", "seed", "step", "kind", "weight", "barrier", "note")  # of a model, without its paths


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of results and page.")
@click.option("--data", type=click.Path(exists=True, path_type=Path), help="Folder with CIFAR-10.")
@click.option(
    "--seeds", default=3, show_default=True, help="Sweeps of each data set, each with its own split."
)
@click.option("--only", default="*", show_default=True, help="Names of data sets, with * and commas.")
def main(out: Path, data: Path | None, seeds: int, only: str) -> None:
    """Run the sweeps that are missing in OUT/results, and write the page again."""
    (out / "results").mkdir(parents=True, exist_ok=True)
    chosen = [name for name in tasks.TASKS if any(fnmatch(name, one.strip()) for one in only.split(","))]
    if data is None and "photographs" in chosen:
        click.echo("photographs are left out: they need --data")
        chosen.remove("photographs")
    failed = 0
    # Every data set has its first seed before any has its second: stopped early, all of them have figures.
    for seed, name in itertools.product(range(seeds), chosen):
        file = out / "results" / f"{name}.json"
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        if any(row["seed"] == seed for row in rows):
            continue
        task = tasks.TASKS[name]
        try:
            rows.append(sweep(name, task, seed, data))
        except click.ClickException as error:  # the others still have figures
            error.show()
            failed += 1
            continue
        rows.sort(key=lambda row: int(row["seed"]))
        file.write_text(json.dumps({"machine": machine(), "says": task.says, "rows": rows}, indent=1) + "\n")
        click.echo(page.line(name, next(row for row in rows if row["seed"] == seed)))
    page.write(out, list(tasks.TASKS))
    sys.exit(1 if failed else 0)


def sweep(name: str, task: tasks.Task, seed: int, data: Path | None) -> dict[str, Any]:
    """Run one sweep in a temporary folder, and return what its ensemble came to, with its seconds."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "sweep.yaml").write_text(json.dumps(declared(name, task, seed, folder, data)))
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "run", "sweep.yaml"], cwd=folder,
            capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        result = folder / "sweeps" / name / "ensemble" / "ensemble.json"
        if done.returncode or not result.exists():
            raise click.ClickException(f"{name}, seed {seed}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        found = json.loads(result.read_text())
        seconds = round(time.monotonic() - began, 1)
    return {
        "seed": seed, "seconds": seconds, **{key: found[key] for key in KEPT if key in found},
        "members": [_described(one) for one in found["members"]],
        "best_single": _described(found["best_single"]),
        "student": _student(found.get("student")),
        "soup": None if found.get("soup") is None else _described(found["soup"]),
        "skipped": len(found["skipped"]),
    }  # fmt: skip


def _student(student: dict[str, Any] | None) -> dict[str, Any] | None:
    if student is None:
        return None
    chosen = {key: student["chosen"][key] for key in ("params", "parameters")}
    return {"chosen": chosen, "sizes": student["sizes"]}


def _described(model: dict[str, Any]) -> dict[str, Any]:
    return {key: model[key] for key in DESCRIBED if key in model}


def declared(name: str, task: tasks.Task, seed: int, folder: Path, data: Path | None) -> dict[str, Any]:
    """Return the sweep file, which is JSON here: a stage, final runs of every kind, ensemble and students."""
    ((dataset, keys),) = task.dataset.items()
    path = {} if task.prepare is None else {"path": str(task.prepare(folder, data))}
    short, full = task.epochs
    networks = ", ".join(task.networks)
    return {
        "defaults": ["sweep", {"jobs": "classify"}, {"datasets": dataset}, {"slurm": "local"}, "_self_"],
        "name": name,
        "seed": seed,
        "metric": {"name": "val/accuracy", "mode": "max"},
        "space": {
            "model.name": f"choice({networks})",
            "model.width": f"choice({', '.join(map(str, task.widths))})",
            "model.dropout": "interval(0.0, 0.4)",
            "optimizer.lr": "tag(log, interval(1e-3, 2e-2))",
        },
        "datasets": {**keys, **path, "split": {"validation": 0.2, "test": 0.3, "seed": seed}},
        "jobs": {"config": {"batch_size": 64, "schedule": {"name": "cosine"}, **task.config}},
        "checks": {"enabled": False},
        "stages": {"coarse": {"trials": 12, "data": 0.5, "epochs": short}},
        "final": {"top": 4, "seeds": 3, "epochs": full, "checkpoints": 4, "of_each": "model.name"},
        "ensemble": {
            "combine": "auto",
            "student": {"enabled": True, "sizes": {"model.width": list(task.student)}, "epochs": full},
        },
    }


def machine() -> dict[str, Any]:
    """Return what the figures were made on."""
    import numpy
    import sklearn
    import torch

    versions = {"torch": torch.__version__, "numpy": numpy.__version__, "sklearn": sklearn.__version__}
    return {
        "python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count(),
        **versions,
    }  # fmt: skip


if __name__ == "__main__":
    main()
