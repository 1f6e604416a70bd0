"""Config groups that a sweep chooses from: their options, read once and frozen with the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.errors import UserError, nearest
from orchestrator.schema import SweepConfig
from orchestrator.space.grammar import choice_value, list_choices
from orchestrator.space.names import options
from orchestrator.space.parameter import CHOICE, Parameter


def with_options(config: SweepConfig, space: tuple[Parameter, ...], folder: Path) -> SweepConfig:
    """Complete `jobs.groups` by the option files beside the sweep file, and by choices that are lists.

    Args:
        config: the composed sweep.
        space: its parameters.
        folder: of the sweep file; `optimizer/sgd.yaml` in it is the option sgd of the parameter optimizer.

    Raises:
        UserError: an option's file is not readable.
    """
    groups = dict(config.jobs.groups)
    for parameter in space:
        if parameter.kind != CHOICE:
            continue
        found = {
            **_listed(config.space.get(parameter.name), parameter),
            **_files(parameter, folder),
            **options(config, parameter.name),
        }
        if found:
            groups[parameter.name] = found
    return replace(config, jobs=replace(config.jobs, groups=groups))


def check_options(
    config: SweepConfig, space: tuple[Parameter, ...], file: Path | str, folder: Path | None = None
) -> None:
    """Check that each choice of a group has its option.

    Args:
        config: the sweep with all options in it.
        space: its parameters.
        file: for messages.
        folder: whose option files a message may name too; None once the plan is frozen.

    Raises:
        UserError: one has none, or `jobs.groups` is not made of mappings.
    """
    for name, given in config.jobs.groups.items():
        if not isinstance(given, dict):
            raise UserError(
                "the options of a group are a mapping", file=file, key=f"jobs.groups.{name}",
                hint="Write {sgd: {lr: 0.1}, adam: {lr: 0.001}}",
            )  # fmt: skip
    for parameter in space:
        if not (found := options(config, parameter.name)):
            continue
        if parameter.kind != CHOICE:
            raise UserError(
                "chooses a config group, so it is a choice, not a range", file=file,
                key=f"space.{parameter.name}", hint=f"Write choice({', '.join(found)})",
            )  # fmt: skip
        for value in parameter.values:
            if str(value) not in found:
                place = parameter.name.replace(".", "/")
                files = [path.stem for path in (folder / place).glob("*.yaml")] if folder else []
                near = nearest(str(value), {*found, *files})
                raise UserError(
                    f"there is no option '{value}'", file=file, key=f"space.{parameter.name}",
                    hint=f"{near}{'' if near.endswith('?') else '.'} Options stand under "
                    f"jobs.groups.{parameter.name} or in {place}/{value}.yaml",
                )  # fmt: skip


def _listed(declared: Any, parameter: Parameter) -> dict[str, Any]:
    """Return choices as options when lists or mappings are among them, by what a setting holds for them."""
    listed = {str(choice_value(item)): item for item in list_choices(declared)}
    return {**{str(value): value for value in parameter.values}, **listed} if listed else {}


def _files(parameter: Parameter, folder: Path) -> dict[str, Any]:
    place = folder.joinpath(*parameter.name.split("."))
    files = {str(value): place / f"{value}.yaml" for value in parameter.values if isinstance(value, str)}
    return {option: _read(path) for option, path in files.items() if "/" not in option and path.is_file()}


def _read(path: Path) -> Any:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except Exception as error:
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", file=path) from None
    if isinstance(content, dict) and "defaults" in content:
        raise UserError(
            "a defaults list is not followed in the options of a group", file=path, key="defaults",
            hint="Write the keys out",
        )  # fmt: skip
    return content
