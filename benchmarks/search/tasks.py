"""Which tasks the search benchmark has, which half each is in, and loading them by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import live
import lookup
import taskset
import yahpo
from task import Result, Setting, Task

from orchestrator.space import CHOICE

__all__ = ["HALVES", "Result", "Setting", "Task", "available", "half_of", "load"]

TUNING, HELD_OUT = "tuning", "held-out"
# Every fifth of the 117 and every third of the 34 data sets in the order of their names, as text, so that
# nobody's results decided which are here; and all six TaskSet tasks of the DyHPO repository.
CHOSEN = {
    "rpart": (
        "1040", "1063", "12", "1462", "1478", "1487", "15", "1590", "188", "23517", "300", "334",
        "40496", "40670", "40927", "40981", "40996", "41146", "41161", "41166", "4135", "4538", "470", "60",
    ),
    "lcbench": (
        "126025", "146212", "167152", "167181", "167190", "168329", "168335", "168910", "189865", "189905",
        "189909", "7593",
    ),
    "taskset": (
        "imdb_patch128_LSTM128_avg_bs64", "imdb_patch128_LSTM128_embed128_bs64",
        "imdb_patch32_GRU64_avg_bs128", "imdb_patch32_IRNN64_relu_last_bs128",
        "imdb_patch32_LSTM128_bs128", "imdb_patch32_VRNN64_relu_avg_bs128",
    ),
    "live": ("breast_cancer", "digits"),
}  # fmt: skip
# Methods may be tuned on the tuning half and on nothing else: every second name in sorted order is held out.
HALVES = {
    f"{family}/{name}": (TUNING, HELD_OUT)[index % 2]
    for family, names in CHOSEN.items()
    for index, name in enumerate(sorted(names))
}
TABLE_HALVES = {"tabular": TUNING}  # the other tables are held out
FOLDERS = {"rpart": "yahpo/rbv2_rpart", "lcbench": "yahpo/lcbench", "taskset": "taskset"}
SOURCES = {
    "rpart": "rbv2_rpart/ of github.com/slds-lmu/yahpo_data",
    "lcbench": "lcbench/ of github.com/slds-lmu/yahpo_data",
    "taskset": "the TaskSet files of github.com/releaunifreiburg/DyHPO",
}


def half_of(name: str) -> str:
    """Return the half that a task is in."""
    family, dataset = name.split("/", 1)
    return TABLE_HALVES.get(dataset, HELD_OUT) if family == "table" else HALVES[name]


def available(data: Path | None) -> tuple[list[str], list[str]]:
    """Return the names of the tasks whose data are there, and a sentence for each family whose are not.

    Args:
        data: the folder of the downloaded data; None: there is none.
    """
    names, missing = [], []
    for family, folder in FOLDERS.items():
        if data is not None and (data / folder).is_dir():
            names += [name for name in HALVES if name.startswith(f"{family}/")]
        else:
            missing.append(
                f"{family} is left out: put {SOURCES[family]} at FOLDER/{folder} and give --data FOLDER"
            )
    names += [f"table/{name}" for name in lookup.names()]
    return names + [name for name in HALVES if name.startswith("live/")], missing


def load(name: str, data: Path | None) -> Task:
    """Return the task with a name of `available`.

    No method may leave the ranges: what a surrogate says beyond them, where nobody measured, means nothing.
    """
    task = _load(name, data)
    walled = (p if p.kind == CHOICE else replace(p, limits=(p.low, p.high)) for p in task.space)
    return replace(task, space=tuple(walled))


def _load(name: str, data: Path | None) -> Task:
    family, dataset = name.split("/", 1)
    if family == "table":
        return lookup.load(dataset, half_of(name))
    if family == "live":
        return live.load(dataset, half_of(name))
    if data is None:
        raise ValueError(f"{name} needs --data FOLDER")
    loader = {"lcbench": yahpo.lcbench, "rpart": yahpo.rpart, "taskset": taskset.load}[family]
    return loader(data / FOLDERS[family], dataset, half_of(name))
