"""How far rankings at a low fidelity carry over to full scale, and what a search that costs 2 could gain.

python benchmarks/search/carrying.py --data FOLDER

For each family: the rank correlation (Spearman) between random settings' validation error at a fidelity and
their test error at full scale; and the regret after spending one full-scale training on random settings at
that fidelity and a second one on training the best of them in full. Exact expectations over the draw of the
settings, with nothing learned from one setting for another. Beside it, what costs more: four and twenty
random trainings in full, and as many settings as one training pays for at the lowest fidelity, ranked as
they rank at full scale.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import pandas as pd
import tasks
from numpy.typing import NDArray
from run import be_quiet, reference_settings
from scipy.special import gammaln
from scipy.stats import spearmanr

FIDELITIES = (1 / 27, 1 / 9, 1 / 3)
FAMILIES = ("rpart", "lcbench", "taskset", "table")
Floats = NDArray[np.float64]


def best_of(count: int, ranked_by: Floats, worth: Floats) -> float:
    """Return what the best of `count` settings is worth on average.

    Args:
        count: settings drawn without replacement.
        ranked_by: what the best is chosen by, (n,), lower is better.
        worth: of each setting, (n,).
    """
    last = len(worth) - 1 - np.arange(len(worth))
    # Of the draws, the share whose best is the one in each place: choose(last, count - 1) / choose(n, count).
    with np.errstate(invalid="ignore"):
        logs = _choose(last, count - 1) - _choose(np.array(len(worth)), count)
    share = np.where(last >= count - 1, np.exp(logs), 0.0)
    return float(share @ worth[np.argsort(ranked_by, kind="stable")])


def _choose(n: NDArray[np.int64], k: int) -> Floats:
    return np.asarray(gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(np.maximum(n - k, 0) + 1.0))


def look(task: tasks.Task) -> dict[str, float]:
    """Return one task's row: correlations and regrets by the headers of the table."""
    settings = reference_settings(task)
    full = np.array([result.test for result in task.evaluate_many(settings)])
    regret = (full - full.min()) / (np.median(full) - full.min())
    row: dict[str, float] = {}
    for fidelity in FIDELITIES:
        seen = np.array([result.validation for result in task.evaluate_many(settings, fidelity)])
        count = round(1 / fidelity)
        row[f"correlation at 1/{count}"] = float(spearmanr(seen, full).statistic)
        row[f"{count} at 1/{count}, best in full"] = best_of(count, seen, regret)
    row["4 in full"] = best_of(4, full, regret)
    row["20 in full"] = best_of(20, full, regret)
    row[f"{round(1 / FIDELITIES[0])} ranked without error"] = best_of(round(1 / FIDELITIES[0]), full, regret)
    return row


@click.command()
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="Folder of yahpo/, taskset/.")
@click.option("--half", type=click.Choice(["tuning", "held-out"]), help="Only this half of the tasks.")
def main(data: Path | None, half: str | None) -> None:
    """Print a table with a row for each family of tasks."""
    be_quiet()
    names, missing = tasks.available(data)
    for sentence in missing:
        click.echo(sentence, err=True)
    chosen = [n for n in names if n.split("/")[0] in FAMILIES and half in (None, tasks.half_of(n))]
    rows = [{"family": n.split("/")[0], "tasks": 1, **look(tasks.load(n, data))} for n in chosen]
    table = pd.DataFrame(rows).groupby("family", sort=False)
    means = table.mean().assign(tasks=table.size()).reset_index()
    # The correlations first.
    columns = ["family", "tasks", *(c for c in means if str(c).startswith("correlation"))]
    means = means[[*columns, *(c for c in means if c not in columns)]]
    cells = [
        [f"{v:.2f}" if isinstance(v, float) else str(v) for v in row] for row in means.to_numpy().tolist()
    ]
    lines = [list(map(str, means.columns)), ["---"] * len(means.columns), *cells]
    click.echo("\n".join("| " + " | ".join(line) + " |" for line in lines))


if __name__ == "__main__":
    main()
