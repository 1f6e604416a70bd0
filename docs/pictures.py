"""Draw the pictures of docs/narrowing.md from a finished run of examples/digits.yaml.

orchestrate run examples/digits.yaml && python docs/pictures.py sweeps/digits
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd

import orchestrator
from orchestrator import Results

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

HERE = Path(__file__).parent
# Readable on white and on black alike: the page's ground shows through.
INK, GOOD, RANGE, SECOND = "#808590", "#e8710a", "#3f7fd61f", "#3f7fd6"
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pictures",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
GOOD_SHARE = 0.25
SHOWN = ("optimizer.lr", "optimizer.weight_decay", "model.dropout")


def ranges(results: Results) -> Figure:
    """Draw where each stage searched three parameters, with its trials and the best quarter of them."""
    stages = [name for name in results.stages if name != "final"]
    figure, axes = plt.subplots(1, len(SHOWN), figsize=(9, 2.9), sharey=True, layout="constrained")
    for axis, name in zip(axes, SHOWN, strict=True):
        for row, stage in enumerate(reversed(stages)):
            trials, spec = results.at(stage), results.spaces[stage][name]
            axis.barh(row, spec["high"] - spec["low"], left=spec["low"], height=0.72, color=RANGE)
            height = row + np.random.default_rng(row).uniform(-0.28, 0.28, len(trials))
            good = is_good(trials, results.mode)
            values = trials[f"param.{name}"].to_numpy()
            axis.scatter(values[~good], height[~good], s=9, color=INK, alpha=0.45, linewidth=0)
            axis.scatter(values[good], height[good], s=15, color=GOOD, linewidth=0)
        searched = [results.spaces[stage][name] for stage in stages]
        low, high = min(spec["low"] for spec in searched), max(spec["high"] for spec in searched)
        axis.set_xlim(low, high)
        if searched[0]["log"]:
            axis.set_xscale("log")
            axis.set_xlim(low / 1.5, high * 1.5)
        axis.set_title(name, fontsize=10, color=INK)
        axis.set_yticks(
            range(len(stages)), [f"{stage}\n{scale(results, stage)}" for stage in reversed(stages)]
        )
        axis.tick_params(axis="y", length=0)
    return figure


def evidence(results: Results) -> Figure:
    """Draw what the first stage knew of two parameters, and what of their ranges the second one kept."""
    first, second = results.stages[:2]
    trials = results.at(first)
    good = is_good(trials, results.mode)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
    for axis, name in zip(axes, ("optimizer.lr", "model.dropout"), strict=True):
        values, kept = trials[f"param.{name}"].to_numpy(), results.spaces[second][name]
        axis.axvspan(kept["low"], kept["high"], color=RANGE, linewidth=0)
        objective = trials["objective"].to_numpy()
        axis.scatter(values[~good], objective[~good], s=12, color=INK, alpha=0.55, linewidth=0)
        axis.scatter(values[good], objective[good], s=18, color=GOOD, linewidth=0)
        if kept["log"]:
            axis.set_xscale("log")
        axis.set_xlabel(name)
    axes[0].set_ylabel(f"{results.metric} at {first}")
    return figure


def carrying_over(results: Results) -> Figure:
    """Draw the ranks, at either scale, of the settings that ran at both of two stages."""
    first, second = results.stages[:2]
    before, after = (results.at(stage).set_index("setting_id") for stage in (first, second))
    shared = [setting for setting in after.index if setting in before.index]
    descending = results.mode == "max"
    left = before.loc[shared, "objective"].rank(ascending=not descending)
    right = after.loc[shared, "objective"].rank(ascending=not descending)
    figure, axis = plt.subplots(figsize=(5.6, 3.2), layout="constrained")
    for setting in shared:
        control = after.loc[setting, "origin"] == "control"
        colour = SECOND if control else GOOD
        axis.plot(
            [0, 1],
            [left[setting], right[setting]],
            color=colour,
            marker="o",
            ms=5,
            ls="--" if control else "-",
        )
    axis.set_xticks([0, 1], [f"{stage}\n{scale(results, stage)}" for stage in (first, second)])
    axis.set_ylim(len(shared) + 0.5, 0.5)
    axis.set_xlim(-0.15, 1.45)
    axis.set_ylabel("rank among them")
    axis.plot([], [], color=GOOD, marker="o", ms=5, label="survivors")
    axis.plot([], [], color=SECOND, marker="o", ms=5, ls="--", label="controls")
    axis.legend(frameon=False, loc="center right", labelcolor=INK)
    return figure


def is_good(trials: pd.DataFrame, mode: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Say which trials of a stage are among its best quarter."""
    ranks = trials["objective"].rank(ascending=mode == "min", method="first")
    return (ranks <= max(1, round(GOOD_SHARE * len(trials)))).to_numpy()


def scale(results: Results, stage: str) -> str:
    """Say what of the problem a stage sees."""
    trial = results.at(stage).iloc[0]
    classes = trial["scale.classes"]
    return f"{int(trial['scale.samples']):,} samples" + (
        "" if pd.isna(classes) else f", {int(classes)} classes"
    )


def save(figure: Figure, name: str) -> None:
    """Write a small file that is the same each time, with a transparent ground."""
    path = HERE / f"{name}.svg"
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    text = re.sub(r"(\d+\.\d\d)\d+", r"\1", path.read_text())
    path.write_text("\n".join(line.rstrip() for line in text.splitlines()) + "\n")
    plt.close(figure)


def main(directory: str) -> None:
    """Draw all three."""
    results = orchestrator.load_results(directory)
    with plt.rc_context(STYLE):
        save(ranges(results), "narrowing-ranges")
        save(evidence(results), "narrowing-evidence")
        save(carrying_over(results), "narrowing-carries-over")


if __name__ == "__main__":
    main(sys.argv[1])
