"""The packages of other tools, which are extras: not there unless somebody asked for them."""

from __future__ import annotations

import importlib.util

from orchestrator.errors import UserError, how_to_install

# By the name of the extra, which is that of the module: the tool's own name, and the package's.
_TOOLS = {"mlflow": ("MLflow", "mlflow-skinny"), "tensorboard": ("TensorBoard", "tensorboard")}


def check_installed(extra: str) -> None:
    """Refuse to write for a tool whose package is not there.

    Args:
        extra: of this package, named as the tool is in `--to`; one that is no extra is always there.

    Raises:
        UserError: with how to install it.
    """
    if extra in _TOOLS and importlib.util.find_spec(extra) is None:
        tool, package = _TOOLS[extra]
        raise UserError(f"writing for {tool} needs the package {package}", hint=how_to_install(extra))
