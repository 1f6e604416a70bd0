"""A network's program as ONNX, with the packages of the extra `onnx`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from orchestrator.errors import UserError, how_to_install
from orchestrator.export.program import Refused, first_line, quiet


def check_installed() -> None:
    """Refuse ONNX where its packages are not installed.

    Raises:
        UserError: as said.
    """
    for package in ("onnx", "onnxscript"):
        try:
            import_module(package)
        except ImportError:
            raise UserError(
                f"ONNX needs {package}, which is not installed",
                key="--format",
                hint=f"{how_to_install('onnx')}, or say --format torch-export",
            ) from None


def onnx_bytes(program: torch.export.ExportedProgram) -> bytes:
    """Translate a program to ONNX: the content of an *.onnx file, with its weights.

    Raises:
        Refused: the network has an operation that ONNX does not.
    """
    try:
        with quiet():
            translated = torch.onnx.export(
                program, dynamo=True, external_data=False, input_names=["inputs"], output_names=["outputs"]
            )
            assert translated is not None, "without a file it is returned"
            with TemporaryDirectory() as folder:
                path = Path(folder) / "program.onnx"
                translated.save(path)
                return path.read_bytes()
    except Exception as error:  # whatever one of its many passes raises
        raise Refused(first_line(error)) from error
