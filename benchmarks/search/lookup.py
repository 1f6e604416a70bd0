"""The tables of trainings in tables/: every setting at every scale, so that nothing has to be trained."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from task import Result, Setting, Task

from orchestrator.space import CHOICE, Parameter, parse_space

FOLDER = Path(__file__).parent / "tables"
# What a training that diverged counts as.
WORST = 1.0


def names() -> list[str]:
    """Return the names of the tables that have been made."""
    return sorted(file.stem.removesuffix("-settings") for file in FOLDER.glob("*-settings.parquet"))


def load(name: str, half: str) -> Task:
    """Return a table as a task; fidelity: share of the data, all classes and all epochs.

    The known setting nearest to a proposed one stands for it. As the built-in job reports it, a training
    is worth its best epoch by validation. `test` is the mean over the seeds at full scale.
    """
    space, known, conditions, errors, tests = _read(FOLDER / f"{name}.parquet")
    cube = np.array([[_unit(parameter, setting[parameter.name]) for parameter in space] for setting in known])
    kinds = np.array([parameter.kind == CHOICE and not parameter.ordered for parameter in space])

    def nearest(setting: Setting) -> int:
        point = np.array([_unit(parameter, setting[parameter.name]) for parameter in space])
        apart = np.where(kinds, cube != point, cube - point)
        used = [_holds(conditions.get(parameter.name, ""), setting) for parameter in space]
        return int((apart[:, used] ** 2).sum(axis=1).argmin())

    def score(settings: Sequence[Setting], fidelities: Sequence[float], seed: int) -> list[Result]:
        results = []
        for setting, fidelity in zip(settings, fidelities, strict=True):
            row, runs = nearest(setting), errors[fidelity]
            results.append(Result(float(runs[row, seed % runs.shape[1]]), float(tests[row])))
        return results

    levels = tuple(sorted(errors))
    return Task(
        name=f"table/{name}", family="table", half=half, resumable=False, score=score, space=space,
        lowest=levels[0], levels=levels, pool=known,
    )  # fmt: skip


@lru_cache(maxsize=4)
def _read(file: Path) -> tuple[Any, ...]:
    """Return space, settings, conditions, validation errors (setting, seed) by fidelity, test errors."""
    table = pq.read_table(file)
    about = json.loads(table.schema.metadata[b"table"])
    settings = pq.read_table(file.with_name(f"{file.stem}-settings.parquet")).sort_by("setting")
    known = tuple(
        {name: value for name, value in row.items() if name != "setting"} for row in settings.to_pylist()
    )
    rows = table.to_pandas()
    rows = rows[rows.classes == rows.classes.max()].sort_values(["setting", "seed", "epoch"])
    errors, tests = {}, None
    for data, part in rows.groupby("data"):
        shape = (len(known), part.seed.nunique(), part.epoch.nunique())
        curves = part.val_error.to_numpy(dtype=float).reshape(shape)
        curves[np.isnan(curves[..., -1])] = WORST
        errors[float(data)] = curves.min(axis=2)
        if data == 1.0:
            best = curves.argmin(axis=2)[..., None]
            measured = part.test_error.to_numpy(dtype=float).reshape(shape)
            tests = np.nan_to_num(np.take_along_axis(measured, best, axis=2), nan=WORST).mean(axis=(1, 2))
    return parse_space(about["space"], {}, file), known, about.get("conditions", {}), errors, tests


def _unit(parameter: Parameter, value: Any) -> float:
    """Return a value's place in the unit cube; a choice without an order has the number of its place."""
    if parameter.kind != CHOICE:
        return parameter.to_unit(value)
    place = parameter.values.index(value)
    return place / max(len(parameter.values) - 1, 1) if parameter.ordered else float(place)


def _holds(condition: str, setting: Setting) -> bool:
    """Say whether a table's condition, `NAME == VALUE` or empty, holds for a setting."""
    name, _, value = condition.partition(" == ")
    return not condition or str(setting.get(name, math.nan)) == value
