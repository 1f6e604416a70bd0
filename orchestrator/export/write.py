"""`orchestrate export`: a finished sweep's models as a folder that stands alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from safetensors.numpy import save as arrays_bytes
from safetensors.torch import save as tensors_bytes

import orchestrator
from orchestrator.config import load_frozen
from orchestrator.errors import UserError
from orchestrator.export.card import card
from orchestrator.export.folder import new_folder, refuse_taken
from orchestrator.export.inputs import described
from orchestrator.export.manifest import CARD, FORMAT, NAME, VERSION, list_files
from orchestrator.export.networks import Network, build_network
from orchestrator.export.onnx_program import check_installed, onnx_bytes
from orchestrator.export.preprocessing import store
from orchestrator.export.program import Refused, export_program, program_bytes
from orchestrator.export.subjects import Chosen, Subject, read_chosen
from orchestrator.planning.plan import Plan
from orchestrator.schema import SweepConfig, job_functions
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_plan
from orchestrator.sweep.provenance import git_commit
from orchestrator.worker.job import enter

TORCH, ONNX = ("torch-export", "onnx")
_PACKAGES = ("torch", "numpy", "scikit-learn", "safetensors")
# What ensemble.json says that goes along as it is.
_FIGURES = (
    *("score", "mode", "combine", "validation", "test", "test_intervals", "gains", "methods", "nested"),
    *("other_scores", "calibration", "coverage", "ablation", "candidates", "student"),
    *("validation_samples", "test_samples", "test_looks"),
)


@dataclass(slots=True)
class _Folder:
    """A folder that is being written, and what its manifest says so far."""

    path: Path
    kind: str
    networks: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def write(self, name: str, content: bytes) -> str:
        """Write a file, flushed to disk, and return its name."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "wb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        return name


def export(
    sweep: Path,
    out: Path,
    *,
    kind: str = TORCH,
    only: Sequence[str] = (),
    note: Callable[[str], object] = lambda text: None,
) -> dict[str, Any]:
    """Write a finished sweep's models to a new folder, whole or not at all.

    Args:
        sweep: its directory.
        out: the folder, which is not there or empty.
        kind: of the programs: TORCH or ONNX.
        only: models to be written (single, ensemble, soup, student); none: all there are.
        note: gets a sentence for each step.

    Returns:
        The manifest.

    Raises:
        UserError: the sweep is not finished, `out` is taken, or a checkpoint or the data are not what they
            were.
    """
    directory, out = SweepDirectory(sweep.resolve()), out.resolve()
    plan = read_plan(directory)
    config = load_frozen(directory.config)
    refuse_taken(out)
    if kind == ONNX:
        check_installed()
    with _inside(directory, plan), new_folder(out) as path:
        chosen = read_chosen(directory, config, plan, tuple(only))
        folder = _Folder(path, kind)
        classes = _write_networks(folder, chosen, config, note)
        if any(each["program"] is None for each in folder.networks.values()) and _has_code(directory):
            shutil.copytree(directory.snapshot, path / "code")
        manifest: dict[str, Any] = _without(
            directory.path, _manifest(folder, chosen, directory, config, plan, classes)
        )
        folder.write(CARD, card(manifest, config).encode())
        manifest["files"] = list_files(path)
        folder.write(NAME, (json.dumps(manifest, indent=1) + "\n").encode())
    return manifest


def _write_networks(
    folder: _Folder, chosen: Chosen, config: SweepConfig, note: Callable[[str], object]
) -> tuple[str, ...]:
    """Write each network's program, weights and transform; return the classes' names."""
    classes: tuple[str, ...] = ()
    for number, subject in enumerate(chosen.subjects, start=1):
        note(f"{subject.name} ({number} of {len(chosen.subjects)})")
        built = build_network(subject, config, is_classes=_task(chosen) == "classification")
        if classes and built.classes and built.classes != classes:
            raise UserError(
                f"tells {', '.join(built.classes)} apart, the others {', '.join(classes)}",
                file=subject.checkpoint,
            )
        classes = classes or built.classes
        _write_network(folder, subject, built)
    return classes


def _write_network(folder: _Folder, subject: Subject, built: Network) -> None:
    program, why = None, built.why
    if built.module is not None and built.example is not None:
        try:
            traced = export_program(built.module, built.example)
            if folder.kind == ONNX:
                program = folder.write(f"models/{subject.name}.onnx", onnx_bytes(traced))
            else:
                program = folder.write(f"models/{subject.name}.pt2", program_bytes(traced))
        except Refused as refused:
            why = str(refused)
    weights = tensors_bytes({name: each.contiguous().clone() for name, each in built.state.items()})
    folder.networks[subject.name] = {
        "program": program,
        "why_no_program": why or None,
        "weights": folder.write(f"models/{subject.name}.safetensors", weights),
        "outputs": built.outputs,
        "scale": built.scale,
        "center": built.center,
        "inputs": _write_inputs(folder, built),
        "from": {name: each for name, each in subject.described.items() if name != "checkpoint"},
        "job": dict(built.job),
    }


def _without(sweep: Path, value: Any) -> Any:
    """Return what names no place on this machine for a file of the sweep: these stay behind."""
    if isinstance(value, dict):
        return {name: _without(sweep, each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without(sweep, each) for each in value]
    if isinstance(value, str) and Path(value).is_relative_to(sweep):
        return str(Path("SWEEP") / Path(value).relative_to(sweep))
    return value


def _write_inputs(folder: _Folder, built: Network) -> str:
    """Write how samples are prepared for a network, once for all that have it alike; return its name."""
    entry = described(built)
    for name, known in folder.inputs.items():
        if known["same"] == entry["same"]:
            return name
    name = f"inputs-{len(folder.inputs)}"
    if built.data is not None:
        content, arrays = store(built.data.transform)
        entry["transform"] = {
            "steps": folder.write(f"{name}/transform.json", (json.dumps(content, indent=1) + "\n").encode()),
            "arrays": folder.write(f"{name}/transform.safetensors", arrays_bytes(arrays)),
        }
    folder.inputs[name] = entry
    return name


def _has_code(directory: SweepDirectory) -> bool:
    return directory.snapshot.is_dir() and any(directory.snapshot.iterdir())


def _task(chosen: Chosen) -> str:
    return str(chosen.result.get("task", "classification"))


def _manifest(
    folder: _Folder,
    chosen: Chosen,
    directory: SweepDirectory,
    config: SweepConfig,
    plan: Plan,
    classes: tuple[str, ...],
) -> dict[str, Any]:
    result = chosen.result
    models: dict[str, dict[str, Any]] = {
        name: {"networks": list(networks)} for name, networks in chosen.models.items()
    }
    if "ensemble" in models:
        weights = [float(each["weight"]) for each in result["members"]]
        models["ensemble"] |= {
            "weights": [weight / sum(weights) for weight in weights],
            "combination": result.get("combination"),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "orchestrator": orchestrator.__version__,
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "sweep": {"name": plan.name, "uid": plan.uid, "code": git_commit(directory)},
        "job": job_functions(config.jobs),
        "task": _task(chosen),
        "classes": list(classes),
        "models": models,
        "networks": folder.networks,
        "inputs": folder.inputs,
        "temperature": result.get("temperature") or {},
        "figures": {name: result[name] for name in _FIGURES if name in result},
    }


@contextlib.contextmanager
def _inside(directory: SweepDirectory, plan: Plan) -> Iterator[None]:
    """See the user's code and folder as the sweep was planned, and come back."""
    before = Path.cwd()
    try:
        enter(directory, plan)
        yield
    finally:
        os.chdir(before)
