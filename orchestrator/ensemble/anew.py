"""Combining anew from the stored predictions: nothing is predicted again, and what was measured stays."""

from __future__ import annotations

from typing import Any

from orchestrator.ensemble.choose import as_text, decide, read_choice
from orchestrator.ensemble.looks import digest
from orchestrator.ensemble.measure import measure
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import create_exclusive, write_atomic


def preview(directory: SweepDirectory, config: SweepConfig) -> dict[str, Any]:
    """Return what would be chosen, from validation data alone; nothing is written, no test label is read.

    Raises:
        UserError: the sweep's own ensemble is not chosen yet, or predictions are damaged.
    """
    return decide(directory, config, former=read_choice(directory))


def combine_anew(directory: SweepDirectory, config: SweepConfig) -> dict[str, Any]:
    """Choose with other settings, measure that, and keep the former files as ensemble-0001.json and on.

    The soup and the students stay those of the sweep's own choice.

    Args:
        directory: of the sweep, its ensemble measured.
        config: with the other settings.

    Returns:
        The content of the new `ensemble.json`.

    Raises:
        UserError: the ensemble is not measured yet, or predictions are damaged.
    """
    if not directory.ensemble_result.exists():
        raise UserError(
            "the sweep's own ensemble is not measured yet",
            file=directory.ensemble_result,
            hint=f"Go on: orchestrate run {directory.path}",
        )
    former = read_choice(directory)
    chosen = decide(directory, config, former=former)
    if digest(chosen) != digest(former):
        _keep_former(directory)
        write_atomic(directory.choice, as_text(chosen))
    return measure(directory, config)


def meaning(count: int) -> str:
    """Say what it means that so many choices were measured on test labels."""
    if count <= 1:
        return "The labels of the test data were read once."
    return (
        f"The labels of the test data have now been read for {count} choices: who takes the best of them "
        "chooses by test data, and its figures are too good. Only the first one's are clean."
    )


def _keep_former(directory: SweepDirectory) -> None:
    """Copy what was chosen and measured under the next free number; the files themselves stay for now."""
    folder = directory.choice.parent
    number = 1 + max((int(path.stem[-4:]) for path in folder.glob("ensemble-[0-9]*.json")), default=0)
    while not create_exclusive(folder / f"ensemble-{number:04d}.json", directory.ensemble_result.read_text()):
        number += 1
    write_atomic(folder / f"choice-{number:04d}.json", directory.choice.read_text())
