"""Planning a sweep: from a sweep file to a frozen directory."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.config import freeze, load_frozen, load_sweep
from orchestrator.data.fingerprint import fingerprint
from orchestrator.data.size import dataset_size
from orchestrator.errors import UserError, nearest
from orchestrator.explain import blame
from orchestrator.planning.budget import check_affordable
from orchestrator.planning.expand import expand
from orchestrator.planning.ladder import build_plan
from orchestrator.planning.plan import Plan, plan_to_json
from orchestrator.planning.sampling.prior_studies import read_prior_studies
from orchestrator.planning.sampling.start_from import read_start
from orchestrator.planning.validate import validate
from orchestrator.planning.validate_command import check_program, code_of
from orchestrator.schema import SweepConfig, job_functions, sweep_directory
from orchestrator.space import Parameter
from orchestrator.space.conditions import completed, declared_space
from orchestrator.sweep import lease
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_plan
from orchestrator.sweep.files import write_atomic, write_json
from orchestrator.sweep.snapshot import take_snapshot


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A sweep that is worked out, and where it lives; `existing` when it was frozen before."""

    config: SweepConfig
    space: tuple[Parameter, ...]
    plan: Plan
    directory: SweepDirectory
    existing: bool = False
    # results of past studies to learn from
    prior: tuple[list[dict[str, Any]], ...] = ()
    # the sweep file's name, and what the command line changed in it
    file: str = ""
    overrides: tuple[str, ...] = ()


def work_out(file: Path, overrides: Sequence[str]) -> Planned:
    """Compose, check and plan a sweep file; writes nothing.

    Raises:
        UserError: something in it is wrong, or its directory holds another plan.
    """
    config = load_sweep(file, overrides)
    folder = file.resolve().parent
    with _blaming(file, overrides):
        config = completed(config, folder, file)
        space = declared_space(config, file)
        # Before its settings are counted and checked like all others.
        prior = read_prior_studies(config, space, file)
        config.start_from = prior.entries
        # Relative paths in a sweep file start at its folder, as they do in its tasks.
        with contextlib.chdir(folder):
            size = dataset_size(config.datasets)
            if (content := fingerprint(config.datasets)) is not None:
                # The tasks refuse data that are not those that were planned with.
                config.datasets["fingerprint"] = content
        expanded = expand(config, size, file)
        config = expanded.config
        validate(config, space, size, file)
        # What its files say now is what counts, also when they change or go.
        config.start_from = list(read_start(config.start_from, file))
        notes = (*expanded.notes, *prior.notes)
        plan = build_plan(config, space, size, folder, auto=expanded.auto, notes=notes)
        if expanded.budget is not None:
            check_affordable(plan, expanded.budget, file)
        check_importable(config, folder, file)
    directory = SweepDirectory(sweep_directory(config).resolve())
    if directory.plan.exists():
        _same_plan(directory, config)
        plan = read_plan(directory)
        return Planned(config=config, space=space, plan=plan, directory=directory, existing=True)
    return Planned(
        config=config, space=space, plan=plan, directory=directory, prior=prior.results,
        file=file.name, overrides=tuple(overrides),
    )  # fmt: skip


@contextlib.contextmanager
def _blaming(file: Path, overrides: Sequence[str]) -> Iterator[None]:
    """Name the command line in errors about a key that was given there, and the file in all others."""
    try:
        yield
    except UserError as error:
        if error.file not in (None, file):
            raise
        where = blame(error.key, overrides, file)
        raise UserError(error.problem, file=where, key=error.key, hint=error.hint) from None


def freeze_plan(planned: Planned) -> None:
    """Write the plan down; plan.json comes last, so a crash in between leaves no half-planned sweep.

    Raises:
        UserError: the directory is not writable.
        Busy: another process is planning it right now.
    """
    directory = planned.directory
    try:
        directory.path.mkdir(parents=True, exist_ok=True)
        with lease.hold(directory.lease, "orchestrate plan"):
            if directory.plan.exists():
                _same_plan(directory, planned.config)
                return
            folder = Path(planned.plan.folder)
            take_snapshot(folder, directory, code_of(planned.config, folder))
            directory.prior.unlink(missing_ok=True)
            if planned.prior:
                write_json(directory.prior, {"studies": planned.prior})
            write_json(directory.asked, {"file": planned.file, "overrides": planned.overrides})
            write_atomic(directory.config, freeze(planned.config))
            write_json(directory.plan, plan_to_json(planned.plan))
    except OSError as error:
        raise UserError(
            f"can't be written to ({error.strerror or error})",
            file=directory.path,
            hint="Choose another place: dir=/some/folder",
        ) from None


def _same_plan(directory: SweepDirectory, config: SweepConfig) -> None:
    """Refuse to go on in the directory of another plan; the words name what differs."""
    frozen = load_frozen(directory.config)
    if freeze(frozen) == freeze(config):
        return
    before, now = _flat(freeze(frozen)), _flat(freeze(config))
    differing = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    examples = "; ".join(f"{key}: {before.get(key)} there, {now.get(key)} here" for key in differing[:3])
    raise UserError(
        f"holds another plan ({examples}{'; …' if len(differing) > 3 else ''})",
        file=directory.path,
        hint=f"Go on with it: orchestrate run {_short(directory.path)}; or name this one anew: name=...",
    )


def _short(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)


def _flat(text: str) -> dict[str, object]:
    """Return a YAML text's leaves by their dotted paths."""
    from omegaconf import OmegaConf

    return dict(_leaves(OmegaConf.to_container(OmegaConf.create(text), resolve=False), ""))


def _leaves(node: object, path: str) -> Iterator[tuple[str, object]]:
    if not isinstance(node, dict) or not node:
        yield path, node
        return
    for key, value in node.items():
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def check_importable(config: SweepConfig, folder: Path, file: Path) -> None:
    """Find the job's functions or program without running any: the module's file, and the name in its text.

    Raises:
        UserError: the module, the function or the program is not there.
    """
    if config.jobs.command is not None:
        check_program(config, folder, file)
    for key, path in job_functions(config.jobs).items():
        module, _, name = path.rpartition(".")
        source = _source(module, folder)
        if source is None:
            candidates = [p.stem for p in folder.glob("*.py")]
            raise UserError(
                f"'{path}' can't be imported: there is no module '{module}' in {folder}, nor installed",
                file=file, key=key, hint=nearest(module, candidates) if candidates else "",
            )  # fmt: skip
        if source.suffix == ".py":
            names = _names(source, file, key)
            if names is not None and name not in names:
                raise UserError(
                    f"'{path}' can't be imported: {source} has no '{name}'",
                    file=file, key=key, hint=nearest(name, names),
                )  # fmt: skip


def _source(module: str, folder: Path) -> Path | None:
    """Return the file of a module, the user's own folder first."""
    inside = folder.joinpath(*module.split("."))
    for candidate in (inside.with_suffix(".py"), inside / "__init__.py"):
        if candidate.is_file():
            return candidate
    path_before = list(sys.path)
    try:
        # A parent package is imported by find_spec; ours are light, and no package's __init__ is the job.
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    finally:
        sys.path[:] = path_before
    return Path(spec.origin) if spec and spec.origin else None


def _names(source: Path, file: Path, key: str) -> set[str] | None:
    """Return the names a module binds at its top level; None when a star import hides some."""
    try:
        tree = ast.parse(source.read_text())
    except SyntaxError as error:
        raise UserError(
            f"{source.name} line {error.lineno} is not Python: {error.msg}", file=file, key=key
        ) from None
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any(alias.name == "*" for alias in node.names):
                return None
            names |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names
