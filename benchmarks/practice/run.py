"""Does the practice hold here? Run each experiment from several seeds, and write down what it gave.

python benchmarks/practice/run.py --out benchmarks/practice --data FOLDER
python benchmarks/practice/run.py --out /tmp/practice --only 'class_weights,schedules' --seeds 5
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import click

sys.path.insert(0, str(Path(__file__).parent))

import report


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for results and figures.")
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), help="Folder with mnist.npz and others."
)
@click.option("--seeds", default=5, show_default=True, help="Runs of each experiment.")
@click.option("--only", default="*", show_default=True, help="Names of experiments, with * and commas.")
def main(out: Path, data: Path | None, seeds: int, only: str) -> None:
    """Run the experiments that are missing in OUT/results, and write the page again."""
    results = out / "results"
    results.mkdir(parents=True, exist_ok=True)
    for experiment in experiments(only):
        file = results / f"{_name(experiment)}.json"
        rows = json.loads(file.read_text())["rows"] if file.exists() else []
        for seed in range(seeds):
            if any(row["seed"] == seed for row in rows):
                continue
            began = time.process_time()
            found = experiment.run(seed, data)
            rows += [{"seed": seed, **row} for row in found]
            click.echo(f"{_name(experiment)}: seed {seed}, {time.process_time() - began:.0f} CPU s")
            file.write_text(_as_text(rows))
    report.write(out, [module for module in experiments("*") if (results / f"{_name(module)}.json").exists()])


def experiments(only: str) -> list[ModuleType]:
    """Import the experiments whose names match, in the order of the techniques' rows."""
    folder = Path(__file__).parent / "experiments"
    names = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    chosen = [name for name in names if any(fnmatch(name, pattern.strip()) for pattern in only.split(","))]
    if not chosen:
        raise click.UsageError(f"no experiment is called {only}; there are {', '.join(names)}")
    modules = [importlib.import_module(f"experiments.{name}") for name in chosen]
    return sorted(modules, key=lambda module: [(row[0], int(row[1:])) for row in module.ROWS])


def _as_text(rows: list[dict[str, Any]]) -> str:
    """Return the content of a results file, one row a line."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    return f'{{"machine": {json.dumps(_machine())}, "rows": [\n{lines}\n]}}\n'


def _name(experiment: ModuleType) -> str:
    return experiment.__name__.rpartition(".")[2]


def _machine() -> dict[str, Any]:
    import numpy
    import sklearn
    import torch

    versions = {"torch": torch.__version__, "numpy": numpy.__version__, "sklearn": sklearn.__version__}
    return {
        "python": platform.python_version(),
        "processor": platform.processor() or platform.machine(),
        **versions,
    }


if __name__ == "__main__":
    main()
