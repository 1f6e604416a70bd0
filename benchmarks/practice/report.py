"""The page of the experiments: a verdict for each row of the practice, its figures and a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "practice"  # the same figures give the same file
matplotlib.rcParams["svg.fonttype"] = "none"

WORDS = {True: "holds", False: "does not hold", None: "undecided"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What an experiment says about its claim.

    Attributes:
        holds: None where the difference is within the noise.
        sentence: with the figures that decide.
        metric: the column of the rows that the plot shows.
    """

    holds: bool | None
    sentence: str
    metric: str


def paired(rows: Sequence[dict[str, Any]], metric: str, one: str, other: str) -> tuple[float, float]:
    """Return the mean difference of two variants' metric over seeds (one - other), and its standard error."""
    values = {
        name: {row["seed"]: row[metric] for row in rows if row["variant"] == name} for name in (one, other)
    }
    seeds = sorted(set(values[one]) & set(values[other]))
    gaps = np.array([values[one][seed] - values[other][seed] for seed in seeds])
    error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else float("nan")
    return float(gaps.mean()), error


def write(out: Path, experiments: Sequence[ModuleType]) -> None:
    """Write `results.md` and a figure for each experiment whose results are in `out/results`."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    lines = ["# Does the practice hold here?", ""]
    table = ["| rows | claim | here | figures |", "| --- | --- | --- | --- |"]
    sections: list[str] = []
    for experiment in experiments:
        name = experiment.__name__.rpartition(".")[2]
        stored = json.loads((out / "results" / f"{name}.json").read_text())
        rows, verdict = stored["rows"], experiment.verdict(stored["rows"])
        _draw(rows, verdict.metric, out / "figures" / f"{name}.svg")
        cells = ", ".join(experiment.ROWS), experiment.CLAIM, f"**{WORDS[verdict.holds]}**", verdict.sentence
        table.append(f"| {' | '.join(cells)} |")
        sections += ["", f"## {', '.join(experiment.ROWS)}: {name.replace('_', ' ')}", ""]
        sections += [(experiment.__doc__ or "").strip(), "", *_means(rows), ""]
        sections += [f"![{verdict.metric} of each variant](figures/{name}.svg)"]
        machine = stored["machine"]
    seeds = "Each dot is a seed; ± is the standard error over seeds."
    versions = f"Python {machine['python']}, torch {machine['torch']}, scikit-learn {machine['sklearn']}"
    where = f"{versions}, 2 cores, no GPU."
    (out / "results.md").write_text("\n".join([*lines, *table, "", f"{seeds} {where}", *sections]) + "\n")


def _means(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Return a table of each variant's mean and standard error in every column that is a number."""
    columns = [key for key, value in rows[0].items() if key != "seed" and isinstance(value, int | float)]
    lines = [f"| variant | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        cells = []
        for column in columns:
            values = np.array([row[column] for row in rows if row["variant"] == variant], dtype=float)
            error = values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.4g} ± {error:.2g}")
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return lines


def _draw(rows: Sequence[dict[str, Any]], metric: str, file: Path) -> None:
    """Draw each variant's values as dots and their mean as a line."""
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    figure, axes = plt.subplots(figsize=(6.5, 0.6 + 0.36 * len(variants)), layout="constrained")
    for place, variant in enumerate(variants):
        values = [row[metric] for row in rows if row["variant"] == variant]
        axes.plot(values, [place] * len(values), "o", color="#1f6f8b", alpha=0.5, markersize=5)
        axes.plot([np.mean(values)] * 2, [place - 0.3, place + 0.3], color="#d1495b", linewidth=2)
    axes.set_yticks(range(len(variants)), variants)
    axes.invert_yaxis()
    axes.set_xlabel(metric)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)
