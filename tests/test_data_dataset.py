"""Sources, transforms, sizes, and a dataset as a stage sees it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from orchestrator.data.dataset import open_dataset
from orchestrator.data.settings import DatasetSettings, read_settings
from orchestrator.data.size import DatasetSize, dataset_size, trained_samples
from orchestrator.data.transforms import Transform
from orchestrator.errors import UserError

CATALOGUE = Path(__file__).parent.parent / "datasets"


def catalogue(name: str, **changes: Any) -> dict[str, Any]:
    """Return a built-in dataset's config with some keys changed."""
    loaded = OmegaConf.to_container(OmegaConf.load(CATALOGUE / f"{name}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items()} | changes


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write a table of 90 rows, two number columns, a text column and a label of three classes."""
    rows = np.arange(90)
    path = tmp_path / "table.parquet"
    columns = {
        "height": rows / 10,
        "weight": rows % 7,
        "note": [f"row {row}" for row in rows],
        "species": [("ant", "bee", "cat")[row % 3] for row in rows],
    }
    pq.write_table(pa.table(columns), path)
    return path


def parquet(path: Path, **changes: Any) -> dict[str, Any]:
    return catalogue("parquet", path=str(path), label="species", features=["height", "weight"]) | changes


@pytest.mark.parametrize("name", ["digits", "glyphs", "breast_cancer", "chains"])
def test_the_catalogue_opens_and_is_as_large_as_planned(name: str) -> None:
    config = catalogue(name, fraction=0.05, classes=2, validation_size=40)
    data, size = open_dataset(config), dataset_size(config)
    assert data.num_classes == len(data.class_names) == 2
    assert data.train.inputs.shape == (len(data.train.targets), *data.shape)
    assert data.train.inputs.dtype == (np.float32 if data.vocabulary is None else np.int64)
    assert set(data.train.targets) == {0, 1}
    # Declared sizes don't tell the classes' sizes; those of the bundled sets are equal to within a third.
    planned = trained_samples(size, 0.05, 2, config["split"])
    assert planned == pytest.approx(len(data.train.targets), rel=0.35, abs=2)


@pytest.mark.parametrize("name", ["wine", "iris", "diabetes"])
def test_the_small_tables_of_the_catalogue_are_trained_in_folds(name: str) -> None:
    config = catalogue(name)
    data, size = open_dataset(config), dataset_size(config)
    assert data.folds == size.folds == 5
    trained = sum(len(data.fold(number).train.ids) for number in range(5))
    # Declared sizes don't tell the classes' sizes, which round each on their own.
    assert trained_samples(size, 1.0, None, config["split"]) == pytest.approx(trained, abs=5)


def test_parts_are_disjoint_and_the_test_part_is_the_same_at_every_scale() -> None:
    small = open_dataset(catalogue("digits", fraction=0.1, classes=5))
    large = open_dataset(catalogue("digits"))
    assert set(small.train.ids) <= set(large.train.ids)
    assert set(small.part("test").ids) <= set(large.part("test").ids)
    parts = [set(large.part(name).ids) for name in ("train", "validation", "test")]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1797


def test_raw_samples_are_those_before_the_transform() -> None:
    data = open_dataset(catalogue("digits"))
    plain = open_dataset(catalogue("digits", transform="none"))
    assert np.array_equal(data.raw("validation").inputs, plain.validation.inputs)
    some = data.raw("train", at_most=100)
    assert len(some.ids) == len(some.targets) == pytest.approx(100, abs=5)
    assert set(some.ids) < set(data.train.ids)
    with pytest.raises(UserError, match="Did you mean 'test'"):
        data.raw("tests")


def test_classes_are_numbered_anew() -> None:
    data = open_dataset(catalogue("digits", classes=[3, 8]))
    assert data.class_names == ("3", "8")
    original = open_dataset(catalogue("digits"))
    labels = dict(zip(original.train.ids.tolist(), original.train.targets.tolist(), strict=True))
    for each, label in zip(data.train.ids.tolist(), data.train.targets.tolist(), strict=True):
        assert labels[each] == (3, 8)[label]


def test_the_test_part_is_loaded_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.data import sources

    asked: list[int] = []
    original = sources.digits()

    def load(indices: Any) -> Any:
        asked.extend(indices.tolist())
        return original.load(indices)

    watched = sources.Source(
        labels=original.labels, class_names=original.class_names, shape=original.shape, load=load
    )
    monkeypatch.setattr(sources, "digits", lambda: watched)
    data = open_dataset(catalogue("digits", fraction=0.1))
    assert asked == []
    assert len(data.train.targets) + len(data.validation.targets) == len(asked)
    tested = data.part("test")
    assert set(asked[-len(tested.ids) :]) == set(tested.ids.tolist())


@pytest.mark.parametrize("name", ["none", "unit", "symmetric", "standardize"])
@pytest.mark.parametrize("shape", [(4,), (2, 3, 5)])
def test_transforms_are_fitted_on_training_data_alone(name: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    training = rng.normal(3, 2, (50, *shape)).astype(np.float32)
    other = training[:7] * 10
    transform = Transform(name).fit(training)
    result, moved = transform(training), transform(other)
    assert result.shape == training.shape
    assert moved.dtype == result.dtype == np.float32
    axes = tuple(axis for axis in range(training.ndim) if axis != 1)
    if name == "none":
        assert np.array_equal(result, training)
    elif name == "standardize":
        assert result.mean(axis=axes) == pytest.approx(0, abs=1e-5)
        assert result.std(axis=axes) == pytest.approx(1, abs=1e-5)
        assert (moved - result[:7]).std() > 1
    else:
        assert result.min(axis=axes) == pytest.approx({"unit": 0, "symmetric": -1}[name], abs=1e-5)
        assert result.max(axis=axes) == pytest.approx(1, abs=1e-5)
        assert moved.max() > 1


def test_images_keep_their_layout() -> None:
    images = np.random.default_rng(0).random((6, 3, 4, 5)).astype(np.float32)
    flipped = Transform("standardize").fit(images)(images[:, :, ::-1])
    assert np.allclose(flipped[:, :, ::-1], Transform("standardize").fit(images)(images))


def test_a_table_of_ones_own(table: Path) -> None:
    data = open_dataset(parquet(table, transform="none"))
    assert data.class_names == ("ant", "bee", "cat")
    assert data.shape == (2,)
    for row, label, each in zip(data.train.inputs, data.train.targets, data.train.ids, strict=True):
        assert row == pytest.approx([each / 10, each % 7])
        assert label == each % 3
    size = dataset_size(parquet(table))
    assert (size.samples, size.classes, size.counts) == (90, 3, (30, 30, 30))
    assert trained_samples(size, 1.0, ["ant", "cat"]) == 36


def test_a_folder_of_tables(table: Path) -> None:
    folder = table.parent / "folder"
    folder.mkdir()
    whole = pq.read_table(table)
    pq.write_table(whole.slice(0, 40), folder / "a.parquet")
    pq.write_table(whole.slice(40), folder / "b.parquet")
    one, many = (open_dataset(parquet(path)) for path in (table, folder))
    assert np.array_equal(one.train.inputs, many.train.inputs)
    assert np.array_equal(one.train.targets, many.train.targets)
    pq.write_table(whole.drop_columns(["weight"]), folder / "c.parquet")
    with pytest.raises(UserError, match=r"c\.parquet: has no column 'weight'"):
        assert open_dataset(parquet(folder)).train


def with_column(path: Path, name: str, values: list[Any]) -> Path:
    table = pq.read_table(path)
    columns = {each: table.column(each) for each in table.column_names} | {name: pa.array(values)}
    pq.write_table(pa.table(columns), path)
    return path


def test_bad_tables_are_refused_readably(table: Path, tmp_path: Path) -> None:
    def refused(config: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            assert open_dataset(config).train

    refused(parquet(table, label="speces"), "no column 'speces'. Did you mean 'species'")
    refused(parquet(table, features=["heigth"]), "no column 'heigth'. Did you mean 'height'")
    refused(parquet(table, features=None), "column 'note' holds string, not numbers")
    refused(parquet(table, features=["species"]), "listed as a feature too")
    refused(
        parquet(table, label="height", features=["weight"]), "holds measurements such as 0.1, not classes"
    )
    refused(parquet(tmp_path / "tabel.parquet"), "no such file. Did you mean 'table.parquet'")
    refused(catalogue("parquet", path=str(table), label="???"), "datasets.label: has no value")
    refused(parquet(with_column(table, "weight", [None, *range(89)])), "'weight' is empty or not finite in 1")
    refused(parquet(with_column(table, "weight", [float("inf")] * 90)), "'weight' is empty or not finite")
    refused(parquet(with_column(table, "species", ["ant"] * 90)), "'species' has 1 class")
    refused(parquet(with_column(table, "species", [None, *(["ant", "bee"] * 45)][:90])), "empty in 1 of 90")
    table.write_bytes(table.read_bytes()[:200])
    refused(parquet(table), "not readable as Parquet")


def test_arrays(tmp_path: Path) -> None:
    path = tmp_path / "arrays.npz"
    np.savez(path, x=np.arange(80.0).reshape(40, 2), y=np.array(["no", "yes"] * 20))
    config = {"_target_": "orchestrator.data.sources.npz", "path": str(path)}
    assert open_dataset(config).class_names == ("no", "yes")
    for changed, message in [
        ({"labels": "z"}, "no array 'z'"),
        ({"inputs": "y"}, "not numbers"),
        ({"labels": "x"}, "do not fit"),
    ]:
        with pytest.raises(UserError, match=message):
            open_dataset(config | changed)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not readable"):
        open_dataset(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": 1800}, "1800 are declared, and the data have 1797"),
        ({"num_classes": 9}, "9 are declared, and the data have 10"),
        ({"fractoin": 0.1}, "datasets.fractoin: no such key. Did you mean 'fraction'"),
        ({"split": {"validate": 0.1}}, "datasets.split.validate: no such key. Did you mean 'validation'"),
        ({"transform": "standardise"}, "Did you mean 'standardize'"),
        ({"_target_": "orchestrator.data.sources.digit"}, "Did you mean 'digits'"),
        ({"_target_": "orchestrator.no_such.thing"}, "does not import"),
        ({"_target_": "digits"}, "no dotted path"),
        ({"_target_": "builtins.dict"}, "does not say what arguments"),
        ({"_target_": "tests_of_data.wrong"}, "returned int, not a Source"),
        ({"subset_seed": "x"}, "datasets.subset_seed: 'x' is no whole number"),
        ({"fraction": "all"}, "datasets.fraction: 'all' is no number"),
        ({"classes": "many"}, "'many' is no whole number or list or null"),
        ({"split": 0.2}, "0.2 should be a mapping"),
        ({"split": {"test": "x"}}, "datasets.split.test: 'x' is no number"),
        ({"fraction": 5000}, "5000 samples are asked for"),
        ({"classes": 12}, "12 classes are asked for, and there are 10"),
    ],
)
def test_bad_configs_are_refused(
    changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tests_of_data.py").write_text("def wrong(): return 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=message):
        open_dataset(catalogue("digits", **changes))


def test_empty_parts_are_refused_when_asked_for() -> None:
    data = open_dataset(catalogue("digits", split={"validation": 0.2, "test": 0.0}))
    assert len(data.train.ids) + len(data.validation.ids) == 1797
    with pytest.raises(UserError, match="the test part is empty"):
        data.part("test")
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        data.part("validaton")


def test_planned_sizes_are_exact_where_labels_are_known(table: Path) -> None:
    for name, config in [
        ("glyphs", catalogue("glyphs", samples=5000, imbalance=10.0)),
        ("table", parquet(table)),
    ]:
        size = dataset_size(config)
        for fraction, classes in [(1.0, None), (0.3, 3), (0.1, 2)]:
            data = open_dataset(config | {"fraction": fraction, "classes": classes, "class_rule": "random"})
            planned = trained_samples(size, fraction, classes, config["split"], class_rule="random")
            assert planned == len(data.train.ids), name


def test_planning_refuses_what_opening_would() -> None:
    for name, changes, message in [
        ("digits", {"fractoin": 0.1}, "Did you mean 'fraction'"),
        ("glyphs", {"imbalence": 2.0}, "Did you mean 'imbalance'"),
        ("parquet", {}, "datasets.path: has no value"),
    ]:
        with pytest.raises(UserError, match=message):
            dataset_size(catalogue(name, **changes))


def test_unknown_sizes_are_none() -> None:
    assert dataset_size(None) == DatasetSize()
    unknown = dataset_size({"_target_": "my_data.load", "folder": "/data"})
    assert trained_samples(unknown, 0.1, 2) is None
    assert dataset_size({"_target_": "my_data.load", "samples": 100}).samples == 100


def test_sizes_need_no_heavy_import(table: Path) -> None:
    code = (
        "import sys; from orchestrator.data.size import dataset_size, trained_samples; "
        f"size = dataset_size({parquet(table)!r}); assert trained_samples(size, .5, 2) == 18; "
        "print(*{'torch', 'sklearn', 'pandas', 'scipy', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_the_catalogue_spells_out_every_common_key() -> None:
    defaults = DatasetSettings()
    for path in CATALOGUE.glob("*.yaml"):
        loaded = OmegaConf.to_container(OmegaConf.load(path))
        assert isinstance(loaded, dict)
        config = {str(key): value for key, value in loaded.items()}
        settings, _ = read_settings(config)
        assert replace(settings.split, folds=1) == defaults.split, path.name
        expected = {
            "fraction",
            "classes",
            "class_rule",
            "validation_size",
            "split",
            "subset_seed",
            "transform",
        }
        assert expected <= set(config), path.name
