"""Write the pages that the program itself knows best: every key of a sweep file, every command's help.

python docs/generate.py            write docs/reference.md and docs/commands.md
python docs/generate.py --check    write nothing; end with 1 when one of them is out of date
"""

from __future__ import annotations

import ast
import dataclasses
import io
import sys
import tokenize
import typing
from collections.abc import Iterator
from pathlib import Path

import click

from orchestrator import schema
from orchestrator.cli import main as orchestrate

HERE = Path(__file__).parent
WRITTEN_BY = "<!-- Written by docs/generate.py: change the program, then run `make reference`. -->\n"

REFERENCE = f"""{WRITTEN_BY}
# Every key of a sweep file

[The sweep file](sweep-file.md) says how the parts go together; here is every key with its type and its
default. A key that is not in these tables is refused, with the nearest one that is. `required` has no
default. Each key can also be given on the command line: `orchestrate plan sweep.yaml final.top=5`.
"""

COMMANDS = f"""{WRITTEN_BY}
# Commands

What `orchestrate COMMAND --help` prints, for every command. Words like `key=value` after a sweep file are
Hydra overrides. Bad input is one message with the file, the key and the nearest right value, and exit status
2; work that failed is exit status 1. Where nobody reads the output any more (`| head`), a command ends in
silence: with 0 if it was called for its output alone (`status`, `results`, `plan`), else with 141, as SIGPIPE
ends others.
"""

# In the order in which they are met; a command that is not here comes last.
GROUPS = {
    "Before a sweep": ("inspect", "check", "plan", "doctor", "completion"),
    "Running": ("run", "submit", "advance", "cron", "status", "budget", "cancel", "retry"),
    "What it found": ("results", "report", "ensemble", "export", "predict", "share"),
}


@dataclasses.dataclass(frozen=True)
class Section:
    """A mapping of the sweep file: its path in the file, such as `ensemble.student`, and its dataclass."""

    path: str
    config: type


def reference() -> str:
    """Return the page of all keys, from the schema's dataclasses and the comments above their fields."""
    meanings = comments(Path(schema.__file__).read_text())
    parts = [REFERENCE]
    for section in sections():
        title = f"`{section.path}`" if section.path else "The file itself"
        parts.append(
            f"## {title}\n\n{described(section)}\n\n{table(section, meanings[section.config.__name__])}"
        )
    return "\n".join(parts)


def sections() -> list[Section]:
    """Return the mappings of a sweep file, outer ones first."""
    return list(_below("", schema.SweepConfig))


def _below(path: str, config: type) -> Iterator[Section]:
    yield Section(path, config)
    for key, kind in typing.get_type_hints(config).items():
        place = f"{path}.{key}".lstrip(".")
        for inner in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(inner):
                yield from _below(place if inner is kind else f"{place}.NAME", typing.cast(type, inner))


def described(section: Section) -> str:
    """Return what the dataclass says of itself."""
    return " ".join((section.config.__doc__ or "").split())


def table(section: Section, meanings: dict[str, str]) -> str:
    """Return the table of a mapping's keys.

    Raises:
        SystemExit: a key has no comment above it.
    """
    hints = typing.get_type_hints(section.config)
    rows = ["| key | type | default | |", "|---|---|---|---|"]
    for field in dataclasses.fields(section.config):
        kind, inner = spelled(hints[field.name])
        place = f"{section.path}.{field.name}".lstrip(".")
        meaning = meanings.get(field.name, "")
        if inner is not None:
            title = place if inner is hints[field.name] else f"{place}.NAME"
            below = f"see [`{title}`](#{title.lower().replace('.', '')})"
            meaning = (
                f"{meaning}; {below}"
                if meaning
                else f"{described(Section(place, inner)).split('. ')[0].rstrip('.')}: {below}"
            )
        if not meaning:
            raise SystemExit(f"orchestrator/schema.py: {section.config.__name__}.{field.name} has no comment")
        rows.append(f"| `{field.name}` | {kind} | {default(field)} | {cell(meaning)} |")
    return "\n".join(rows) + "\n"


def comments(source: str) -> dict[str, dict[str, str]]:
    """Return by class and field the comment that stands right above the field."""
    lines = {
        token.start[0]: token.string.lstrip("# ").rstrip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#")
    }
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            found[node.name] = {ast.unparse(each.target): _above(lines, each.lineno) for each in fields}
    return found


def _above(lines: dict[int, str], line: int) -> str:
    above: list[str] = []
    while (line := line - 1) in lines:
        above.insert(0, lines[line])
    return " ".join(above)


def spelled(kind: object) -> tuple[str, type | None]:
    """Return a type in words, and the dataclass in it, if any."""
    arguments = [each for each in typing.get_args(kind) if each is not type(None)]
    inner = next((each for each in (kind, *arguments) if dataclasses.is_dataclass(each)), None)
    if inner is not None:
        return ("mapping" if inner is kind else "mappings by name"), typing.cast(type, inner)
    if kind is typing.Any:
        return "any", None
    origin = typing.get_origin(kind)
    if origin is dict:
        return "mapping", None
    if origin is list:
        return "list", None
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    shown = " or ".join(names.get(each, str(each)) for each in (arguments or [kind]))
    return shown + (" or null" if len(arguments) < len(typing.get_args(kind)) else ""), None


def default(field: dataclasses.Field[object]) -> str:
    """Return a field's default as YAML writes it."""
    made = field.default_factory
    value = field.default if made is dataclasses.MISSING else made()
    if dataclasses.is_dataclass(value):
        return ""
    if value == schema.MISSING:
        return "required"
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
    return f"`{value}`"


def cell(text: str) -> str:
    """Return text for a cell of a table: no bar may end it."""
    return text.replace("|", "\\|")


def commands() -> str:
    """Return the page of all commands, with what `--help` prints at 88 columns."""
    settings = {**orchestrate.context_settings, "terminal_width": 88, "max_content_width": 88}
    top = click.Context(orchestrate, info_name="orchestrate", **settings)
    parts = [COMMANDS, fenced(orchestrate.get_help(top))]
    grouped = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in sorted(orchestrate.commands) if name not in grouped)
    for title, names in {**GROUPS, "Others": others}.items():
        if names:
            parts.append(f"## {title}\n")
        for name in names:
            command = orchestrate.commands[name]
            context = click.Context(command, info_name=name, parent=top, **settings)
            parts.append(f"### orchestrate {name}\n\n{fenced(command.get_help(context))}")
    return "\n".join(parts)


def fenced(text: str) -> str:
    """Return a terminal's words as a block."""
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"```text\n{lines}\n```\n"


PAGES = {"reference.md": reference, "commands.md": commands}


def stale() -> list[str]:
    """Return the pages that are not what the program says now."""
    return [
        name
        for name, page in PAGES.items()
        if not (HERE / name).exists() or (HERE / name).read_text() != page()
    ]


def main(arguments: list[str]) -> int:
    """Write the pages, or with `--check` say which are out of date."""
    names = stale()
    if "--check" in arguments:
        for name in names:
            print(f"docs/{name} is out of date: make reference", file=sys.stderr)
        return bool(names)
    for name in names:
        (HERE / name).write_text(PAGES[name]())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
