"""The notebook runs from top to bottom on a sweep, and is kept with what it shows."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import nbformat
import plotly.io
import pytest
from nbclient import NotebookClient

from made_sweep import make_sweep
from orchestrator.results.compact import compact

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "notebooks" / "analysis.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"
FIGURES = 10
AGAIN = "run: python notebooks/show.py SWEEP"


def executed(sweep: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook after running in a folder, in a kernel of this environment."""
    monkeypatch.setenv("SWEEP", str(sweep))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def printed(shown: list[nbformat.NotebookNode]) -> str:
    return "".join(output.get("text", "") for output in shown)


def test_the_notebook_draws_a_finished_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path / "it's a sweep", trials=(20, 8, 4), finals=3)
    compact(sweep)
    shown = outputs(executed(sweep, tmp_path, monkeypatch))
    figures = [output["data"][PLOTLY] for output in shown if PLOTLY in output.get("data", {})]
    assert len(figures) == FIGURES
    assert all(figure["data"] for figure in figures)
    assert not [output for output in shown if output.get("name") == "stderr"]
    tables = "".join(output.get("data", {}).get("text/html", "") for output in shown)
    assert "best single model" in tables
    assert "ValueError: bad" in printed(shown)
    by_duckdb, by_polars = (output["data"]["text/plain"] for output in shown[-2:])
    assert re.search(r"coarse +20 ", by_duckdb)
    assert re.search(r"coarse +┆ 1 +┆ 0\.\d+", by_polars)


def test_the_notebook_finds_a_running_sweep_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compact(make_sweep(tmp_path / "sweeps" / "digits", trials=(20, 8), finals=3, done=0.5, hostile=True))
    folder = tmp_path / "some" / "where"
    folder.mkdir(parents=True)
    monkeypatch.delenv("SWEEP", raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(plotly.io.renderers, "default", "plotly_mimetype")  # what the first cell sets
    # In this process, which is much faster than in a kernel.
    names: dict[str, Any] = {"display": repr}
    for cell in nbformat.read(NOTEBOOK, as_version=4).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, cell.id, "exec"), names)
    said = capsys.readouterr().out
    assert "at coarse: 16 of 20" in said
    assert "no ensemble yet" in said


def test_the_notebook_is_kept_with_its_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    silent = [cell.id for cell in notebook.cells if cell.cell_type == "code" and not cell.outputs]
    assert not silent, f"cells without outputs; {AGAIN}"
    shown = outputs(notebook)
    assert not [one for one in shown if one.output_type == "error" or one.get("name") == "stderr"], AGAIN
    figures = [one["data"] for one in shown if PLOTLY in one.get("data", {})]
    assert len(figures) == FIGURES, AGAIN
    assert all("image/png" in data for data in figures), f"a figure without its picture; {AGAIN}"
    assert NOTEBOOK.stat().st_size < 1_500_000


def test_the_notebook_is_kept_without_what_differs_between_machines(show: ModuleType) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    tidied = copy.deepcopy(notebook)
    show.tidy(tidied)
    assert notebook == tidied, AGAIN
    for output in outputs(notebook):
        output.get("data", {}).pop("image/png", None)  # whose letters may be any
    paths = re.findall(r"/(?:root|home|tmp|Users|opt|usr|mnt|work)/[^\s\"<]*", json.dumps(notebook))
    assert not paths, AGAIN


@pytest.fixture
def show() -> ModuleType:
    spec = importlib.util.spec_from_file_location("show", ROOT / "notebooks" / "show.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
