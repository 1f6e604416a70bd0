"""The hand-over of other data: tables, images, combinations, and data that moved or changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from PIL import Image

from exported import finished_sweep, model_copy, rewritten, small_model
from orchestrator.errors import UserError
from orchestrator.export.manifest import open_exported
from orchestrator.export.predict import predict
from orchestrator.export.read import load_model
from orchestrator.export.write import export

out = pytest.fixture(scope="module")(small_model)
copy = pytest.fixture(model_copy)


@pytest.mark.parametrize(
    ("data", "job", "changes"),
    [
        ("diabetes", "regress", ["datasets.transform=[log,pca_whiten]"]),
        (
            "glyphs",
            "classify",
            [
                "jobs.config.model.name=cnn",
                "datasets.samples=310",
                "datasets.num_classes=10",
                "datasets.resolution=8",
            ],
        ),
        ("chains", "sequences", ["datasets.samples=200", "datasets.length=6"]),
    ],
)
def test_other_data_give_the_same_figures(data: str, job: str, changes: list[str], tmp_path: Path) -> None:
    sweep = finished_sweep(tmp_path, data=data, job=job, changes=changes, seeds=(1,))
    manifest = export(sweep, tmp_path / "out", only=("single",))
    assert all(each["program"] for each in manifest["networks"].values()), manifest["networks"]
    found = predict(open_exported(tmp_path / "out"), "test")
    for score, value in found.reported.items():
        assert found.tally.scores[score] == pytest.approx(value, rel=1e-6)
    assert found.reported


def test_new_samples_of_a_table(tmp_path: Path) -> None:
    settings = ["jobs.config.loss.name=ldam", "jobs.config.model.activation=maxout"]
    sweep = finished_sweep(tmp_path, data="wine", changes=settings, seeds=(1,))
    export(sweep, tmp_path / "out", only=("single",))
    exported = open_exported(tmp_path / "out")
    test = predict(exported, "test")
    assert test.tally.scores["accuracy"] == test.reported["accuracy"]
    bunch = sklearn.datasets.load_wine()
    table = pd.DataFrame(bunch.data, columns=bunch.feature_names)
    table["label"] = [bunch.target_names[each] for each in bunch.target]
    table.sample(frac=1, axis=1, random_state=0).to_csv(tmp_path / "new.csv", index=False)
    table.to_parquet(tmp_path / "new.parquet")
    np.savez(tmp_path / "new.npz", x=bunch.data, y=bunch.target)
    scores = [
        predict(exported, str(tmp_path / f"new.{kind}")).tally.scores for kind in ("csv", "parquet", "npz")
    ]
    assert scores[0] == scores[1] == scores[2]
    assert scores[0]["accuracy"] > 0.3
    for kind in ("parquet", "csv"):
        written = tmp_path / f"said.{kind}"
        found = predict(exported, str(tmp_path / "new.parquet"), out=written)
        said = pd.read_parquet(written) if kind == "parquet" else pd.read_csv(written)
        assert len(said) == 178
        assert (said["prediction"] == said["label"]).mean() == pytest.approx(found.tally.scores["accuracy"])
        np.testing.assert_allclose(said.filter(like="p(").sum(axis=1), 1, atol=1e-5)
    changes: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = [
        (lambda t: t.rename(columns={"ash": "ashes"}), "no column 'ash'.*Did you mean 'ashes'"),
        (lambda t: t.assign(label="class_9"), "class 'class_9', which the models do not know"),
        (lambda t: t.assign(ash=np.nan), "178 of 178 samples read have values that are missing"),
        (lambda t: t.assign(ash="much"), "'ash' holds .*string, not numbers"),
        (lambda t: t.iloc[:0], "has no samples"),
    ]
    for change, text in changes:
        change(table).to_parquet(tmp_path / "wrong.parquet")
        with pytest.raises(UserError, match=text):
            predict(exported, str(tmp_path / "wrong.parquet"), out=tmp_path / "never.csv")
    assert not list(tmp_path.glob("*never*"))


def test_the_way_of_combining_goes_along(copy: Path) -> None:
    raw = sklearn.datasets.load_digits().images[:20, None].astype(np.float32) / 16
    parts = [each(raw) for each in load_model(open_exported(copy), "ensemble").predictors]
    intercept, coefficients = [0.1 * number for number in range(10)], [np.eye(10) * 0.5, np.eye(10)]
    stacked = sum(np.log(np.maximum(each, 1e-12)) @ c for each, c in zip(parts, coefficients, strict=True))
    for combination, wanted in (
        ({"method": "logits", "weights": [0.3, 0.7]}, 0.3 * np.log(parts[0]) + 0.7 * np.log(parts[1])),
        (
            {
                "method": "stacking",
                "weights": [0.5, 0.5],
                "coefficients": [each.tolist() for each in coefficients],
                "intercept": intercept,
            },
            stacked + intercept,
        ),
    ):
        rewritten(copy, lambda m, c=combination: m["models"]["ensemble"].update(combination=c))  # type: ignore[misc]
        said = load_model(open_exported(copy), "ensemble")(raw)
        np.testing.assert_allclose(said, torch.softmax(torch.tensor(wanted), 1), atol=2e-5)


def test_data_that_moved_and_data_that_changed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 4)).astype(np.float32), np.arange(120) % 3
    np.savez(tmp_path / "data.npz", x=x, y=y)
    sweep = finished_sweep(
        tmp_path / "sweep", data="npz", changes=[f"datasets.path={tmp_path / 'data.npz'}"], seeds=(1,)
    )
    export(sweep, tmp_path / "out", only=("single",))
    exported = open_exported(tmp_path / "out")
    moved = (tmp_path / "data.npz").rename(tmp_path / "elsewhere.npz")
    with pytest.raises(UserError, match=r"no such file|has changed"):
        predict(exported, "test")
    found = predict(exported, "test", path=str(moved))
    assert found.tally.scores["accuracy"] == found.reported["accuracy"]
    np.savez(moved, x=x + 1, y=y)
    with pytest.raises(UserError, match="has changed since the sweep was planned"):
        predict(exported, "test", path=str(moved))


def test_new_images(out: Path, tmp_path: Path) -> None:
    data = sklearn.datasets.load_digits()
    for number in range(60):
        folder = tmp_path / "known" / str(data.target[number])
        folder.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((data.images[number] * 15.9375).astype(np.uint8))
        picture.save(folder / f"{number}.png")
    exported = open_exported(out)
    np.savez(tmp_path / "same.npz", x=data.images[:60] / 16, y=data.target[:60])
    known = predict(exported, str(tmp_path / "known"))
    same = predict(exported, str(tmp_path / "same.npz"))
    assert known.tally.known == 60
    assert known.tally.scores["log_loss"] == pytest.approx(same.tally.scores["log_loss"], rel=0.02)
    one = predict(exported, str(tmp_path / "known" / "0" / "0.png"))
    assert one.tally.samples == 1
    assert not one.tally.known
    assert one.first["file"] == ["0.png"]
    (tmp_path / "known" / "a").mkdir()
    picture.save(tmp_path / "known" / "a" / "b.png")
    with pytest.raises(UserError, match="the folder 'a' has the name of no class"):
        predict(exported, str(tmp_path / "known"))
