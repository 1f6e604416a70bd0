"""Turn the results of run.py into tables and figures: regret, ranks, the cost of reaching random's result.

python benchmarks/search/summarise.py --results results/ --docs docs/
"""

from __future__ import annotations

import math
from fnmatch import fnmatch
from pathlib import Path

import click
import methods
import numpy as np
import pandas as pd
import shards

# The method and the budget whose result the others are to reach.
YARDSTICK, YARDSTICK_BUDGET = "random", 20.0
# Errors that differ by less than this share of the way from the best to the median are the same.
NO_SPREAD = 1e-9


def read(results: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return all rows and the references of the tasks."""
    files = sorted((results / "shards").glob("*/*.parquet"))
    rows = [pd.read_parquet(file) for file in files if file.parent.name != shards.REFERENCE]
    references = [pd.read_parquet(file) for file in files if file.parent.name == shards.REFERENCE]
    if not rows or not references:
        raise click.UsageError(f"no results in {results}: run benchmarks/search/run.py --out {results} first")
    return pd.concat(rows, ignore_index=True), pd.concat(references, ignore_index=True)


def with_regret(rows: pd.DataFrame, references: pd.DataFrame) -> pd.DataFrame:
    """Add `regret`: 0 at the best test error known of a task, 1 at the median of random settings.

    The best known is that of the reference settings or of any method's choice. A task on which the median
    setting is as good as the best tells methods apart by nothing and is left out. A method that had no
    setting trained within a budget counts as the median setting, where it would be without a search.
    """
    best = references.set_index("task").best
    best = pd.concat([best, rows.groupby("task").test.min()]).groupby(level=0).min()
    median = references.set_index("task")["median"]
    spread = (median - best)[lambda value: value > NO_SPREAD]
    kept = rows[rows.task.isin(spread.index)].copy()
    kept["regret"] = (kept.test - kept.task.map(best)) / kept.task.map(spread)
    kept["regret"] = kept.regret.fillna(1.0)
    return kept


def complete(rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Keep the tasks and budgets that every method ran, and say in a sentence which tasks are left out."""
    ran = rows.groupby(["task", "budget"]).method.nunique()
    everywhere = ran[ran == rows.method.nunique()].index
    kept = rows[pd.MultiIndex.from_frame(rows[["task", "budget"]]).isin(everywhere)]
    lost = sorted(set(rows.task) - set(kept.task))
    return kept, [f"{task} is left out: not every method ran on it" for task in lost]


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return each method's mean regret and average rank at each budget; tasks count alike.

    Ranks are over methods, on a task's mean over seeds; equal ones share the mean rank.
    """
    tasks = rows.groupby(["method", "budget", "task"], as_index=False).regret.mean()
    tasks["rank"] = tasks.groupby(["budget", "task"]).regret.rank()
    means = tasks.groupby(["method", "budget"], as_index=False).agg(
        regret=("regret", "mean"), error=("regret", "sem"), rank=("rank", "mean"), tasks=("task", "nunique")
    )
    return means.sort_values(["method", "budget"], ignore_index=True)


def cost_to_reach(means: pd.DataFrame, goal: float) -> dict[str, float]:
    """Return the budget at which each method's mean regret first is down to a goal; infinity: none measured.

    Between two budgets the regret is taken to fall on a straight line over the logarithm of the budget. One
    that is down at the smallest budget measured gets that budget: it may need less. NaN: there is no goal.
    """
    reached = {}
    for method, rows in means.sort_values("budget").groupby("method"):
        reached[str(method)] = _crossing(rows.budget.to_numpy(float), rows.regret.to_numpy(float), goal)
    return reached


def _crossing(budgets: np.ndarray, regrets: np.ndarray, goal: float) -> float:
    if math.isnan(goal):
        return math.nan
    below = np.flatnonzero(regrets <= goal)
    if not below.size:
        return math.inf
    first = int(below[0])
    if first == 0:
        return float(budgets[0])
    share = (regrets[first - 1] - goal) / (regrets[first - 1] - regrets[first])
    low, high = math.log(budgets[first - 1]), math.log(budgets[first])
    return math.exp(low + share * (high - low))


def table(rows: pd.DataFrame) -> str:
    """Return one group of tasks as a Markdown table, the best at the largest budget first."""
    means = curves(rows)
    budgets = sorted(means.budget.unique())
    regret = means.pivot(index="method", columns="budget", values="regret")
    rank = means.pivot(index="method", columns="budget", values="rank")
    seconds = rows.drop_duplicates(["task", "method", "seed"]).groupby("method").seconds.mean()
    goal = math.nan
    if YARDSTICK in regret.index and YARDSTICK_BUDGET in regret.columns:
        goal = float(regret.loc[YARDSTICK, YARDSTICK_BUDGET])
    reached = cost_to_reach(means, goal)
    header = ["method", *(f"regret at {budget:g}" for budget in budgets)]
    header += [*(f"rank at {budget:g}" for budget in budgets), "random's 20 at", "CPU seconds a run"]
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    for method in regret.sort_values(budgets[-1]).index:
        cells = [title(str(method)), *(f"{value:.3f}" for value in regret.loc[method])]
        cells += [f"{value:.2f}" for value in rank.loc[method]]
        cells += [_reached(reached[method], budgets), f"{seconds[method]:.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _reached(cost: float, budgets: list[float]) -> str:
    if math.isnan(cost):
        return ""
    if math.isinf(cost):
        return f"> {budgets[-1]:g}"
    return f"≤ {cost:g}" if cost <= budgets[0] else f"{cost:.1f}"


def title(method: str) -> str:
    """Return a method's name for a reader."""
    opponent = methods.OPPONENTS.get(method)
    return opponent.title if opponent else method


def groups(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the groups of tasks that are shown apart: all, the two halves, each family."""
    found = {"all tasks": rows} if rows.half.nunique() > 1 else {}
    found |= {f"{half} half": part for half, part in rows.groupby("half")}
    found |= {f"{family}": part for family, part in rows.groupby("family")}
    return found


def compared(results: Path, patterns: str = "*") -> tuple[pd.DataFrame, list[str]]:
    """Return the rows that are compared, and a sentence for each task that is left out.

    Args:
        results: what run.py was given as --out.
        patterns: which methods are compared, separated by commas; they all must have run on a task.
    """
    rows, references = read(results)
    kept = with_regret(rows, references)
    flat = sorted(set(rows.task) - set(kept.task))
    shown = [any(fnmatch(method, pattern) for pattern in patterns.split(",")) for method in kept.method]
    kept, left_out = complete(kept[shown])
    if kept.empty:
        raise click.UsageError("there is no task and budget that every method ran on")
    return kept, left_out + [
        f"{task} is left out: its median setting is as good as its best" for task in flat
    ]


def summarise(results: Path, docs: Path, patterns: str = "*", name: str = "search-benchmark") -> None:
    """Write docs/NAME.md and its figures; see `compared` for what of the results is in them."""
    rows, left_out = compared(results, patterns)
    docs.mkdir(parents=True, exist_ok=True)
    lines = ["# Search benchmark", "", "Written by `benchmarks/search/summarise.py`.", ""]
    lines += [*(f"- {sentence}" for sentence in left_out), ""] if left_out else []
    for group, part in groups(rows).items():
        figure = f"{name}-{group.replace(' ', '-')}"
        _plot(curves(part), group, docs / figure)
        seeds = part.groupby(["method", "task"]).seed.nunique()
        count = f"{seeds.min()}" if seeds.min() == seeds.max() else f"{seeds.min()} to {seeds.max()}"
        size = f"Tasks: {part.task.nunique()}; seeds: {count}."
        image = f"![Mean normalised regret over cost, {group}]({figure}.svg)"
        lines += [f"## {group.capitalize()}", "", size, "", table(part), "", image, ""]
    (docs / f"{name}.md").write_text("\n".join(lines))


def _plot(means: pd.DataFrame, name: str, file: Path) -> None:
    """Draw mean regret over the budget, both axes logarithmic, as SVG."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    colours = pyplot.get_cmap("tab20").colors
    for place, (method, part) in enumerate(means.groupby("method")):
        own = method not in methods.OPPONENTS
        axes.errorbar(
            part.budget, part.regret.clip(lower=1e-4), yerr=part.error, label=title(str(method)), marker="o",
            capsize=2, color=colours[place % len(colours)], linewidth=2.5 if own else 1.2,
            linestyle="-" if own else "--",
        )  # fmt: skip
    budgets = sorted(means.budget.unique())
    axes.set(xscale="log", yscale="log", title=name, xlabel="cost in full-scale trainings")
    axes.set_ylabel("mean normalised regret (0 best known, 1 median of random)")
    axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(f"{file}.svg", bbox_inches="tight")
    pyplot.close(figure)


@click.command()
@click.option("--results", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True)
@click.option("--docs", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--methods", "patterns", default="*", show_default=True, help="Patterns, as in sweep*,asha.")
@click.option("--name", default="search-benchmark", show_default=True, help="Of the page and its figures.")
def main(results: Path, docs: Path, patterns: str, name: str) -> None:
    """Write the tables and figures."""
    summarise(results, docs, patterns, name)


if __name__ == "__main__":
    main()
