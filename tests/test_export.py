"""The hand-over: what is written, that it predicts the same in a fresh process, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from commands import orchestrate
from exported import finished_sweep
from orchestrator.cli import main
from orchestrator.data.transforms import TRANSFORMS, Transform
from orchestrator.errors import UserError
from orchestrator.export import write
from orchestrator.export.manifest import NAME, open_exported
from orchestrator.export.predict import predict
from orchestrator.export.preprocessing import restore, store
from orchestrator.export.program import Refused, export_program, program_bytes
from orchestrator.export.read import load_model
from orchestrator.export.sequences import Unpacked, unpacked
from orchestrator.export.vetting import load_program
from orchestrator.export.write import export
from orchestrator.training.models import build_model
from orchestrator.training.settings import ModelSettings
from trained import ROOT


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_sweep(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="module")
def out(sweep: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is exported of it, far from the sweep."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(sweep, folder)
    return folder


@pytest.fixture
def copy(out: Path, tmp_path: Path) -> Path:
    """A copy to be damaged."""
    return Path(shutil.copytree(out, tmp_path / "copy"))


def rewritten(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    manifest = json.loads((folder / NAME).read_text())
    change(manifest)
    (folder / NAME).write_text(json.dumps(manifest))
    return folder


# The folder


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


# Other data and jobs


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


OWN = """
import torch
from torch import nn

def data(seed):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 2)
    def forward(self, x):
        BODY

def setup(config):
    x, y = data(0)
    return {"model": Net(), "loss": nn.functional.cross_entropy, "inputs": x, "targets": y}

def train(config, trial):
    return {"val/accuracy": 0.5}

def predict(config, checkpoint, split):
    raise NotImplementedError
"""
OWN_SWEEP = """
name: own
metric: {name: val/accuracy, mode: max}
space: {lr: "interval(0.1, 1.0)"}
stages: {only: {trials: 2}}
final: {top: 1, seeds: 1}
jobs: {_target_: JOB.train, predict: JOB.predict, setup: JOB.setup, config: {lr: 0.1}, scale: {}}
checks: {enabled: false}
"""


def own_sweep(folder: Path, body: str) -> Path:
    """Make a finished sweep over a user's own job."""
    from orchestrator.control.create import freeze_plan, work_out
    from orchestrator.sweep.directory import TrialSpec, write_trials

    name = f"job_{folder.parent.name}_{folder.name}".replace("-", "_")
    folder.mkdir()
    (folder / f"{name}.py").write_text(OWN.replace("BODY", body))
    (folder / "sweep.yaml").write_text(OWN_SWEEP.replace("JOB", name))
    planned = work_out(folder / "sweep.yaml", [f"dir={folder / 'sweep'}"])
    freeze_plan(planned)
    directory = planned.directory
    where = directory.phase("final", "final")
    write_trials(
        where.trials, [TrialSpec(trial_id="final-00000", setting_id="s", params={"lr": 0.2}, seed=0)]
    )
    where.checkpoints("final-00000").mkdir(parents=True)
    checkpoint = where.checkpoints("final-00000") / "last.pt"
    torch.manual_seed(0)
    torch.save({"step": 1, "state_dict": nn.ModuleDict({"net": nn.Linear(6, 2)}).state_dict()}, checkpoint)
    described = {
        "trial_id": "final-00000",
        "setting_id": "s",
        "seed": 0,
        "step": 1,
        "checkpoint": str(checkpoint),
    }
    result = {
        "score": "accuracy",
        "mode": "max",
        "members": [described | {"weight": 1}],
        "best_single": described,
        "validation": {"best_single": 0.5, "ensemble": 0.5},
        "test": {"best_single": 0.5, "ensemble": 0.5},
    }
    directory.ensemble_result.parent.mkdir(parents=True)
    directory.ensemble_result.write_text(json.dumps(result))
    return directory.path


def test_a_job_of_ones_own(tmp_path: Path) -> None:
    sweep = own_sweep(tmp_path / "a", "return self.net(x)")
    export(sweep, tmp_path / "out")
    inputs = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    weights = torch.load(sweep / "final/checkpoints/final-00000/last.pt", weights_only=True)["state_dict"]
    wanted = torch.softmax(
        nn.functional.linear(torch.tensor(inputs), weights["net.weight"], weights["net.bias"]), 1
    )
    np.savez(tmp_path / "x.npz", x=inputs)
    arguments = [str(tmp_path / each) for each in ("out", "x.npz")]
    done = CliRunner().invoke(main, ["predict", *arguments, "--out", str(tmp_path / "said.parquet")])
    assert "30 samples, 0 with a right answer" in done.stdout
    said = pd.read_parquet(tmp_path / "said.parquet").filter(like="p(")
    np.testing.assert_allclose(said, wanted, atol=1e-6)
    with pytest.raises(UserError, match="prepared by its own code"):
        predict(open_exported(tmp_path / "out"), "test")


def test_what_torch_export_refuses_is_handed_over_as_weights_and_code(tmp_path: Path) -> None:
    sweep = own_sweep(tmp_path / "b", "return self.net(x) if x.sum() > 0 else self.net(-x)")
    manifest = export(sweep, tmp_path / "out")
    network = manifest["networks"]["single"]
    assert network["program"] is None
    assert "data-dependent" in network["why_no_program"]
    assert "data-dependent" in (tmp_path / "out" / "README.md").read_text()
    assert list((tmp_path / "out" / "code").glob("job_*.py"))
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 6), np.float32))
    with pytest.raises(UserError, match=r"has weights alone.*Build the model with your own code.*setup"):
        predict(open_exported(tmp_path / "out"), str(tmp_path / "x.npz"))


# Nobody else's code


class Bomb:
    """An object whose unpickling creates a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, (str(self.file),)


def repacked(content: bytes, changes: dict[str, bytes]) -> bytes:
    """Write a program's archive with other members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            inner = name.partition("/")[2]
            if inner not in changes:
                new.writestr(name, old.read(name))
        for inner, value in changes.items():
            new.writestr(f"program/{inner}", value)
    return buffer.getvalue()


def with_graph(content: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        graph = json.loads(archive.read("program/models/model.json"))
    change(graph)
    return repacked(content, {"models/model.json": json.dumps(graph).encode()})


def nodes(graph: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = graph["graph_module"]["graph"]["nodes"]
    return found


def test_a_malicious_program_runs_nothing(out: Path, tmp_path: Path) -> None:
    content = (out / "models" / "single.pt2").read_bytes()
    # The attack works on torch itself: a program's example inputs are unpickled, come what may.
    bomb = repacked(content, {"data/sample_inputs/model.pt": pickle.dumps(Bomb(tmp_path / "exploded"))})
    (tmp_path / "bomb.pt2").write_bytes(bomb)
    with contextlib.suppress(Exception):
        torch.export.load(tmp_path / "bomb.pt2")
    assert (tmp_path / "exploded").exists(), "torch.export.load has become safe: say so in docs/hand-over.md"
    (tmp_path / "exploded").rmdir()
    with pytest.raises(UserError, match=r"is not loaded: its archive holds a pickle"):
        load_program(bomb, "bomb.pt2")
    assert not (tmp_path / "exploded").exists()


def system_call(graph: dict[str, Any]) -> None:
    nodes(graph)[0]["target"] = "torch.os.system"


def evaluated(graph: dict[str, Any]) -> None:
    sizes = graph["graph_module"]["graph"]["tensor_values"]["linear"]["sizes"]
    sizes[0]["as_expr"]["expr_str"] = "__import__('os').mkdir('x')"


def guard(graph: dict[str, Any]) -> None:
    graph["guards_code"] = ["__import__('os').mkdir('x')"]


def name(graph: dict[str, Any]) -> None:
    nodes(graph)[0]["name"] = "x=__import__('os').mkdir('x')"


def tree(graph: dict[str, Any]) -> None:
    entry = graph["graph_module"]["module_call_graph"][0]["signature"]
    entry["in_spec"] = entry["in_spec"].replace("builtins.dict", "collections.defaultdict")


@pytest.mark.parametrize("change", [system_call, evaluated, guard, name, tree])
def test_a_graph_that_would_run_code_is_refused(out: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = (out / "models" / "single.pt2").read_bytes()
    with pytest.raises(UserError, match="is not loaded: its graph"):
        load_program(with_graph(content, change), "file")


def test_an_archive_with_more_in_it_is_refused(out: Path) -> None:
    content = (out / "models" / "single.pt2").read_bytes()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        config = json.loads(archive.read("program/data/weights/model_weights_config.json"))
    for entry in config["config"].values():
        entry["use_pickle"] = True
    pickled = json.dumps(config).encode()
    for changes, text in (
        ({"data/aotinductor/model/a.so": b"x"}, "holds 'data/aotinductor"),
        ({"data/weights/model_weights_config.json": pickled}, "is pickled"),
        ({"data/weights/model.pt": b"x"}, "holds 'data/weights/model.pt'"),
    ):
        with pytest.raises(UserError, match=text):
            load_program(repacked(content, changes), "file")
    with pytest.raises(UserError, match="no whole archive"):
        load_program(content[: len(content) // 2], "file")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(out: Path) -> None:
    buffer = io.BytesIO((out / "models" / "single.pt2").read_bytes())
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("program/models/model.json", b"{}")
    with pytest.raises(UserError, match="twice"):
        load_program(buffer.getvalue(), "file")


def test_a_network_without_a_program_is_rebuilt(copy: Path) -> None:
    raw = np.random.default_rng(0).normal(size=(5, 1, 8, 8)).astype(np.float32)
    wanted = load_model(open_exported(copy), "single")(raw)

    def change(manifest: dict[str, Any]) -> None:
        manifest["networks"]["single"]["program"] = None

    np.testing.assert_allclose(
        load_model(open_exported(rewritten(copy, change)), "single")(raw), wanted, atol=1e-6
    )

    def own(manifest: dict[str, Any]) -> None:
        manifest["networks"]["single"]["job"]["model"]["target"] = "os.getcwd"

    with pytest.raises(UserError, match=r"needs os\.getcwd.*--own-code"):
        load_model(open_exported(rewritten(copy, own)), "single")


def test_a_folder_names_no_code_to_be_run(copy: Path) -> None:
    def change(manifest: dict[str, Any]) -> None:
        manifest["inputs"]["inputs-0"]["dataset"]["_target_"] = "os.getcwd"

    with pytest.raises(UserError, match=r"come from code of somebody's own, os\.getcwd"):
        predict(open_exported(rewritten(copy, change)), "test")


# Bad input


def test_damaged_folders_are_refused(copy: Path) -> None:
    exported = open_exported(copy)
    program = copy / "models" / "single.pt2"
    whole = program.read_bytes()
    program.write_bytes(whole[:-100])
    with pytest.raises(UserError, match=rf"has {len(whole) - 100} of {len(whole)} bytes"):
        load_model(exported, "single")
    program.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="is not what was exported"):
        load_model(exported, "single")
    program.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_model(exported, "single")
    for change, text in (
        (lambda m: m.update(version=2), "is of version 2, and this package reads up to 1"),
        (lambda m: m.update(format="other"), "no manifest of"),
        (lambda m: m.pop("networks"), "has no 'networks'"),
    ):
        before = (copy / NAME).read_text()
        with pytest.raises(UserError, match=text):
            open_exported(rewritten(copy, change))
        (copy / NAME).write_text(before)

    def outside(manifest: dict[str, Any]) -> None:
        manifest["networks"]["single"]["program"] = "../secret.pt2"
        manifest["files"]["../secret.pt2"] = {"bytes": 0, "sha256": ""}

    with pytest.raises(UserError, match="does not list"):
        load_model(open_exported(rewritten(copy, outside)), "single")


def test_commands_say_what_is_wrong(sweep: Path, out: Path, tmp_path: Path) -> None:
    (tmp_path / "data.xyz").write_text("?")
    (tmp_path / "data.npz").write_bytes(b"PK")
    np.savez(tmp_path / "wide.npz", x=np.zeros((3, 1, 9, 9)))
    np.savez(tmp_path / "objects.npz", x=np.array([None, 1]))
    exported = open_exported(out)
    for arguments, text in (
        ({"data": "nowhere"}, "no such file or folder"),
        ({"data": str(tmp_path / "data.xyz")}, "unknown kind"),
        ({"data": str(tmp_path / "data.npz")}, "not readable as a NumPy archive"),
        ({"data": str(tmp_path / "wide.npz")}, r"samples are \(1, 9, 9\), and the models take \(1, 8, 8\)"),
        ({"data": str(tmp_path / "objects.npz")}, "not readable as a NumPy archive"),
        ({"data": "test", "model": "student"}, "has no model 'student'"),
        ({"data": "test", "out": tmp_path / "said.txt"}, r"neither \*.parquet nor \*.csv"),
        ({"data": "test", "out": tmp_path / "no" / "said.csv"}, "no such folder"),
        ({"data": "test", "calibrated": True}, "has no temperature"),
    ):
        with pytest.raises(UserError, match=text):
            predict(exported, **arguments)
    for folder, text in ((tmp_path, "no exported folder"), (tmp_path / "no", "no such folder")):
        with pytest.raises(UserError, match=text):
            open_exported(folder)
    with pytest.raises(UserError, match=f"orchestrate export {sweep} OUT"):
        open_exported(sweep)
    shown = CliRunner().invoke(main, ["predict", str(out), "nowhere"])
    assert shown.exit_code == 2
    assert shown.stderr.startswith("error: nowhere: there is no such file")


def test_nothing_is_lost_and_nothing_is_half_there(
    sweep: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(UserError, match="is not empty"):
        export(sweep, out)
    with pytest.raises(UserError, match="no sweep's directory"):
        export(tmp_path, tmp_path / "out")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(UserError, match=r"onnx.*not installed.*\[onnx\]"):
        export(sweep, tmp_path / "out", kind="onnx")
    with pytest.raises(UserError, match="this sweep has no student"):
        export(sweep, tmp_path / "out", only=("student",))

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(write._Folder, "write", full)
        with pytest.raises(OSError, match="No space"):
            export(sweep, tmp_path / "out")
    result = sweep / "ensemble" / "ensemble.json"
    moved = result.rename(result.with_suffix(".away"))
    with pytest.raises(UserError, match="its ensemble is not finished"):
        export(sweep, tmp_path / "out")
    moved.rename(result)
    checkpoint = sweep / "final" / "checkpoints" / "final-00001" / "best.pt"
    content = checkpoint.read_bytes()
    checkpoint.write_bytes(content[:1000])
    with pytest.raises(UserError, match=r"best\.pt: cannot be read"):
        export(sweep, tmp_path / "out")
    checkpoint.unlink()
    with pytest.raises(UserError, match="checkpoint is gone"):
        export(sweep, tmp_path / "out")
    checkpoint.write_bytes(content)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


# Programs


def test_a_program_that_says_something_else_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + torch.rand(1)

    with pytest.raises(Refused, match="other outputs"):
        export_program(Noisy(), torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_networks_compute_the_same_without_packing(name: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(name=name, width=4, depth=2, bidirectional=bidirectional)
    model = build_model(settings, (5,), 3, vocabulary=9).eval()
    tokens = torch.randint(1, 9, (7, 5))
    tokens[torch.arange(5) >= torch.arange(7)[:, None]] = 0  # of all lengths, the first one empty
    with torch.no_grad():
        assert isinstance(unpacked(model), Unpacked)
        torch.testing.assert_close(unpacked(model)(tokens), model(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shape", "vocabulary"),
    [
        ({"name": "mlp"}, (6,), 9),
        ({"name": "residual", "batch_norm": True, "depth": 1}, (1, 8, 8), None),
        ({"name": "gru"}, (5, 3), None),
    ],
)
def test_every_network_becomes_a_program(
    settings: dict[str, Any], shape: tuple[int, ...], vocabulary: int | None
) -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(width=4, **settings), shape, 3, vocabulary=vocabulary)
    inputs: NDArray[Any] = np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)
    if vocabulary is not None:
        inputs = np.random.default_rng(0).integers(1, vocabulary, (9, *shape))
        inputs[np.arange(shape[0]) >= np.arange(9)[:, None]] = 0  # of all lengths, the first one empty
    example = torch.from_numpy(inputs)
    run = load_program(program_bytes(export_program(unpacked(model), example[:4])), "file")
    for count in (1, 9):
        torch.testing.assert_close(run(example[:count]), model.eval()(example[:count]), atol=1e-6, rtol=1e-5)
