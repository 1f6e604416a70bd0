"""What `orchestrate inspect` may be pointed at, as the dataset config that it stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UserError, nearest

TABLE_FILES = (".parquet", ".pq")
ARRAYS = (".npz",)
IDX = ("-ubyte", ".idx", "-ubyte.gz", ".idx.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_PREFIX = "datasets."


@dataclass(frozen=True, slots=True)
class Target:
    """What to look at.

    Attributes:
        name: for titles and file names.
        config: as datasets/*.yaml has it; without `_target_` where a path alone was given.
        own: keys that were set by the person who asks, and not guessed or left at their defaults.
    """

    name: str
    config: dict[str, Any]
    own: frozenset[str] = frozenset()


def resolve(target: str, overrides: Sequence[str] = ()) -> Target:
    """Find out what a target is: a sweep file, a sweep's directory, a dataset's file, data, or a name.

    Args:
        target: as on the command line.
        overrides: key=value; of a dataset's keys, with or without "datasets." before them. For a sweep file
            any override that `orchestrate plan` takes.

    Raises:
        UserError: there is no such thing, or an override is wrong.
    """
    path = Path(target)
    if path.suffix in (".yaml", ".yml"):
        return _yaml(path, overrides)
    if path.is_dir() and (path / "plan.json").exists():
        return _sweep(path, overrides)
    if path.exists():
        given = _parsed(overrides)
        return Target(
            path.name.split(".")[0] or path.resolve().name, {"path": target, **given}, frozenset(given)
        )
    return _catalogue(target, overrides)


def _yaml(path: Path, overrides: Sequence[str]) -> Target:
    from omegaconf import OmegaConf

    from orchestrator.config import load_sweep

    try:
        content = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    except Exception as error:
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", file=path) from None
    if isinstance(content, dict) and "_target_" in content:
        return _described(path.stem, {str(key): value for key, value in content.items()}, overrides)
    dotted = [_PREFIX + text if _is_key(text) else text for text in overrides]
    config = load_sweep(path, dotted)
    return _dataset(path, config.name, config.datasets)


def _is_key(text: str) -> bool:
    """Say whether an override names a dataset's key rather than one of a sweep file."""
    from dataclasses import fields

    from orchestrator.schema import SweepConfig

    return text.partition("=")[0].lstrip("+~").partition(".")[0] not in {
        each.name for each in fields(SweepConfig)
    }


def _sweep(path: Path, overrides: Sequence[str]) -> Target:
    from orchestrator.config import load_frozen
    from orchestrator.sweep.directory import SweepDirectory

    config = load_frozen(SweepDirectory(path.resolve()).config)
    found = _dataset(path, config.name, config.datasets)
    return _described(found.name, found.config, overrides)


def _dataset(path: Path, name: str, dataset: Mapping[str, Any] | None) -> Target:
    if not dataset:
        raise UserError(
            "the sweep has no dataset to look at",
            file=path,
            key="datasets",
            hint="Its training function reads the data itself: give the path of the data instead",
        )
    return Target(str(name), dict(dataset), frozenset(dataset))


def _described(name: str, config: dict[str, Any], overrides: Sequence[str]) -> Target:
    merged = config | _parsed(overrides)
    return Target(name, merged, frozenset(key for key, value in merged.items() if value not in (None, "???")))


def _catalogue(name: str, overrides: Sequence[str]) -> Target:
    from omegaconf import OmegaConf

    from orchestrator.config import catalogues

    folder = catalogues() / "datasets"
    known = sorted(each.stem for each in folder.glob("*.yaml"))
    if name not in known:
        beside = [each.name for each in Path(name).parent.glob("*")] if Path(name).parent.is_dir() else []
        looks_like_path = "/" in name or Path(name).suffix
        choices = beside[:50] if looks_like_path else [*known, *beside[:50]]
        hint = nearest(Path(name).name if looks_like_path else name, choices)
        if hint.startswith("Valid"):
            hint = f"Give a sweep file, a sweep's directory, a path to data, or one of: {', '.join(known)}"
        raise UserError("there is no such file, folder or dataset of the catalogue", file=name, hint=hint)
    content = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"))
    config = {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
    return _described(name, config, overrides)


def _parsed(overrides: Sequence[str]) -> dict[str, Any]:
    """Read key=value texts; the values are YAML, and dots lead into mappings."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    texts = [text.lstrip("+").removeprefix(_PREFIX) for text in overrides]
    for text in texts:
        if not text.partition("=")[1] or not text.partition("=")[0]:
            raise UserError(f"'{text}' is no override", file="command line", hint="Write key=value")
    try:
        content = OmegaConf.to_container(OmegaConf.from_dotlist(texts))
    except (OmegaConfBaseException, ValueError) as error:
        raise UserError(f"not readable ({error})", file="command line") from None
    except Exception as error:  # PyYAML's, about a value
        raise UserError(
            f"not readable as YAML ({' '.join(str(error).split())})", file="command line"
        ) from None
    return {str(key): value for key, value in content.items()} if isinstance(content, dict) else {}
