"""What is handed over runs nobody else's code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exported import model_copy, rewritten, small_model
from orchestrator.errors import UserError
from orchestrator.export.manifest import open_exported
from orchestrator.export.predict import predict
from orchestrator.export.read import load_model
from orchestrator.export.vetting import load_program

out = pytest.fixture(scope="module")(small_model)
copy = pytest.fixture(model_copy)


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
