"""Make a table of trainings: every setting of a space at every scale, with learning curves.

    python benchmarks/search/tables/make.py --data FOLDER mnist|cifar10|tabular --out FILE

The orchestrator's own job code trains a small network for each of 512 settings: once at each part of the
data and number of classes, three times at full scale. README.md beside this file says what the columns are.
Each setting's curves are kept beside FILE as they come, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import table_sources
import torch
from numpy.typing import NDArray

from orchestrator.data.dataset import Splits
from orchestrator.data.settings import DatasetSettings, SplitSettings
from orchestrator.data.sources import Source
from orchestrator.errors import UserError
from orchestrator.planning.sampling.samplers import Setting, sample
from orchestrator.space import parse_space
from orchestrator.sweep.files import replace_atomic
from orchestrator.training.batching import samples
from orchestrator.training.build import build_run, load_fold
from orchestrator.training.loop import fit
from orchestrator.training.metrics import measure
from orchestrator.training.passes import outputs_for
from orchestrator.training.settings import JobSettings, read_job
from orchestrator.training.training import Training

SOURCES: dict[str, Callable[[Path], Source]] = {
    "mnist": table_sources.mnist,
    "cifar10": table_sources.cifar10,
    "tabular": table_sources.tabular,
}
COLUMNS = ("val_error", "val_loss", "test_error")

_COMMON = {
    "optimizer.name": "choice(sgd, adam)",
    "optimizer.lr": "tag(log, interval(1e-4, 1.0))",
    "optimizer.weight_decay": "tag(log, interval(1e-6, 1e-1))",
    "optimizer.momentum": "interval(0.0, 0.99)",
    "batch_size": "choice(16, 32, 64, 128, 256)",
    "model.width": "choice(8, 16, 32, 64, 128)",
}
SPACES = {
    "mnist": {**_COMMON, "model.activation": "choice(relu, tanh)", "model.dropout": "interval(0.0, 0.7)"},
    "cifar10": {
        **_COMMON,
        "model.depth": "int(interval(1, 3))",
        "loss.label_smoothing": "interval(0.0, 0.4)",
    },
    "tabular": {**_COMMON, "model.depth": "int(interval(1, 4))", "model.dropout": "interval(0.0, 0.7)"},
}
# What a setting holds but the training doesn't use, unless the condition is true.
CONDITIONS = {"optimizer.momentum": "optimizer.name == sgd"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """How much of the problem a training sees, and from how many seeds it is repeated."""

    data: float
    """Fraction of the training part, the same of each class."""
    classes: int
    seeds: int = 1
    test: bool = False
    """Whether the test error is measured."""


FULL = Scale(data=1.0, classes=10, seeds=3, test=True)
SCALES = (
    *(Scale(data=3.0**-third, classes=classes) for third in (3, 2, 1) for classes in (2, 3, 5, 10)),
    FULL,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All that decides what a table holds, its data apart."""

    name: str
    space: Mapping[str, str]
    settings: int = 512
    scales: tuple[Scale, ...] = SCALES
    epochs: int = 9
    validation: float = 1000 / table_sources.SAMPLES
    test: float = 2000 / table_sources.SAMPLES
    seed: int = 0


class Curve:
    """Stands in for a trial of the training loop: takes down its reports, one row an epoch."""

    checkpoint_dir = Path("no-checkpoints")

    def __init__(self, epochs: int, test_error: Callable[[], float]) -> None:
        """Begin with NaN, which is what stays after a training has diverged."""
        self.rows = np.full((epochs, len(COLUMNS)), np.nan, dtype=np.float32)
        self._test_error = test_error

    def report(self, step: int, metrics: dict[str, float]) -> None:
        """Take down an epoch, counted from 1; an epoch with a loss that is not finite stays NaN."""
        if math.isfinite(metrics["train/loss"]) and math.isfinite(metrics["val/loss"]):
            self.rows[step - 1] = (1 - metrics["val/accuracy"], metrics["val/loss"], self._test_error())

    def keep(self, path: Path, step: int, best: bool = False) -> None:
        """Take no checkpoint: none is asked for."""


def make(recipe: Recipe, folder: Path, out: Path, workers: int = 1) -> None:
    """Train what is missing and write the table.

    Args:
        recipe: what to train.
        folder: where the public data lie.
        out: the table's file; its settings go to NAME-settings.parquet beside it.
        workers: processes that train, one core each.

    Raises:
        UserError: the data are missing or damaged.
    """
    settings = draw(recipe)
    shards = out.with_name(f".{out.stem}-{fingerprint(recipe, settings, SOURCES[recipe.name](folder))}")
    missing = [number for number in range(len(settings)) if not _shard(shards, number).exists()]
    done = len(settings) - len(missing)
    for _ in _measured(partial(_measure, recipe, folder, shards), missing, workers):
        done += 1
        if done % 16 == 0:
            print(f"{recipe.name}: {done} of {len(settings)} settings", file=sys.stderr, flush=True)
    write(recipe, settings, open_scales(recipe, SOURCES[recipe.name](folder)), shards, out)
    shutil.rmtree(shards)


def draw(recipe: Recipe) -> list[Setting]:
    """Return the settings: scrambled Sobol points in the recipe's space."""
    space = parse_space(recipe.space, {}, __file__)
    return sample(space, recipe.settings, "sobol", recipe.seed)


def fingerprint(recipe: Recipe, settings: list[Setting], source: Source) -> str:
    """Return what tells this table's parts from those of another recipe, other settings or other data."""
    digest = hashlib.blake2b(json.dumps([asdict(recipe), settings], sort_keys=True).encode(), digest_size=6)
    digest.update(source.labels.tobytes())
    digest.update(source.load(np.arange(len(source.labels))).tobytes())
    return digest.hexdigest()


def open_scales(recipe: Recipe, source: Source) -> list[Splits]:
    """Return the data as each scale sees it: nested parts of one training part, as in a sweep."""
    split = SplitSettings(validation=recipe.validation, test=recipe.test)
    return [
        Splits(
            source,
            DatasetSettings(fraction=scale.data, classes=scale.classes, split=split, transform="standardize"),
        )
        for scale in recipe.scales
    ]


def _measured(measure: Callable[[int], None], numbers: list[int], workers: int) -> Iterable[None]:
    """Call a function with each setting's number, in this process or in several."""
    if workers == 1:
        yield from map(measure, numbers)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=one_core) as pool:
        yield from pool.map(measure, numbers)


def one_core() -> None:
    """Set torch up for many small trainings, one a core."""
    torch.set_num_threads(1)
    # Weights that decay to almost nothing make a processor many times slower, and change no result.
    torch.set_flush_denormal(True)


_opened: dict[str, list[Splits]] = {}


def _measure(recipe: Recipe, folder: Path, shards: Path, number: int) -> None:
    """Train one setting at every scale and write its curves as one file."""
    key = repr((recipe, folder))
    if key not in _opened:
        _opened[key] = open_scales(recipe, SOURCES[recipe.name](folder))
    setting = draw(recipe)[number]
    start = time.process_time()
    curves = measure_setting(recipe, setting, number, _opened[key])
    seconds = time.process_time() - start

    def save(path: Path) -> None:
        with open(path, "wb") as handle:
            np.savez(handle, curves=curves, seconds=seconds)

    replace_atomic(_shard(shards, number), save)


def measure_setting(
    recipe: Recipe, setting: Setting, number: int, scales: list[Splits]
) -> NDArray[np.float32]:
    """Train one setting at every scale: (runs, epochs, columns); runs in the order of `runs`."""
    curves = []
    for place, (scale, _) in enumerate(runs(recipe)):
        # A seed of its own for each run: the same initial values at two scales would make them look more
        # alike than they are.
        job = job_settings(recipe, setting, seed=1000 * number + place)
        curves.append(train(job, scales[recipe.scales.index(scale)], scale.test))
    return np.stack(curves)


def runs(recipe: Recipe) -> list[tuple[Scale, int]]:
    """Return the trainings of one setting: scales and seeds."""
    return [(scale, seed) for scale in recipe.scales for seed in range(scale.seeds)]


def job_settings(recipe: Recipe, setting: Setting, seed: int) -> JobSettings:
    """Return a setting as the built-in job's config; what it doesn't name has the job's default."""
    config: dict[str, Any] = {"epochs": recipe.epochs, "seed": seed, "device": "cpu"}
    for path, value in setting.items():
        group, _, key = path.rpartition(".")
        (config.setdefault(group, {}) if group else config)[key] = value
    # No time is ever due to write a state for resuming: a training is shorter than that.
    return replace(read_job(config), save_seconds=math.inf)


def train(job: JobSettings, data: Splits, test: bool) -> NDArray[np.float32]:
    """Train once, as `orchestrator.training.supervised` does, and return the curve: (epochs, columns)."""
    device = torch.device("cpu")
    run = build_run(job, load_fold(data, 0, device), device)
    held_out = samples(data.part("test"), device) if test else None

    def test_error() -> float:
        if held_out is None:
            return math.nan
        return 1 - measure(outputs_for(run, held_out), held_out.targets)["val/accuracy"]

    curve = Curve(job.epochs, test_error)
    fit(Training(runs=[run], build=lambda _: run, settings=job, task=data.task, trial=curve, fingerprint=""))
    return curve.rows


def _shard(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.npz"


def write(recipe: Recipe, settings: list[Setting], scales: list[Splits], shards: Path, out: Path) -> None:
    """Put the settings' curves together: the table, and its settings beside it."""
    curves, seconds = [], 0.0
    for number in range(len(settings)):
        with np.load(_shard(shards, number)) as shard:
            curves.append(shard["curves"])
            seconds += float(shard["seconds"])
    about = json.dumps(describe(recipe, scales, seconds)).encode()
    for path, table in (
        (out, long_table(recipe, np.stack(curves))),
        (out.with_name(f"{out.stem}-settings.parquet"), settings_table(settings)),
    ):
        replace_atomic(
            path,
            lambda temporary, table=table: pq.write_table(
                table.replace_schema_metadata({"table": about}), temporary, compression="zstd"
            ),
        )


def long_table(recipe: Recipe, curves: NDArray[np.float32]) -> pa.Table:
    """Lay curves (settings, runs, epochs, columns) out with one row an epoch."""
    shape = curves.shape[:3]
    number, run, epoch = (axis.ravel() for axis in np.indices(shape))
    ran = runs(recipe)
    data, classes, seed, tested = (
        np.array(values)[run]
        for values in zip(*((s.data, s.classes, seed, s.test) for s, seed in ran), strict=True)
    )
    columns = {
        "setting": pa.array(number, pa.int32()),
        "data": pa.array(data, pa.float64()),
        "classes": pa.array(classes, pa.int32()),
        "seed": pa.array(seed, pa.int32()),
        "epoch": pa.array(epoch + 1, pa.int32()),
    }
    for place, name in enumerate(COLUMNS):
        values = curves[..., place].ravel()
        # NaN says diverged; null says that it wasn't measured.
        columns[name] = pa.array(values, pa.float32(), mask=~tested if name == "test_error" else None)
    return pa.table(columns)


def settings_table(settings: list[Setting]) -> pa.Table:
    """Return one row a setting: its number and its parameters."""
    parameters = {name: [setting[name] for setting in settings] for name in settings[0]}
    return pa.table({"setting": pa.array(range(len(settings)), pa.int32()), **parameters})


def describe(recipe: Recipe, scales: list[Splits], seconds: float) -> dict[str, Any]:
    """Return what a reader of the table needs besides its rows."""
    return {
        **asdict(recipe),
        "conditions": CONDITIONS,
        "scales": [
            {
                **asdict(scale),
                "train_samples": len(data.train.targets),
                "validation_samples": len(data.validation.targets),
                "test_samples": len(data.part("test").targets) if scale.test else 0,
            }
            for scale, data in zip(recipe.scales, scales, strict=True)
        ],
        "core_seconds": round(seconds, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scipy")},
        },
    }


def main() -> None:
    """Read the command line and make one table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the public data sets")
    parser.add_argument("--out", type=Path, required=True, help="the table's .parquet")
    parser.add_argument("--settings", type=int, default=512, help="how many, a power of two")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    given = parser.parse_args()
    recipe = Recipe(name=given.name, space=SPACES[given.name], settings=given.settings)
    one_core()
    try:
        make(recipe, given.data, given.out, given.workers)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
