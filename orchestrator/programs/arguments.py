"""The words of a command line, its environment and its config file, with a trial's values filled in."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from orchestrator.config import has_path
from orchestrator.errors import UserError
from orchestrator.sweep.files import write_atomic

COMMAND = "jobs.command"
# What stands for something of the trial's; a key of the job's config of the same name comes first.
OF_THE_TRIAL = ("checkpoint_dir", "config_file", "python", "seed", "snapshot", "stage", "trial")
_PLACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
# What an interpreter is given; a data file or an output of a command is not taken from the snapshot.
_SCRIPTS = (".py", ".sh", ".bash", ".R", ".r", ".jl", ".pl", ".rb", ".js", ".lua", ".m")


def words(command: Any, key: str = COMMAND) -> list[str]:
    """Return the words of a command: as a shell would part a text, or a list's as they are.

    Raises:
        UserError: it is neither, a quotation is not closed, or there is no word.
    """
    if isinstance(command, str):
        try:
            found = shlex.split(command)
        except ValueError as error:
            problem = f"{command!r} is no command line: {str(error).lower()}"
            raise UserError(problem, key=key) from None
    elif isinstance(command, list | tuple):
        for word in command:
            if isinstance(word, Mapping | list | tuple) or word is None:
                hint = "In a list put words with braces in quotation marks: '{lr}'"
                raise UserError(f"{word!r} is no word of a command", key=key, hint=hint)
        found = [str(word) for word in command]
    else:
        hint = "Write it as one text, in quotation marks where it begins with a brace"
        raise UserError(f"{command!r} is no command", key=key, hint=hint)
    if not found or not found[0]:
        raise UserError("there is no command", key=key)
    return found


def places(text: str) -> list[str]:
    """Return the names in braces in a text, such as optimizer.lr in `--lr={optimizer.lr}`."""
    return [name for name in _PLACE.findall(text) if name]


def filled(text: str, config: DictConfig, trial: Mapping[str, str], key: str) -> str | None:
    """Return a text with a trial's values in place of the names in braces; `{{` is a brace.

    Args:
        text: a word of a command, or the value of an environment variable.
        config: the trial's.
        trial: what the names of `OF_THE_TRIAL` stand for.
        key: where the text is.

    Returns:
        None where one of them is null.

    Raises:
        UserError: there is no such name.
    """
    values = {name: _value(name, config, trial, key) for name in places(text)}
    if None in values.values():
        return None

    def value(found: re.Match[str]) -> str:
        name = found.group(1)
        return found.group()[:1] if name is None else values.get(name) or ""

    return _PLACE.sub(value, text)


def _value(name: str, config: DictConfig, trial: Mapping[str, str], key: str) -> str | None:
    """Return what a name stands for; mappings and lists as JSON."""
    if not has_path(config, name):
        if name in trial:
            return trial[name]
        raise UserError(f"{{{name}}} has no value in this trial", key=key)
    at = OmegaConf.select(config, name)
    if OmegaConf.is_config(at):
        return json.dumps(OmegaConf.to_container(at, resolve=True))
    if at is None:
        return None
    return str(at).lower() if isinstance(at, bool) else str(at)


def arguments(command: Sequence[str], config: DictConfig, trial: Mapping[str, str], key: str) -> list[str]:
    """Return the words of a command with a trial's values.

    A word whose value is null is left out, and so is the flag in front of it: of `--momentum {momentum}` or
    `--momentum={momentum}` nothing is left.

    Raises:
        UserError: there is no such value.
    """
    found: list[str] = []
    flag = False
    for word in command:
        value = filled(word, config, trial, key)
        if value is not None:
            found.append(value)
        elif flag and _PLACE.fullmatch(word):
            found.pop()
        flag = value is not None and word.startswith("-") and "=" not in word
    return found


def from_snapshot(command: Sequence[str], snapshot: Path) -> list[str]:
    """Return a command with the scripts that it names taken from the snapshot: the code as it was planned.

    The program itself is a script where it is given as a path; other words are by their ending.
    """
    return [
        str(snapshot / word) if _is_script(word, index) and (snapshot / word).is_file() else word
        for index, word in enumerate(command)
    ]


def scripts(command: Sequence[str], folder: Path) -> list[Path]:
    """Return the files of a folder that a command names and that `from_snapshot` would take."""
    return [
        folder / word
        for index, word in enumerate(command)
        if _is_script(word, index) and (folder / word).is_file()
    ]


def _is_script(word: str, index: int) -> bool:
    relative = not Path(word).is_absolute() and ".." not in Path(word).parts
    return relative and (word.endswith(_SCRIPTS) or (index == 0 and "/" in word))


def runs_module(command: Sequence[str]) -> bool:
    """Say whether a command is Python's `python -m module`, which looks in the current folder first."""
    return len(command) > 2 and Path(command[0]).name.startswith("python") and command[1] == "-m"


def write_config(path: Path, config: DictConfig) -> None:
    """Write a trial's config as JSON or YAML, as its name ends."""
    plain = OmegaConf.to_container(config, resolve=True)
    is_json = path.suffix == ".json"
    text = json.dumps(plain, indent=1) + "\n" if is_json else OmegaConf.to_yaml(config, resolve=True)
    write_atomic(path, text)
