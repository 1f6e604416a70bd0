"""Sources of tables, arrays, tokens and datasets in Python: what they give, and what they refuse."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from numpy.typing import NDArray

from orchestrator.data import sources
from orchestrator.data.chains import chains
from orchestrator.data.dataset import Splits, open_dataset
from orchestrator.data.labels import quantile_bins
from orchestrator.data.map_style import map_style
from orchestrator.data.settings import DatasetSettings
from orchestrator.data.size import dataset_size, trained_samples
from orchestrator.data.sources import Source, idx, npz, parquet, tabular
from orchestrator.errors import UserError

ALL = np.arange(60)


def refused(message: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    with pytest.raises(UserError, match=message):
        call(*args, **kwargs)


def open_npz(path: Path, **changes: Any) -> Splits:
    return open_dataset({"_target_": "orchestrator.data.sources.npz", "path": str(path)} | changes)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    path = tmp_path / "arrays.npz"
    values = np.linspace(-3, 5, 60)
    np.savez(path, x=ALL.reshape(60, 1) * [1.0, 2.0], y=values, column=values[:, None], names=["a", "b"] * 30)
    return path


# ---- regression


@pytest.mark.parametrize("labels", ["y", "column"])
def test_values_are_targets_and_their_bins_stratify(arrays: Path, labels: str) -> None:
    data = open_npz(arrays, labels=labels, task="regression", transform="standardize")
    assert (data.task, data.outputs, data.class_names, data.num_classes) == ("regression", 1, (), 0)
    assert data.train.targets.dtype == np.float32
    expected = np.linspace(-3, 5, 60)[data.train.ids]
    assert data.train.targets == pytest.approx(expected)
    # Each sixth of the values is in the validation part, as a stratified split promises.
    assert set(data.validation.ids // 10) == set(range(6))
    few = open_npz(arrays, task="regression", fraction=0.5)
    assert set(few.train.ids) <= set(data.train.ids)


def test_planning_knows_the_size_of_a_regression() -> None:
    config: dict[str, Any] = {"_target_": "orchestrator.data.sources.tabular", "name": "diabetes"}
    config |= {"task": "regression", "samples": 442, "split": {"folds": "auto"}}
    size, data = dataset_size(config), open_dataset(config)
    assert (size.task, size.classes, size.folds) == ("regression", None, 5)
    folds = [data.fold(number) for number in range(5)]
    assert trained_samples(size, 1.0, None, config["split"]) == sum(len(fold.train.ids) for fold in folds)
    refused("2 asks for classes", lambda: trained_samples(size, 1.0, 2, config["split"]))
    refused("2 asks for classes", lambda: open_dataset(config | {"classes": 2}))
    refused("regression", lambda: open_dataset(config | {"task": "classification"}))


def test_bins_are_even_and_equal_values_share_one() -> None:
    assert np.bincount(quantile_bins(np.arange(200, dtype=np.float32))).tolist() == [20] * 10
    assert np.bincount(quantile_bins(np.arange(25, dtype=np.float32))).tolist() == [13, 12]
    tied = quantile_bins(np.array([0.0] * 90 + [1.0] * 10, dtype=np.float32))
    assert np.array_equal(tied, [0] * 90 + [1] * 10)
    assert quantile_bins(np.array([3.0], dtype=np.float32)).tolist() == [0]


def test_bad_values_are_refused(tmp_path: Path) -> None:
    def with_values(values: Any) -> Callable[[], Any]:
        path = tmp_path / "values.npz"
        np.savez(path, x=np.zeros((4, 2)), y=values)
        return lambda: open_npz(path, task="regression")

    refused("'y' is empty or not finite in 2 of 4", with_values([1.0, np.nan, np.inf, 0.0]))
    refused("not finite in 1 of 4", with_values([1.0, 1e300, 2.0, 0.0]))
    refused("'y' is 1 everywhere", with_values([1.0] * 4))
    refused("holds <U1, not numbers", with_values(["a"] * 4))
    refused("no task 'regresion'. Did you mean", lambda: open_npz(tmp_path / "values.npz", task="regresion"))


# ---- arrays


def test_layouts_and_tokens(tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    grey = np.arange(240, dtype=np.uint8).reshape(10, 4, 6)
    colour = np.arange(720).reshape(10, 4, 6, 3)
    np.savez(path, grey=grey, colour=colour, y=ALL[:10] % 2, flat=grey.reshape(10, 24))
    assert np.array_equal(npz(path=str(path), inputs="grey", layout="grey").load(ALL[:3])[:, 0], grey[:3])
    loaded = npz(path=str(path), inputs="colour", layout="channels_last").load(ALL[[7]])
    assert np.array_equal(loaded[0, 2], colour[7, :, :, 2])
    tokens = npz(path=str(path), inputs="flat", vocabulary=240)
    assert tokens.vocabulary == 240 and tokens.load(ALL[:2]).dtype == np.int64
    assert open_npz(path, inputs="flat", vocabulary=240).train.inputs.dtype == np.int64
    refused(
        "token 239 is not from 0 to 238",
        lambda: open_npz(path, inputs="flat", vocabulary=239, split={"validation": 0.0, "test": 0.0}).train,
    )
    refused("no array .samples, length. of tokens", lambda: npz(path=str(path), inputs="grey", vocabulary=9))
    refused("do not have the layout 'grey'", lambda: npz(path=str(path), inputs="flat", layout="grey"))
    refused("Did you mean 'channels_last'", lambda: npz(path=str(path), inputs="flat", layout="channel_last"))


def test_a_stored_array_is_mapped_and_a_compressed_one_is_the_same(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).random((60, 3))
    np.savez(tmp_path / "stored.npz", x=np.asfortranarray(samples), y=ALL % 3)
    np.savez_compressed(tmp_path / "packed.npz", x=samples, y=ALL % 3)
    stored, packed = (npz(path=str(tmp_path / f"{name}.npz")) for name in ("stored", "packed"))
    assert np.array_equal(stored.load(ALL[5:9]), packed.load(ALL[5:9]))
    captured = [cell.cell_contents for cell in stored.load.__closure__ or ()]
    assert any(isinstance(each, np.memmap) for each in captured)


def test_bad_arrays_are_refused(arrays: Path, tmp_path: Path) -> None:
    refused("no array 'X'", lambda: open_npz(arrays, inputs="X"))
    refused("measurements such as -2.8.* say datasets.task=regression", lambda: open_npz(arrays))
    np.save(tmp_path / "one.npy", ALL)
    refused("holds one array, not an archive", lambda: open_npz(tmp_path / "one.npy"))
    for name, x, y in [
        ("gap", [[1.0], [np.nan], [1.0], [2.0]], [0, 1, 0, 1]),
        ("huge", [[1.0], [1e300], [1.0], [2.0]], [0, 1, 0, 1]),
    ]:
        np.savez(tmp_path / f"{name}.npz", x=x, y=y)
        data = open_npz(tmp_path / f"{name}.npz", split={"validation": 0.0, "test": 0.0})
        refused("not finite in 1 of the 4 samples read, first in sample 1", getattr, data, "train")
    np.savez(tmp_path / "empty.npz", x=np.zeros((0, 2)), y=np.zeros(0, int))
    refused("has no samples", lambda: open_npz(tmp_path / "empty.npz"))
    np.savez(tmp_path / "single.npz", x=np.zeros((3, 2)), y=[1, 1, 1])
    refused("'y' has 1 class, and two are needed", lambda: open_npz(tmp_path / "single.npz"))
    content = arrays.read_bytes()
    for length in (0, 10, len(content) // 2, len(content) - 1):
        (tmp_path / "half.npz").write_bytes(content[:length])
        refused(r"half\.npz: not readable", lambda: open_npz(tmp_path / "half.npz"))
    (tmp_path / "table.csv").write_text("x,y\n1,2\n")
    refused(
        r"is a \*\.csv, not a NumPy archive. Convert it once: .*read_csv",
        lambda: open_npz(tmp_path / "table.csv"),
    )


def test_declared_classes_that_differ_are_named(tmp_path: Path) -> None:
    def declare(labels: list[int], classes: int) -> Callable[[], Any]:
        path = tmp_path / "labels.npz"
        np.savez(path, x=np.zeros((len(labels), 1)), y=labels)
        return lambda: open_npz(path, num_classes=classes)

    refused("4 are declared, and the data have 3: no sample has label 2", declare([0, 1, 3] * 4, 4))
    refused("label 7 is not from 0 to 2", declare([0, 1, 2, 7] * 4, 3))
    refused("label -1 is not from 0 to 1", declare([-1, 0, 1] * 4, 2))
    assert declare([-1, 1] * 4, 2)().class_names == ("-1", "1")  # names of classes like any other


# ---- IDX


def write_idx(path: Path, values: NDArray[Any], code: int = 0x08, header: bytes | None = None) -> Path:
    head = bytes([0, 0, code, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    content = (head if header is None else header) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files(tmp_path: Path, suffix: str) -> None:
    images = np.arange(60 * 12, dtype=np.uint8).reshape(60, 3, 4)
    samples = write_idx(tmp_path / f"images{suffix}", images)
    labels = write_idx(tmp_path / f"labels{suffix}", (ALL % 3).astype(np.uint8))
    config = {"_target_": "orchestrator.data.sources.idx", "path": str(samples), "labels_path": str(labels)}
    data = open_dataset(config)
    assert (data.shape, data.class_names) == ((1, 3, 4), ("0", "1", "2"))
    expected = images[data.train.ids][:, None] / 255
    assert data.train.inputs == pytest.approx(expected)
    assert trained_samples(dataset_size(config), 0.5, 2) == len(
        open_dataset(config | {"fraction": 0.5, "classes": 2}).train.ids
    )
    floats = write_idx(tmp_path / f"floats{suffix}", (images[:, 0] / 7).astype(">f4"), 0x0D)
    assert idx(path=str(floats), labels_path=str(labels)).load(ALL[:2]) == pytest.approx(images[:2, 0] / 7)
    half = tmp_path / f"half{suffix}"
    half.write_bytes(samples.read_bytes()[:-30])
    message = (
        "not readable as an IDX file" if suffix else "has 690 bytes of data, and its header promises 720"
    )
    refused(message, idx, path=str(half), labels_path=str(labels))


def test_bad_idx_files_are_refused(tmp_path: Path) -> None:
    images = write_idx(tmp_path / "images", np.zeros((6, 2, 2), np.uint8))
    labels = write_idx(tmp_path / "labels", np.arange(6, dtype=np.uint8))
    few = write_idx(tmp_path / "few", np.arange(5, dtype=np.uint8))
    text = write_idx(tmp_path / "text", np.zeros(3, np.uint8), header=b"P5 2 2\n")
    cut = write_idx(tmp_path / "cut", np.zeros(0, np.uint8), header=b"\0\0\x08\x03\0\0")
    for path, labels_path, message in [
        (labels, images, "wrong way round"),
        (images, few, "do not fit"),
        (text, labels, "begins with 50352032, not as an IDX file does"),
        (cut, labels, "ends within its header"),
        (tmp_path / "lables", labels, "no such file. Did you mean 'labels'"),
        (tmp_path, labels, "is a folder"),
    ]:
        refused(message, idx, path=str(path), labels_path=str(labels_path))


# ---- tables


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Write 60 rows in two files, of row groups of 7 and 20 rows."""
    columns = {"a": ALL / 3, "b": ALL % 5, "value": ALL / 2, "kind": [("x", "y")[row % 2] for row in ALL]}
    whole, folder = pa.table(columns), tmp_path / "table"
    folder.mkdir()
    pq.write_table(whole[:40], folder / "1.parquet", row_group_size=7)
    pq.write_table(whole[40:], folder / "2.parquet", row_group_size=20)
    return folder


def test_only_the_row_groups_that_are_needed_are_read(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestrator.data import tables

    read: list[tuple[str, int, list[str]]] = []
    original = tables._read_group

    def watched(group: Any, names: Any) -> Any:
        read.append((group.file.name, group.number, list(names)))
        return original(group, names)

    monkeypatch.setattr(tables, "_read_group", watched)
    source = parquet(path=str(table), label="kind", features=["b", "a"])
    assert source.columns == ("b", "a")
    asked = np.array([50, 3, 22, 2, 41])
    assert source.load(asked) == pytest.approx(np.stack([asked % 5, asked / 3], axis=1))
    assert read == [("1.parquet", 0, ["b", "a"]), ("1.parquet", 3, ["b", "a"]), ("2.parquet", 0, ["b", "a"])]
    assert source.load(ALL[:0]).shape == (0, 2)


def test_a_table_of_values(table: Path) -> None:
    config = {"_target_": "orchestrator.data.sources.parquet", "path": str(table), "label": "value"}
    config |= {"features": ["a", "b"], "task": "regression"}  # type: ignore[dict-item]
    data, size = open_dataset(config), dataset_size(config)
    assert data.train.targets == pytest.approx(data.train.ids / 2)
    assert trained_samples(size, 0.3, None) == len(open_dataset(config | {"fraction": 0.3}).train.ids)
    refused("'kind' holds string, not numbers", lambda: open_dataset(config | {"label": "kind"}))
    refused("no column 'valu'. Did you mean 'value'", lambda: open_dataset(config | {"label": "valu"}))
    refused("column 'kind' holds string, not numbers", lambda: open_dataset(config | {"features": None}))


def test_files_that_differ_are_refused(table: Path) -> None:
    other = pa.table({"a": ["text"] * 3, "b": [1] * 3, "kind": ["x"] * 3})
    pq.write_table(other, table / "3.parquet")
    message = r"3\.parquet: column 'a' holds string, and double in the first file"
    refused(message, lambda: parquet(path=str(table), label="kind", features=["a", "b"]))
    (table / "3.parquet").write_bytes((table / "2.parquet").read_bytes()[:-9])
    refused(r"3\.parquet: not readable as Parquet", lambda: parquet(path=str(table), label="kind"))
    pq.write_table(pa.table({"a": pa.array([], pa.int64()), "y": pa.array([], pa.int64())}), table / "e.pq")
    refused("has no samples", lambda: parquet(path=str(table / "e.pq"), label="y"))


def test_bundled_tables() -> None:
    diabetes, iris = tabular(name="diabetes"), tabular(name="iris")
    assert (len(diabetes.labels), diabetes.task, diabetes.columns[2]) == (442, "regression", "bmi")
    assert (iris.class_names, iris.shape) == (("setosa", "versicolor", "virginica"), (4,))
    refused("no table 'irsi'. Did you mean 'iris'", lambda: tabular(name="irsi"))


# ---- tokens


def test_only_the_order_of_tokens_tells_chains_apart() -> None:
    source = chains(samples=6000, num_classes=3, tokens=6, length=20)
    drawn = source.load(np.arange(6000))
    assert (source.vocabulary, source.shape) == (7, (20,)) and drawn.dtype == np.int64
    lengths = (drawn > 0).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (10, 20)
    assert all((row[:length] > 0).all() for row, length in zip(drawn, lengths, strict=True))
    for label in range(3):
        own = drawn[source.labels == label]
        shares = np.bincount(own[own > 0], minlength=7)[1:] / (own > 0).sum()
        assert shares == pytest.approx(1 / 6, abs=0.01)  # counts say nothing
    follows = np.zeros((3, 7, 7))
    np.add.at(follows, (source.labels[:, None], drawn[:, :-1], drawn[:, 1:]), 1)
    likely = follows[:, 1:, 1:].argmax(axis=2)  # and what follows what says all
    assert all(len({int(likely[label, token]) for label in range(3)}) == 3 for token in range(6))
    asked = np.array([5999, 17, 200])
    assert np.array_equal(source.load(asked), drawn[asked])
    # On every machine, in every version.
    assert drawn[:2, :6].tolist() == [[2, 3, 5, 6, 3, 4], [1, 4, 6, 5, 4, 6]]
    assert not np.array_equal(chains(samples=60, seed=1).load(ALL), chains(samples=60).load(ALL))
    wrongs: list[dict[str, Any]] = [
        {"num_classes": 12},
        {"samples": 3},
        {"shortest": 33},
        {"order": 1.5},
        {"length": 1},
    ]
    for wrong in wrongs:
        refused(next(iter(wrong)), chains, **wrong)


# ---- datasets in Python


class Pairs(torch.utils.data.Dataset[Any]):
    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items, self.asked = items, list[int]()
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.asked.append(index)
        return self.items[index]


def test_a_torch_dataset_is_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(
        "import torch\n"
        "def pairs(count=40):\n"
        "    x = torch.arange(2. * count).reshape(count, 2)\n"
        "    return torch.utils.data.TensorDataset(x, torch.arange(count) % 4)\n"
        "def no_dataset(): return object()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    data = open_dataset({"_target_": "my_data.pairs", "count": 60, "classes": [1, 3]})
    assert (data.class_names, data.shape) == (("1", "3"), (2,))
    assert data.train.inputs[:, 0] == pytest.approx(2 * data.train.ids)
    assert np.array_equal(data.train.ids % 4, 2 * data.train.targets + 1)
    refused("returned object, not a Source", lambda: open_dataset({"_target_": "my_data.no_dataset"}))


def test_labels_are_taken_without_a_pass_where_they_are_known() -> None:
    items = [(np.zeros(3), index % 2) for index in range(50)]
    pairs = Pairs(items, targets=torch.arange(50) % 2, classes=["cat", "dog"])
    source = map_style(pairs)
    assert source.class_names == ("cat", "dog")
    assert len(pairs.asked) < 50
    source.load(np.array([4, 9]))
    assert pairs.asked[-2:] == [4, 9]
    without = map_style(Pairs([(np.zeros(3), ("no", "yes")[index % 2]) for index in range(50)]))
    assert without.class_names == ("no", "yes")
    assert np.array_equal(without.labels, source.labels)
    values = map_style(
        Pairs([(np.zeros(3), torch.tensor(index / 4)) for index in range(50)]), task="regression"
    )
    assert values.targets == pytest.approx(np.arange(50) / 4)
    tokens = map_style(Pairs([(torch.tensor([index, 0]), index % 2) for index in range(9)], vocabulary=9))
    assert tokens.load(ALL[:3]).dtype == np.int64


def test_bad_datasets_are_refused() -> None:
    two = (np.zeros(2), 0)
    wrongs: list[tuple[list[Any], str]] = [
        ([], "has no samples"),
        ([np.zeros(2)] * 4, "sample 0 is a ndarray, not a pair"),
        ([("text", 0), ("more", 1)], "the input of sample 0 is not numbers"),
        ([two, (np.zeros(3), 1)], "sample 0 is 2 and sample 1 is 3: samples should be of one size"),
        ([two] * 3, "'labels' has 1 class"),
    ]
    for items, message in wrongs:
        refused(message, map_style, Pairs(items))


def test_a_users_source_is_checked() -> None:
    def opened(**changes: Any) -> Splits:
        fields: dict[str, Any] = {"labels": ALL % 2, "class_names": ("a", "b"), "shape": (1,)}
        fields |= {"load": lambda indices: np.zeros((len(indices), 1), np.float32)} | changes
        sources.made_for_a_test = lambda: Source(**fields)  # type: ignore[attr-defined]
        try:
            return open_dataset({"_target_": "orchestrator.data.sources.made_for_a_test"})
        finally:
            del sources.made_for_a_test  # type: ignore[attr-defined]

    assert len(opened().train.ids) == 36
    refused("label 2 of sample 2 is not from 0 to 1", lambda: opened(labels=ALL % 3))
    refused("label -1 of sample 0", lambda: opened(labels=ALL % 2 - 1))
    refused("no array .n,. of whole numbers", lambda: opened(labels=(ALL % 2).astype(float)))
    refused("has 1 class", lambda: opened(labels=0 * ALL, class_names=("a",)))
    refused("has no samples", lambda: opened(labels=ALL[:0]))
    refused("targets are not one finite value", lambda: opened(targets=ALL[:3].astype(np.float32)))
    refused(r"gave samples \(36, 1\) and declared \(36, 2\)", lambda: opened(shape=(2,)).train)
    refused("are no images", lambda: Splits(tabular(name="iris"), DatasetSettings(resolution=8)))


def test_sources_need_no_heavy_import(arrays: Path) -> None:
    code = (
        "import sys; from orchestrator.data.size import dataset_size; import orchestrator.data.sources; "
        "npz = dict(_target_='orchestrator.data.sources.npz', labels='names'); "
        f"dataset_size(npz | dict(path={str(arrays)!r})); "
        "print(*{'torch', 'sklearn', 'pandas', 'scipy', 'PIL', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
