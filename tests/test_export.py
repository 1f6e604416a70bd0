"""The hand-over: what is written, and that it predicts the same in a fresh process."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets

from commands import orchestrate
from exported import small_model, small_sweep
from orchestrator.data.transforms import TRANSFORMS, Transform
from orchestrator.errors import UserError
from orchestrator.export.manifest import NAME, open_exported
from orchestrator.export.predict import predict
from orchestrator.export.preprocessing import restore, store
from orchestrator.export.read import load_model
from orchestrator.export.write import export
from trained import ROOT

sweep = pytest.fixture(scope="module")(small_sweep)
out = pytest.fixture(scope="module")(small_model)


def test_a_fresh_process_reproduces_the_figures_without_the_sweep(
    sweep: Path, out: Path, tmp_path: Path
) -> None:
    reported = json.loads((sweep / "ensemble" / "ensemble.json").read_text())["test"]
    away = sweep.rename(sweep.with_name("away"))
    try:
        shown = orchestrate("predict", out, "test", "--json", cwd=tmp_path)
    finally:
        away.rename(sweep)
    found = json.loads(shown.stdout)
    assert found["samples"] == found["with_answers"] == 360
    assert found["scores"]["accuracy"] == found["reported"]["accuracy"] == reported["ensemble"]
    single = predict(open_exported(out), "test", model="single")
    assert single.tally.scores["accuracy"] == reported["best_single"]
    assert single.tally.confusion is not None
    assert single.tally.confusion.trace() == round(360 * reported["best_single"])


def test_what_the_folder_says(sweep: Path, out: Path) -> None:
    text = "".join(path.read_text() for path in (out / NAME, out / "README.md"))
    assert str(sweep.parent) not in text
    assert str(ROOT) not in text
    manifest = open_exported(out).manifest
    assert manifest["models"]["ensemble"]["networks"] == ["single", "member-01"]
    assert sum(manifest["models"]["ensemble"]["weights"]) == 1
    assert set(manifest["files"]) == {
        str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name != NAME
    }
    card = (out / "README.md").read_text()
    figures = manifest["figures"]["test"]
    for value in figures.values():
        assert f"{value:.4f}" in card
    for title in ("How good", "Calibration", "Data", "Settings", "Limitations", "Provenance"):
        assert f"## {title}" in card


def test_the_lines_of_the_documentation_run(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (ROOT / "docs" / "hand-over.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert blocks
    data = sklearn.datasets.load_digits()
    np.savez(tmp_path / "new.npz", x=data.images[:50, None].astype(np.float32) / 16, y=data.target[:50])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODEL", str(out))
    for block in blocks:
        assert "orchestrator" not in block
        exec(block, {})
        predicted = np.array(json.loads(capsys.readouterr().out.splitlines()[-1]))
        ours = load_model(open_exported(out), "single")(data.images[:50, None].astype(np.float32) / 16)
        np.testing.assert_array_equal(predicted, ours.argmax(axis=1))


def test_the_same_sweep_gives_the_same_programs(sweep: Path, out: Path, tmp_path: Path) -> None:
    again = export(sweep, tmp_path / "again", only=("single",))
    before = open_exported(out).manifest["files"]
    for name in ("models/single.pt2", "models/single.safetensors", "inputs-0/transform.safetensors"):
        assert again["files"][name] == before[name]


@pytest.mark.parametrize("name", sorted(TRANSFORMS))
def test_a_fitted_transform_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    from safetensors.numpy import load, save

    rng = np.random.default_rng(0)
    shape = (60, 2, 6, 5) if name.endswith("contrast") else (60, 7)
    data = np.exp(rng.normal(size=shape)).astype(np.float32)
    chain = [name] if name == "none" else [name, "standardize"]
    fitted = Transform(chain).fit(data[:40])
    content, arrays = store(fitted)
    back = restore(json.loads(json.dumps(content)), load(save(arrays)), "file")
    np.testing.assert_array_equal(back(data), fitted(data))
    assert back.shape == fitted.shape


def test_a_damaged_transform_is_refused() -> None:
    content, arrays = store(Transform("standardize").fit(np.random.default_rng(0).normal(size=(9, 3))))
    for damage in (
        {**content, "steps": [{"function": "eval", "keywords": {}}]},
        {**content, "steps": [{"scaler": "Popen", "settings": {}, "learned": {}}]},
        {"names": ["standardize"]},
        {**content, "names": ["nothing"]},
    ):
        with pytest.raises(UserError):
            restore(damage, arrays, "transform.json")
    with pytest.raises(UserError, match="no fitted transform"):
        restore(content, {}, "transform.json")
