"""The notebook runs from top to bottom on a sweep."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from made_sweep import make_sweep
from orchestrator.results.compact import compact

ROOT = Path(__file__).parents[1]
PLOTLY = "application/vnd.plotly.v1+json"


def executed(sweep: Path | None, folder: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook after running in a folder, in a kernel of this environment."""
    if sweep is None:
        monkeypatch.delenv("SWEEP", raising=False)
    else:
        monkeypatch.setenv("SWEEP", str(sweep))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    notebook = nbformat.read(ROOT / "notebooks" / "analysis.ipynb", as_version=4)
    client = NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_the_notebook_draws_a_finished_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(tmp_path / "s", trials=(20, 8, 4), finals=3)
    compact(sweep)
    shown = outputs(executed(sweep, tmp_path, monkeypatch))
    assert sum(PLOTLY in output.get("data", {}) for output in shown) == 5
    assert not [output for output in shown if output.get("name") == "stderr"]
    tables = "".join(output.get("data", {}).get("text/html", "") for output in shown)
    assert "best single model" in tables
    assert "ValueError: bad" in tables


def test_the_notebook_finds_a_running_sweep_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compact(make_sweep(tmp_path / "sweeps" / "digits", trials=(20, 8), finals=3, done=0.5, hostile=True))
    folder = tmp_path / "some" / "where"
    folder.mkdir(parents=True)
    shown = outputs(executed(None, folder, monkeypatch))
    assert any("at coarse: 16 of 20" in output.get("text", "") for output in shown)
    assert any("no ensemble yet" in output.get("text", "") for output in shown)


def test_the_notebook_is_kept_without_paths_of_a_machine() -> None:
    text = (ROOT / "notebooks" / "analysis.ipynb").read_text()
    assert "/root/" not in text
    assert "/home/" not in text
