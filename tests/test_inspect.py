"""What `orchestrate inspect` finds in data with known faults, and that it bears data of any kind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from sklearn.datasets import load_digits

from orchestrator.commands.inspecting import inspect
from orchestrator.errors import UserError
from orchestrator.inspection.columns import column_findings, describe_columns, identifiers
from orchestrator.inspection.examine import Inspection, examine, to_json
from orchestrator.inspection.page import page
from orchestrator.inspection.target import resolve


def codes(found: Inspection) -> set[str]:
    return {each.code for each in found.findings}


def looked_at(path: Path | str, *overrides: str, sample: int = 2000) -> Inspection:
    return examine(resolve(str(path), overrides), sample)


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inspection, set[int]]:
    """Digits with 5% of the labels wrong, copies, near copies and noise, and which labels were changed."""
    digits = load_digits()
    pixels, labels = (digits.images * 15).astype(np.uint8), digits.target.copy()
    random = np.random.default_rng(0)
    flipped = 10 + random.choice(len(labels) - 10, 90, replace=False)
    labels[flipped] = (labels[flipped] + random.integers(1, 10, 90)) % 10
    near = np.clip(pixels[10:13].astype(int) + random.integers(-3, 4, (3, 8, 8)), 0, 255).astype(np.uint8)
    noise = random.integers(0, 255, (4, 8, 8), dtype=np.uint8)
    pixels = np.concatenate([pixels, pixels[:5], near, noise])
    labels = np.concatenate([labels, labels[:4], [(labels[4] + 1) % 10], labels[10:13], [0, 1, 2, 3]])
    path = tmp_path_factory.mktemp("dirty") / "dirty.npz"
    np.savez(path, x=pixels, y=labels)
    return looked_at(path), {*flipped.tolist(), 1801}  # the fifth copy has another label too


def test_wrong_labels_are_found(dirty: tuple[Inspection, set[int]]) -> None:
    found, flipped = dirty
    assert found.doubts is not None
    doubted = [int(found.ids[one.place]) for one in found.doubts.suspects]
    right = [number in flipped for number in doubted]
    assert np.mean(right) > 0.85  # precision
    assert sum(right) / len(flipped) > 0.85  # recall
    assert all(right[:30])  # ranked: the worst are the surest
    assert found.doubts.estimate == pytest.approx(0.05, abs=0.01)


def test_the_true_class_is_suggested(dirty: tuple[Inspection, set[int]]) -> None:
    found, flipped = dirty
    truth = load_digits().target
    assert found.doubts is not None
    hits = [one for one in found.doubts.suspects if int(found.ids[one.place]) in flipped]
    hits = [one for one in hits if found.ids[one.place] < len(truth)]
    assert np.mean([one.suggested == truth[int(found.ids[one.place])] for one in hits]) > 0.9


def test_copies_and_outliers_are_found(dirty: tuple[Inspection, set[int]]) -> None:
    found, _ = dirty
    start = len(load_digits().target)
    assert set(found.copies.groups) == {(k, start + k) for k in range(5)}
    assert found.copies.groups[0] == (4, start + 4)  # of different labels, so it comes first
    assert found.copies.conflicting == 2
    expected = sum(1 for k in range(5) if sorted(found.parts[[k, start + k]] > 0) == [False, True])
    assert found.copies.across == expected > 0
    assert {(pair.first, pair.second) for pair in found.pairs} == {(10 + k, start + 5 + k) for k in range(3)}
    assert {each.id for each in found.far} == {start + 8 + k for k in range(4)}
    assert {"leak", "conflicting", "wrong_labels", "few_samples"} <= codes(found)
    levels = [each.level for each in found.findings]
    assert levels == sorted(levels, key=["problem", "warning", "note"].index)


def test_the_page_stands_alone(dirty: tuple[Inspection, set[int]]) -> None:
    text = page(dirty[0])
    assert "default-src 'none'" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert text.count("data:image/png;base64,") > 50


def test_clean_digits_are_not_blamed() -> None:
    found = looked_at("digits")
    assert not codes(found) & {"leak", "conflicting", "duplicates", "near_duplicates", "outliers"}
    assert found.doubts is not None and len(found.doubts.suspects) < 10


def write_table(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_a_tables_faults_are_found(tmp_path: Path) -> None:
    random, n = np.random.default_rng(0), 600
    species = random.integers(0, 3, n)
    width = random.normal(species, 1.0)
    height = random.normal(-species, 1.0)
    height[3] = np.inf
    file = write_table(
        tmp_path / "flowers.parquet",
        {
            "number": np.arange(n),
            "width": pa.array(width, mask=random.random(n) < 0.1),
            "income": np.exp(random.normal(8, 1.2, n)),
            "one": np.ones(n),
            "seldom": (np.arange(n) == 7).astype(float),
            "height": height,
            "again": height,
            "city": ["<script>alert(1)</script>"] * n,
            "species": np.array(["a", "b", "c"])[species],
        },
    )
    found = looked_at(file, "label=species")
    expected = {"missing", "not_finite", "constant", "nearly_constant", "skewed", "scales", "text_columns"}
    assert expected | {"identifier", "same_columns"} <= codes(found)
    named = {each.name: each for each in found.columns}
    assert named["income"].transform == "log" and abs(named["income"].skew_after) < 0.75
    assert named["one"].constant
    assert named["width"].missing == pytest.approx(60, abs=25)
    assert named["height"].infinite == 1
    assert found.raw.class_names == ("a", "b", "c")
    assert "<script>alert(1)" not in page(found)
    json.dumps(to_json(found), allow_nan=False)


def test_values_to_predict(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    inputs = random.normal(size=(300, 5))
    price = inputs[:, 0] * 10 + random.normal(size=300) * 0.1
    price[17] = 500.0
    file = write_table(
        tmp_path / "prices.parquet", {**{f"c{k}": inputs[:, k] for k in range(5)}, "price": price}
    )
    found = looked_at(file, "label=price")
    assert found.balance is None and found.values is not None and found.values.high == 500
    assert found.doubts is not None and found.ids[found.doubts.suspects[0].place] == 17
    assert "skewed_target" in codes(found)


def test_imbalance_lone_samples_and_missing_labels(tmp_path: Path) -> None:
    labels = pa.array(["a"] * 100 + ["b"] * 4 + ["c"] + [None] * 3)
    file = write_table(
        tmp_path / "few.parquet", {"x": np.random.default_rng(0).normal(size=108), "label": labels}
    )
    found = looked_at(file)
    assert {"imbalance", "lone_samples", "no_label", "few_samples"} <= codes(found)
    assert found.balance is not None
    assert (
        found.balance.counts == (100, 4, 1) and found.balance.unlabelled == 3 and found.balance.ratio == 100
    )
    assert 1 < found.balance.effective < 1.5


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        size = (20, 16) if number % 5 else (30, 40)
        folder = tmp_path / ("cat", "dog")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8)).save(folder / f"{number:02}.png")
    half = (tmp_path / "cat" / "02.png").read_bytes()[:80]
    (tmp_path / "dog" / "half.png").write_bytes(half)
    (tmp_path / "cat" / "none.png").write_bytes(b"no picture")
    (tmp_path / "bird").mkdir()
    found = looked_at(tmp_path)
    assert {"unreadable", "mixed_sizes", "empty_class"} <= codes(found)
    assert found.raw.count == 26 and len(found.ids) == 24  # what cannot be read is compared with nothing
    assert found.copies.groups == ()
    assert found.raw.named(0) == "cat/00.png"
    assert "cat/none.png" in next(each.text for each in found.findings if each.code == "unreadable")


@pytest.mark.parametrize(
    "arrays_of",
    [
        {"x": np.zeros((1, 3)), "y": np.zeros(1)},
        {"x": np.zeros((30, 3)), "y": np.zeros(30, int)},
        {"x": np.full((30, 3), np.nan), "y": np.arange(30) % 2},
        {"x": np.full((30, 1, 4, 4), np.nan), "y": np.arange(30) % 2},
        {"x": np.zeros((30, 4, 4), np.uint8), "y": np.arange(30)},
        {"x": np.random.default_rng(0).normal(size=(30, 7, 2)), "y": np.full(30, np.nan)},
        {"x": np.array([[1e38, -1e38], [np.inf, 0], [-np.inf, np.nan]]), "y": np.array(["a", "b", "a"])},
        {"x": np.arange(40.0)},
    ],
)
def test_nothing_of_any_kind_stops_it(tmp_path: Path, arrays_of: dict[str, Any]) -> None:
    np.savez(tmp_path / "odd.npz", **arrays_of)
    found = looked_at(tmp_path / "odd.npz")
    json.dumps(to_json(found), allow_nan=False)
    page(found)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(1, 12), st.integers(1, 3)), elements=st.floats(width=32)))
def test_columns_of_any_numbers_are_described(inputs: np.ndarray[Any, Any]) -> None:
    names = [f"c{k}" for k in range(inputs.shape[1])]
    described = describe_columns(inputs, names)
    for each, column in zip(described, inputs.T, strict=True):
        assert each.missing == np.isnan(column).sum()
        assert each.distinct == len(np.unique(column[np.isfinite(column)]))
    column_findings(described)
    identifiers(inputs, names)


def test_idx_files_with_their_labels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 5, 5), dtype=np.uint8)
    head = b"\0\0\x08\x03" + b"".join(int(size).to_bytes(4, "big") for size in pixels.shape)
    _written(tmp_path, "train-images-idx3-ubyte", head + pixels.tobytes())
    labels = b"\0\0\x08\x01" + (20).to_bytes(4, "big") + bytes(number % 2 for number in range(20))
    _written(tmp_path, "train-labels-idx1-ubyte", labels)
    found = looked_at(tmp_path)
    assert found.raw.shape == (1, 5, 5) and found.balance is not None and found.balance.counts == (10, 10)
    assert np.array_equal(found.inputs[:, 0], pixels)


def test_a_sweeps_directory_stands_for_its_dataset(tmp_path: Path) -> None:
    text = "name: tried\nmetric: {name: val}\njobs: {_target_: a.b}\nspace: {}\nslurm: {}\nstages: {}\n"
    (tmp_path / "sweep.yaml").write_text(f"{text}datasets: {{_target_: x.y, path: {tmp_path}}}\n")
    (tmp_path / "plan.json").write_text("{}")
    found = resolve(str(tmp_path))
    assert found.name == "tried" and found.config["path"] == str(tmp_path)


def test_large_data_are_sampled_and_it_is_said(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(3000, 4))
    inputs[2999] = inputs[0]
    np.savez(tmp_path / "many.npz", x=inputs, y=random.integers(0, 2, 3000))
    found = looked_at(tmp_path / "many.npz", sample=100)
    again = looked_at(tmp_path / "many.npz", sample=200)
    assert len(found.ids) == 100 and set(found.ids) < set(again.ids)
    assert found.copies.looked == 3000 and found.copies.groups == ((0, 2999),)  # all are searched for copies
    result = CliRunner().invoke(inspect, [str(tmp_path / "many.npz"), "--sample", "100"])
    assert "100 chosen by hash" in " ".join(result.output.split())


def test_a_sweep_file_stands_for_its_dataset() -> None:
    found = resolve("examples/digits.yaml", ["split.validation=0.3"])
    assert found.name == "digits" and found.config["split"]["validation"] == 0.3


def test_the_command_line(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    result = CliRunner().invoke(inspect, ["wine", "--json", "--page", str(tmp_path / "wine.html")])
    assert result.exit_code == 0
    content = json.loads(result.output)
    keys = "name kind samples shape looked_at parts classes target columns duplicates near_duplicates"
    assert list(content) == [*keys.split(), "wrong_labels", "outliers", "findings"]
    assert content["samples"] == 178 and sum(content["parts"].values()) == 178
    assert (tmp_path / "wine.html").exists()


def _damaged(folder: Path) -> Path:
    whole = folder / "whole.npz"
    np.savez_compressed(whole, x=np.random.default_rng(0).normal(size=(50, 3)), y=np.arange(50) % 2)
    (folder / "half.npz").write_bytes(whole.read_bytes()[:400])
    return folder / "half.npz"


def _table(folder: Path) -> Path:
    return write_table(folder / "t.parquet", {"a": [1.0, 2.0], "species": ["x", "y"]})


def _written(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "overrides", "said"),
    [
        (
            lambda folder: _table(folder).with_name("tt.parquet"),
            (),
            r"no such file.*Did you mean 't.parquet'",
        ),
        (_table, ("label=specie",), "has no column 'specie'.*Did you mean 'species'"),
        (_table, ("lable=species",), "lable: no such key.*Did you mean 'label'"),
        (_table, ("features=[b]",), "has no column 'b'"),
        (_table, ("species",), "'species' is no override"),
        (_damaged, (), "not readable as a NumPy archive"),
        (lambda folder: _written(folder, "t.parquet", b"PAR1 no"), (), "not readable as Parquet"),
        (lambda folder: _written(folder, "t.parquet", b""), (), "the file is empty"),
        (lambda folder: _written(folder, "t.csv", b"a,b"), (), r"'\.csv' is no kind of data"),
        (
            lambda folder: _written(folder, "a-idx3-ubyte", b"\0\0\x08\x03" + b"\0\0\0\x09" * 3),
            (),
            "its head says 729",
        ),
        (_folder, (), "the folder is empty"),
        (lambda folder: "digit", (), "no such file, folder or dataset of the catalogue.*'digits'"),
        (lambda folder: "npz", (), "datasets.path: has no value"),
    ],
)
def test_bad_input_has_one_readable_message(
    tmp_path: Path, make: Any, overrides: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        looked_at(make(tmp_path), *overrides)
