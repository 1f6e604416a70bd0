"""Run the notebook on a sweep and keep what it shows, so that it can be read where nothing runs.

    python notebooks/show.py sweeps/digits

Every figure is kept twice: as Plotly's own description, which JupyterLab and VS Code draw, and as a picture,
which pages such as GitHub's show that draw nothing. Pictures are made by Chromium, which has to be installed.
What differs from run to run and is no result (times, paths of this machine) is left out.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import plotly.io
from nbclient import NotebookClient
from PIL import Image

NOTEBOOK = Path(__file__).with_name("analysis.ipynb")
PLOTLY = "application/vnd.plotly.v1+json"
WIDTH = 960
COLOURS = 128  # of a picture: figures have few, and this is a third of the size
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> None:
    """Run the notebook and write it back with its outputs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", type=Path, help="the directory of a finished sweep")
    sweep = parser.parse_args().sweep.resolve()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit("notebooks/show.py: needs Chromium to make pictures of the figures")
    with tempfile.TemporaryDirectory() as scratch:
        notebook = executed(sweep, Path(scratch))
        for output in outputs(notebook):
            if PLOTLY in output.get("data", {}):
                figure = output["data"][PLOTLY]
                output["data"]["image/png"] = picture(figure, browser, Path(scratch))
    tidy(notebook)
    nbformat.write(notebook, NOTEBOOK)


def executed(sweep: Path, scratch: Path) -> nbformat.NotebookNode:
    """Return the notebook after running where the sweep is found as `sweeps/NAME`, as in the text."""
    folder = scratch / "here"
    (folder / "sweeps").mkdir(parents=True)
    (folder / "sweeps" / sweep.name).symlink_to(sweep)
    os.environ["SWEEP"] = f"sweeps/{sweep.name}"
    os.environ["PYTHONPATH"] = str(NOTEBOOK.parents[1])
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    return notebook


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    """Return the outputs of all cells."""
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def picture(figure: dict[str, Any], browser: str, scratch: Path) -> str:
    """Return a figure as a PNG in base64, on white."""
    made = plotly.io.from_json(json.dumps({"data": figure["data"], "layout": figure["layout"]}))
    made.update_layout(width=WIDTH, paper_bgcolor="white")
    page, shot = scratch / "figure.html", scratch / "figure.png"
    body = made.to_html(include_plotlyjs=True, full_html=False, config={"displayModeBar": False})
    page.write_text(f"<body style='margin:0'>{body}</body>")
    flags = "--headless --no-sandbox --disable-gpu --hide-scrollbars --virtual-time-budget=4000"
    size = f"--window-size={WIDTH},{made.layout.height or 450}"
    command = [browser, *flags.split(), size, f"--screenshot={shot}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    packed = io.BytesIO()
    with Image.open(shot) as image:
        image.convert("RGB").quantize(COLOURS).save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def tidy(notebook: nbformat.NotebookNode) -> None:
    """Leave out when cells ran and by which Python, and count them anew."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.metadata, cell.execution_count = {}, number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number


if __name__ == "__main__":
    main()
