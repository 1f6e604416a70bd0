"""What the shell may complete: sweeps, stages, columns, overrides. Light, and never an error."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

SWEEPS = Path("sweeps")  # where `plan` puts them unless told otherwise
TRAINED = ("stage", "final")  # kinds of phases that have trials
_PLAIN = re.compile(r"[\w./:@%+,=~-]*")

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]


def quietly(find: Callable[[click.Context, str], list[CompletionItem[str]]]) -> Complete:
    """Return a function for click's `shell_complete`; what it can't find out it does not complete."""

    @functools.wraps(find)
    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            return find(ctx, incomplete)
        # A message in the middle of somebody's typing would help nobody.
        except Exception:
            return []

    return complete


@quietly
def directories(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the directory of a sweep, those planned last first; elsewhere, a folder."""
    if ctx.params.get("every"):  # a folder of sweeps is asked for
        return [CompletionItem(incomplete, type="dir")]
    return _items(_sweeps(incomplete)) or [CompletionItem(incomplete, type="dir")]


@quietly
def targets(_: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Complete a sweep file or the directory of a sweep; elsewhere, a file."""
    files = [
        str(path)
        for path in sorted(_folder(incomplete).iterdir())
        if path.suffix in (".yaml", ".yml") and path.is_file() and str(path).startswith(incomplete)
    ]
    return _items([*files, *_sweeps(incomplete)]) or [CompletionItem(incomplete, type="file")]


@quietly
def stages(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the name of a stage of the sweep that was typed before."""
    phases = json.loads((_typed(ctx) / "plan.json").read_text())["phases"]
    names = [phase["name"] for phase in phases if phase["kind"] in TRAINED]
    return _items(name for name in names if name.startswith(incomplete))


@quietly
def columns(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the last one of some columns of the results of the sweep that was typed before."""
    from orchestrator.report.columns import GROUPS

    before, comma, begun = incomplete.rpartition(",")
    names = _columns(_typed(ctx), curves=bool(ctx.params.get("curves")))
    found = [name for name in names if name.startswith(begun)]
    # As they may be called too; not before something was typed, since each would be there twice.
    found += [
        name.removeprefix(group)
        for group in GROUPS
        for name in names
        if begun and name.startswith(group + begun)
    ]
    return _items(before + comma + name for name in found)


@quietly
def overrides(ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
    """Complete the next part of a key of a sweep file, or the value of one that has few."""
    typed = [str(word) for word in ctx.params.get("overrides") or ()]
    key, equals, begun = incomplete.partition("=")
    if equals:
        return _items(f"{key}={value}" for value in _values(ctx, key) if value.startswith(begun))
    # bash takes `key=va` apart, and what it wants is the end alone.
    if typed[-1:] == ["="] and len(typed) > 1:
        return _items(value for value in _values(ctx, typed[-2]) if value.startswith(incomplete))
    if typed and "=" not in typed[-1] and not incomplete:
        return _items(_values(ctx, typed[-1]))
    parent, dot, begun = incomplete.rpartition(".")
    return _items(
        parent + dot + name for name in _keys(ctx, parent.split(".") if dot else []) if name.startswith(begun)
    )


def _items(values: Iterable[str]) -> list[CompletionItem[str]]:
    """Return what may be put on a command line: what a shell would run or take apart stays away from it."""
    return [CompletionItem(value) for value in values if _PLAIN.fullmatch(value)]


def _folder(incomplete: str) -> Path:
    return Path(incomplete) if incomplete.endswith("/") else Path(incomplete).parent


def _sweeps(incomplete: str) -> list[str]:
    """List directories of sweeps: where somebody types, and in `sweeps`, also by their names alone."""
    where = [_folder(incomplete).expanduser()]
    if "/" not in incomplete:
        where.append(SWEEPS)
    plans = {plan for folder in where for plan in folder.glob("*/plan.json")}
    if not incomplete:
        plans |= set(Path().glob("plan.json"))
    newest = sorted(plans, key=lambda plan: -plan.stat().st_mtime)
    shown = {str(plan.parent): plan.parent.name for plan in newest}
    if incomplete.startswith("~"):
        shown = {path.replace(str(Path.home()), "~", 1): name for path, name in shown.items()}
    typed = incomplete.removeprefix("./")
    found = [path for path, name in shown.items() if path.startswith(typed) or name.startswith(typed)]
    return [f"./{path}" for path in found] if incomplete.startswith("./") else found


def _typed(ctx: click.Context) -> Path:
    """Return the directory or file that was typed before."""
    given = [ctx.params.get(name) for name in ("directory", "target", "file")]
    # After an option that still lacks its value click has told no arguments apart.
    return Path(next(one for one in (*given, *ctx.args) if one)).expanduser()


def _columns(sweep: Path, *, curves: bool) -> list[str]:
    """Return the columns of a sweep's results, from the files that are there."""
    import pyarrow.parquet as pq

    table = "curves" if curves else "trials"
    found = ["stage"]
    for path in sorted((sweep / "results" / table).glob("stage=*/*.parquet")):
        found += pq.read_schema(path).names
    return list(dict.fromkeys(found))


def _keys(ctx: click.Context, path: Sequence[str]) -> Iterator[str]:
    """Give the keys below a path of a sweep file: `name=` and, where more is below it, `stages.`"""
    import typing

    from orchestrator.schema import GROUPS, SweepConfig

    config: Any = SweepConfig
    entry = False  # what comes next is a name of the user's, as below `stages`
    for key in path:
        if entry:
            entry = False
            continue
        kind = typing.get_type_hints(config)[key]
        config, entry = _section(kind), typing.get_origin(kind) is dict
    if entry:
        yield from (f"{name}." for name in _stages(_typed(ctx)) if list(path) == ["stages"])
        return
    for key, kind in typing.get_type_hints(config).items():
        if not path and key in GROUPS:
            yield f"{key}="
        yield f"{key}." if _section(kind) or typing.get_origin(kind) is dict else f"{key}="


def _section(kind: Any) -> Any:
    """Return the dataclass that a key's type is or holds; None where there is none."""
    import dataclasses
    import typing

    options = (kind, *typing.get_args(kind))
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _stages(target: Path) -> list[str]:
    """Return the names of a sweep file's stages."""
    from omegaconf import OmegaConf

    config = OmegaConf.to_container(OmegaConf.load(target))
    return [str(name) for name in config["stages"]] if isinstance(config, dict) else []


def _values(ctx: click.Context, key: str) -> list[str]:
    """Return the values that a key can have, where they are few: a catalogue's files, a schema's words."""
    from orchestrator import schema
    from orchestrator.config import catalogues

    if key in schema.GROUPS:
        folders = [catalogues() / key, _typed(ctx).parent / key]
        return sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    last = key.rpartition(".")[2]
    words = {
        "sampler": schema.SAMPLERS, "class_rule": schema.CLASS_RULES, "combine": schema.COMBINE,
        "mode": ("max", "min"), "executor": ("slurm", "local"),
    }  # fmt: skip
    return list(words.get(last, ()))
