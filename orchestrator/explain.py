"""What is wrong with a sweep file or an override, in words: Hydra and OmegaConf speak to programmers."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, nearest

COMMAND_LINE = "command line"
_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def check_shape(node: dict[str, Any], schema: type, file: Path | str, prefix: str = "") -> None:
    """Check that a mapping has the schema's keys, and mappings where it has them; no value is looked at.

    Raises:
        UserError: an unknown key, or something else where a mapping belongs.
    """
    hints = typing.get_type_hints(schema)
    for name, value in node.items():
        if name not in hints:
            raise unknown_key(f"{prefix}{name}", hints, file)
        _check_mapping(value, hints[name], file, f"{prefix}{name}")


def _check_mapping(value: Any, kind: Any, file: Path | str, key: str) -> None:
    inner = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
    if inner is None and not dataclasses.is_dataclass(kind):
        return
    if isinstance(value, str) and "${" in value:
        return
    if not isinstance(value, dict):
        group = isinstance(value, str) and key in ("jobs", "datasets", "slurm")
        hint = f"Choose a catalogue's entry in the defaults list: `- {key}: {value}`" if group else ""
        raise UserError(_instead(value, "a mapping"), file=file, key=key, hint=hint)
    if inner is None:
        check_shape(value, kind, file, key + ".")
        return
    for name, item in value.items():
        _check_mapping(item, inner, file, f"{key}.{name}")


def unknown_key(key: str, valid: Iterable[str], file: Path | str) -> UserError:
    """Return the error for a key that the schema does not have."""
    name = key.rpartition(".")[2]
    return UserError(f"unknown key '{name}'", file=file, key=key, hint=nearest(name, valid))


def blame(key: str | None, overrides: Sequence[str], file: Path) -> str | Path:
    """Return where a key was given: on the command line, or in the sweep file."""
    given = {text.lstrip("+~").partition("=")[0] for text in overrides}
    parts = (key or "").split(".")
    return COMMAND_LINE if any(".".join(parts[:n]) in given for n in range(1, len(parts) + 1)) else file


def explain(
    error: Exception,
    *,
    schema: type,
    file: Path,
    overrides: Sequence[str],
    folders: Sequence[Path],
    siblings: Callable[[str], Iterable[str]],
) -> UserError:
    """Turn an error of Hydra or OmegaConf into one message with the file, the key and the nearest name.

    Args:
        error: theirs.
        schema: the dataclass of the whole file.
        file: the sweep file.
        overrides: of the command line.
        folders: where config groups are searched, in that order.
        siblings: gives the keys beside one that is not there.
    """
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = f"{error}\n{cause}"
    if found := re.search(r"(?:Could not find|could not be found.*?) '(jobs|datasets|slurm)/([^']*)'", text):
        group, name = found.groups()
        choices = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        where = blame(group, overrides, file)
        return UserError(f"there is no '{name}'", file=where, key=group, hint=nearest(name, choices))
    for pattern, problem, hint in _OVERRIDE_ERRORS:
        if found := re.search(pattern, text):
            key = found[1]
            return UserError(problem, file=COMMAND_LINE, key=key, hint=hint.format(key=key))
    full = re.search(r"full_key: (\S+)", text)
    key_text = full[1] if full else None
    where = _catalogue_file(text, folders) or blame(key_text, overrides, file)
    if found := re.search(r"Key '([^']*)' (?:is )?not in (?:'\w+'|struct)", text):
        key = key_text or found[1]
        return unknown_key(key, siblings(key), where)
    wanted = expected(schema, key_text) if key_text else ""
    # Hydra puts its own "In 'file': ... raised while composing config" before what is wrong.
    lines = [line.strip() for line in str(cause).splitlines() if not line.startswith("In '")]
    first = lines[0] if lines else type(cause).__name__
    if wanted and "nterpolation" not in text:
        given = re.search(r"[Vv]alue '([^']*)'|value: (.*)$", first)
        value = (given[1] if given[1] is not None else given[2]) if given else ""
        if value == "None" or "not Optional" in first:
            problem = _instead(None, wanted)
        else:
            problem = _instead(value, wanted) if given else f"expected {wanted}"
        brackets = f"Put it in brackets: {(key_text or '').rpartition('.')[2]}: [...]"
        hint = brackets if wanted == "a list" else ""
        return UserError(problem, file=where, key=key_text, hint=hint)
    first = re.sub(r"^\w+ raised while resolving interpolation: ", "", first).strip("\"'. ")
    return UserError(first, file=where, key=key_text)


_OVERRIDE_ERRORS = (
    (
        r"Ambiguous value for argument '([^'=]*)=",
        "several values where one belongs",
        "Ranges to search stand under space; a list is written {key}=[a,b]",
    ),
    (r"Could not append to config\. An item is already at '([^']*)'", "is there already", "Leave out the +"),
    (r"Could not delete from config\. '([^']*)' does not exist", "there is no such key to leave out", ""),
)


def expected(schema: type, key: str) -> str:
    """Say what kind of value belongs at a key; nothing where the schema leaves it open."""
    kind: Any = schema
    for part in key.split("."):
        if dataclasses.is_dataclass(kind):
            kind = typing.get_type_hints(kind).get(part)
        elif typing.get_origin(kind) is dict:
            kind = typing.get_args(kind)[1]
        else:
            return ""
    if isinstance(kind, types.UnionType):
        words = [_words(option) for option in typing.get_args(kind) if option is not type(None)]
        return " or ".join([*words, "null"]) if all(words) else ""
    return _words(kind)


def _words(kind: Any) -> str:
    if dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict:
        return "a mapping"
    return "a list" if typing.get_origin(kind) is list else _WORDS.get(kind, "")


def _instead(value: Any, wanted: str) -> str:
    return f"null where {wanted} belongs" if value is None else f"{value!r} is not {wanted}"


def _catalogue_file(text: str, folders: Sequence[Path]) -> Path | None:
    found = re.search(r"In '((?:jobs|datasets|slurm)/[^']+)'", text)
    paths = [folder / f"{found[1]}.yaml" for folder in folders] if found else []
    return next((path for path in paths if path.is_file()), None)
