"""The hand-over: damaged folders and wrong commands are refused, and nothing is half there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from exported import model_copy, rewritten, small_model, small_sweep
from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.export import write
from orchestrator.export.manifest import NAME, open_exported
from orchestrator.export.predict import predict
from orchestrator.export.read import load_model
from orchestrator.export.write import export

sweep = pytest.fixture(scope="module")(small_sweep)
out = pytest.fixture(scope="module")(small_model)
copy = pytest.fixture(model_copy)


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
