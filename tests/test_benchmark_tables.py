"""The script that makes the benchmark's tables, on a very small one."""

from __future__ import annotations

import importlib
import json
import math
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks" / "search" / "tables"


@pytest.fixture
def tables(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("make")


@pytest.fixture
def recipe(tables: ModuleType) -> Any:
    low = tables.Scale(data=1 / 27, classes=3)
    full = tables.Scale(data=1 / 9, classes=10, seeds=2, test=True)
    return tables.Recipe(
        name="tabular", space=tables.SPACES["tabular"], settings=2, scales=(low, full), epochs=2
    )


def test_every_setting_ran_at_every_scale_with_its_whole_curve(
    tables: ModuleType, recipe: Any, tmp_path: Path
) -> None:
    tables.make(recipe, tmp_path, tmp_path / "t.parquet")

    table = pq.read_table(tmp_path / "t.parquet")
    names = ["setting", "data", "classes", "seed", "epoch", "val_error", "val_loss", "test_error"]
    assert table.column_names == names
    rows = table.to_pylist()
    keys = [tuple(row[name] for name in names[:5]) for row in rows]
    runs = [(1 / 27, 3, 0), (1 / 9, 10, 0), (1 / 9, 10, 1)]
    assert keys == [(number, *run, epoch) for number in (0, 1) for run in runs for epoch in (1, 2)]
    for row in rows:
        assert 0 <= row["val_error"] <= 1
        assert (row["test_error"] is None) == (row["classes"] == 3)
    about = json.loads(table.schema.metadata[b"table"])
    assert [scale["train_samples"] for scale in about["scales"]] == [36, 362]
    assert about["epochs"] == 2 and about["space"] == tables.SPACES["tabular"]
    settings = pq.read_table(tmp_path / "t-settings.parquet").to_pylist()
    assert settings == [{"setting": n, **setting} for n, setting in enumerate(tables.draw(recipe))]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t-settings.parquet", "t.parquet"]


def test_a_run_that_was_stopped_goes_on_where_it_was(
    tables: ModuleType, recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables.make(recipe, tmp_path, tmp_path / "whole.parquet")
    trained: list[int] = []
    measure = tables.measure_setting

    def stopped(recipe: Any, setting: Any, number: int, scales: Any) -> Any:
        if number == 1 and trained == [0]:
            raise KeyboardInterrupt
        trained.append(number)
        return measure(recipe, setting, number, scales)

    monkeypatch.setattr(tables, "measure_setting", stopped)
    with pytest.raises(KeyboardInterrupt):
        tables.make(recipe, tmp_path, tmp_path / "t.parquet")
    trained.append(-1)
    tables.make(recipe, tmp_path, tmp_path / "t.parquet")

    assert trained == [0, -1, 1]
    assert pq.read_table(tmp_path / "t.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))


def test_smaller_scales_are_contained_in_larger_ones(tables: ModuleType) -> None:
    recipe = tables.Recipe(name="tabular", space=tables.SPACES["tabular"])
    opened = tables.open_scales(recipe, tables.SOURCES["tabular"](Path()))
    parts = {(scale.data, scale.classes): data for scale, data in zip(recipe.scales, opened, strict=True)}

    assert len({data for data, _ in parts}) >= 4 and len({classes for _, classes in parts}) >= 4
    for (data, classes), part in parts.items():
        for (more_data, more_classes), larger in parts.items():
            if data <= more_data and classes <= more_classes:
                assert set(part.train.ids) <= set(larger.train.ids)
                assert set(part.validation.ids) <= set(larger.validation.ids)
        assert part.num_classes == classes
        assert not set(part.train.ids) & set(part.validation.ids)
    assert len(parts[1.0, 10].train.ids) == 3240


def test_a_training_that_diverged_is_nan_to_its_end(tables: ModuleType, recipe: Any) -> None:
    curve = tables.Curve(3, lambda: 0.5)
    curve.report(1, {"train/loss": 2.0, "val/loss": 2.0, "val/accuracy": 0.25})
    curve.report(2, {"train/loss": 9.0, "val/loss": math.inf, "val/accuracy": 0.1})
    expected = [[0.75, 2, 0.5], [math.nan] * 3, [math.nan] * 3]
    assert np.array_equal(curve.rows, expected, equal_nan=True)

    setting = tables.draw(recipe)[0] | {"optimizer.name": "sgd", "optimizer.lr": 1e30}
    job = tables.job_settings(replace(recipe, epochs=3), setting, seed=0)
    rows = tables.train(job, tables.open_scales(recipe, tables.SOURCES["tabular"](Path()))[0], test=False)
    assert np.isnan(rows[-1]).all()


def test_parameters_reach_the_training(tables: ModuleType, recipe: Any) -> None:
    for number, setting in enumerate(tables.draw(replace(recipe, settings=8))):
        job = tables.job_settings(recipe, setting, seed=number)
        found = (job.optimizer.lr, job.batch_size, job.model.depth, job.seed, job.epochs)
        expected = (setting["optimizer.lr"], setting["batch_size"], setting["model.depth"], number, 2)
        assert found == expected
