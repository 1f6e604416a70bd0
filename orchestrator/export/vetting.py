"""Reading a `torch.export` program that others could have written, without running what they put into it.

`torch.export.load` trusts its file. As of torch 2.13 there are five ways in which a *.pt2 runs code:

- pickles: example inputs, weights and constants marked `use_pickle`, objects, and older layouts;
- compiled libraries below data/aotinductor;
- targets of calls: any name below `torch` or `operator`, `torch.os.system` for one;
- expressions of sizes, which sympy evaluates as Python; names and guards, which become Python source;
- specifications of trees, which may name modules to import.

So the archive is read here first. Its members, and every text in its graph, are compared with what a plain
network's program holds, and anything else is refused. What was compared is then written to a new archive in
memory, and that one is loaded: no two readers see two different files.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from typing import Any

import torch

from orchestrator.errors import UserError

_GRAPH, _EXAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_SMALL = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
_TENSOR = re.compile(r"data/(weights/weight|constants/tensor)_\d+")
_PAYLOAD = re.compile(r"(weight|tensor)_\d+")

# aten's operators compute; the one that opens a file is left out.
_TARGET = re.compile(
    r"torch\.ops\.aten\.(?!from_file)[A-Za-z0-9_]+\.[A-Za-z0-9_]+"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)"
    r"|torch\.sym_(max|min|not|int|float|ite|sum)|math\.(ceil|floor|trunc)"
)
_NAME = re.compile(r"[A-Za-z0-9_.:-]{0,300}")
_SYMBOL = re.compile(r"Symbol\('[a-z]+\d+'(, (positive|nonnegative|integer)=True)*\)")
_WORDS = r"(Integer|Add|Mul|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|ModularIndexing|PowByNatural)"
_EXPRESSION = re.compile(rf"({_WORDS}\(|[0-9+\-*/(), ])*")
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")
# Parts of a graph that a plain network has no use for, each with code of some kind in it.
_EMPTY = ("metadata", "guards_code", "custom_obj_values", "treespec_namedtuple_fields")
_FORBIDDEN = ("as_graph", "as_custom_obj", "as_operator", "custom_obj", "as_string_to_argument")


class Unsafe(Exception):
    """A program holds what a plain network's has no use for; the message says what."""


def load_program(content: bytes, file: object) -> torch.nn.Module:
    """Return the module of a program in a *.pt2 archive, after every part of it was looked at.

    Args:
        content: of the file.
        file: its name, for messages.

    Raises:
        UserError: it is damaged, holds what could run code, or is of a torch that this one cannot read.
    """
    try:
        vetted = vet(content)
    except Unsafe as reason:
        raise UserError(
            f"is not loaded: {reason}",
            file=file,
            hint="A program of `orchestrate export` holds nothing of the kind: who wrote this one?",
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: torch.nn.Module = torch.export.load(io.BytesIO(vetted)).module()
    except Exception as error:  # whatever another version of torch makes of it
        why = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"torch {torch.__version__} cannot load it: {why[0]}", file=file) from error
    return module


def vet(content: bytes) -> bytes:
    """Return the archive written anew, of nothing but what was looked at.

    Raises:
        Unsafe: it holds something else.
    """
    members = _members(content)
    for name in _CONFIGS:
        _check_payloads(_json(members, name))
    graph = _json(members, _GRAPH)
    _check(graph, "")
    return _written(members | {_GRAPH: json.dumps(graph).encode()})


def stripped(content: bytes) -> bytes:
    """Return a program of our own without what it does not need: where in whose source a call stood."""
    members = _members(content, own=True)
    graph = _json(members, _GRAPH)
    for node in graph["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    return _written(members | {_GRAPH: json.dumps(graph).encode(), _EXAMPLES: b""})


def _members(content: bytes, *, own: bool = False) -> dict[str, bytes]:
    """Return the members of an archive by their names, without the folder that they are all in."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            listed = archive.infolist()
            folder = listed[0].filename.split("/")[0] + "/" if listed else ""
            found: dict[str, bytes] = {}
            for each in listed:
                name = each.filename.removeprefix(folder)
                if name in found or not each.filename.startswith(folder):
                    raise Unsafe(f"its archive has '{each.filename}' twice, or in another folder")
                if each.compress_type != zipfile.ZIP_STORED:
                    raise Unsafe(f"'{name}' in its archive is compressed")
                if not (name in (*_SMALL, *_CONFIGS, _GRAPH, _EXAMPLES) or _TENSOR.fullmatch(name)):
                    raise Unsafe(f"its archive holds '{name}'")
                if name == _EXAMPLES and each.file_size and not own:
                    raise Unsafe(f"its archive holds a pickle, '{name}'")
                found[name] = archive.read(each)
            return found
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise Unsafe(f"it is no whole archive ({error})") from None


def _json(members: Mapping[str, bytes], name: str) -> Any:
    try:
        return json.loads(members[name])
    except (KeyError, ValueError) as error:
        raise Unsafe(f"'{name}' in its archive is missing or no JSON ({error})") from None


def _check_payloads(config: Any) -> None:
    """Refuse tensors that are pickled, or that lie anywhere else."""
    entries = config.get("config") if isinstance(config, dict) else None
    if not isinstance(entries, dict):
        raise Unsafe("its list of tensors is none")
    for name, entry in entries.items():
        if entry.get("use_pickle") is not False or not _PAYLOAD.fullmatch(str(entry.get("path_name"))):
            raise Unsafe(f"tensor '{name}' is pickled")
    _check(config, "")


def _check(value: Any, key: str) -> None:
    """Compare every text in a graph with what may stand there; `key` is what it stands under."""
    if isinstance(value, dict):
        for name, each in value.items():
            if (name in _EMPTY and each) or name in _FORBIDDEN:
                raise Unsafe(f"its graph has '{name}'")
            _check_text(name, "")
            _check(each, name)
    elif isinstance(value, list):
        for each in value:
            _check(each, key)
    elif isinstance(value, str):
        _check_text(value, key)


def _check_text(text: str, key: str) -> None:
    if key == "target":
        fits = _TARGET.fullmatch(text) is not None
    elif key == "expr_str":
        fits = _EXPRESSION.fullmatch(_SYMBOL.sub("0", text)) is not None
    elif key in ("in_spec", "out_spec"):
        fits = _is_plain_tree(text)
    elif key == "torch_version":
        fits = re.fullmatch(r"[0-9A-Za-z.+_-]{1,60}", text) is not None
    else:
        fits = _NAME.fullmatch(text) is not None
    if not fits:
        raise Unsafe(f"its graph says {text[:80]!r}{f' as {key}' if key else ''}")


def _is_plain_tree(text: str) -> bool:
    """Say whether a specification is of tuples, lists and dictionaries with names alone."""
    try:
        protocol, tree = json.loads(text)
    except (ValueError, TypeError):
        return False
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, dict) or set(node) != {"type", "context", "children_spec"}:
            return False
        context = node["context"]
        plain = context is None or (isinstance(context, str) and re.fullmatch(r'null|[\[\]\w", -]*', context))
        if node["type"] not in _TREE_TYPES or not plain or not isinstance(node["children_spec"], list):
            return False
        waiting += node["children_spec"]
    return bool(protocol == 1)


def _written(members: Mapping[str, bytes]) -> bytes:
    """Write an archive, the same bytes for the same members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"program/{name}"), content)
    return buffer.getvalue()
