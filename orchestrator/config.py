"""The sweep file: composing it with Hydra, freezing it and reading it back."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.errors import UserError, nearest
from orchestrator.explain import COMMAND_LINE, check_shape, explain
from orchestrator.schema import (
    GROUPS,
    CostConfig,
    JobConfig,
    MetricsConfig,
    ResumeConfig,
    SlurmConfig,
    SweepConfig,
)


def catalogues() -> Path:
    """Return the folder that holds the built-in `jobs/`, `datasets/` and `slurm/`."""
    packaged = Path(__file__).parent / "catalogues"
    return packaged if packaged.is_dir() else Path(__file__).parent.parent


def load_sweep(file: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Compose a sweep file with the catalogues and the command line's overrides.

    Args:
        file: the user's YAML file; its folder is searched for config groups before the built-in ones.
        overrides: Hydra overrides (`stages.coarse.trials=128`, `slurm=gpu`).

    Raises:
        UserError: the file or an override is wrong.
    """
    node = _read_yaml(file)
    overrides = _without_auto(node, overrides, file)
    check_shape({key: value for key, value in node.items() if key != "defaults"}, SweepConfig, file)
    own_overrides, hydra_overrides = _split_overrides(overrides)
    hydra_overrides = _checked_overrides(hydra_overrides, node)
    node["defaults"] = _defaults(node.get("defaults"), file)
    node["hydra"] = {"searchpath": [f"file://{catalogues()}"]}
    composed = _compose(node, file.resolve().parent, hydra_overrides, file)
    OmegaConf.set_struct(composed, False)
    for (section, key), value in own_overrides.items():
        entries = composed[section]
        if value is not None:
            entries[key] = value
        elif key in entries:
            del entries[key]
        else:
            raise UserError(
                f"there is no such {_DOTTED[section]} to leave out", file=COMMAND_LINE,
                key=f"{section}.{key}", hint=nearest(key, [str(name) for name in entries]),
            )  # fmt: skip
    return _typed(composed, file)


def load_frozen(file: Path) -> SweepConfig:
    """Read a frozen sweep file back.

    Raises:
        UserError: somebody changed it, and it is none any more.
    """
    node = _read_yaml(file)
    check_shape(node, SweepConfig, file)
    return _typed(OmegaConf.create(node), file)


def freeze(config: SweepConfig) -> str:
    """Return a config as the YAML text that `load_frozen` reads."""
    # The job's own interpolations refer to its config as the trial sees it, so they stay as written.
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=False)


def _read_yaml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        candidates = [p.name for p in file.parent.glob("*.yaml")] if file.parent.is_dir() else []
        raise UserError("there is no such sweep file", file=file, hint=nearest(file.name, candidates))
    try:
        node = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    except Exception as error:
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", file=file) from None
    if not isinstance(node, dict):
        raise UserError("a sweep file is a mapping", file=file)
    return {str(key): value for key, value in node.items()}


def _without_auto(node: dict[str, Any], overrides: Sequence[str], file: Path) -> list[str]:
    """Read `stages: auto`, of the file or an override, as no stages at all: the budget then gives them."""
    words = {text: text.partition("=")[2].strip("'\" ") for text in overrides if text.startswith("stages=")}
    words = {text: word for text, word in words.items() if word.isidentifier() and word != "null"}
    where: Path | str = COMMAND_LINE if words else file
    stages = [*words.values(), node.get("stages")][0]
    rest = [text for text in overrides if text not in words]
    if not words and stages == "auto" and (names := [name for text in rest for name in _named_stages(text)]):
        # Stages written on the command line take the place of the file's auto.
        node["stages"] = {name: {} for name in names}
        return rest
    if not isinstance(stages, str) or "${" in stages:
        return rest
    if stages != "auto":
        hint = nearest(stages, ["auto"]) if stages.isidentifier() else ""
        problem = f"{stages!r} is neither a mapping of stages nor auto"
        raise UserError(problem, file=where, key="stages", hint=hint)
    changed = [text for text in rest if text.lstrip("+~").startswith("stages.")]
    if changed:
        raise UserError(
            "the stages are worked out from the budget, so none of them can be changed", file=COMMAND_LINE,
            key=changed[0].lstrip("+~").partition("=")[0],
            hint="Change the budget, or write the stages out in the file",
        )  # fmt: skip
    given = [text for text in rest if text.startswith("budget=") and text not in ("budget=", "budget=null")]
    if not given and ("budget=null" in rest or node.get("budget") is None):
        raise UserError(
            "auto needs a budget to work the stages out from", file=where, key="stages",
            hint="Give one: budget: 20 trainings, or 40 gpu-hours",
        )  # fmt: skip
    node.pop("stages", None)
    return rest


def _named_stages(override: str) -> list[str]:
    """Return the names in an override that gives the stages as a mapping, `stages={coarse: {...}}`."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not override.startswith("stages={"):
        return []
    try:
        value = OverridesParser.create().parse_override(override).value()
    except HydraException:
        return []  # refused with the other overrides
    return [str(name) for name in value] if isinstance(value, dict) else []


# Sections whose keys hold dots, and whose values are a grammar of their own; what an entry of each is.
_DOTTED = {"space": "range", "when": "condition", "tied": "tie"}


# Sections of the schema that hold any keys.
_FREE = ("slurm.sbatch", "slurm.driver", "slurm.on_out_of_memory")


def _split_overrides(overrides: Sequence[str]) -> tuple[dict[tuple[str, str], str | None], list[str]]:
    """Part overrides of the sections that hold ranges or expressions from Hydra's own."""
    own: dict[tuple[str, str], str | None] = {}
    others: list[str] = []
    for text in overrides:
        key, separator, value = text.partition("=")
        section, dot, name = key.lstrip("+~").partition(".")
        if section in _DOTTED and dot:
            own[section, name] = value if separator and not key.startswith("~") else None
        else:
            others.append(text)
    return own, others


def _checked_overrides(overrides: Sequence[str], node: dict[str, Any]) -> list[str]:
    """Refuse overrides that can't be read, name no key or contradict each other.

    `+stages.NAME...` adds a stage: it gets its place in the file's mapping, and the schema's defaults there.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    seen: dict[str, str] = {}
    checked = []
    for text in overrides:
        try:
            key = OverridesParser.create().parse_override(text).key_or_group
        except HydraException as error:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"'{text}' is no override ({reason})", file=COMMAND_LINE,
                hint="Quote a value with special characters: \"key='value'\"",
            ) from None  # fmt: skip
        root, *below = key.split(".")
        if not root:
            raise UserError(f"'{text}' is no override", file=COMMAND_LINE, hint="Write key=value")
        if root not in (names := [item.name for item in fields(SweepConfig)]):
            raise UserError(f"unknown key '{root}'", file=COMMAND_LINE, key=key, hint=nearest(root, names))
        if seen.setdefault(key, text) != text:
            raise UserError(f"given twice: {seen[key]} and {text}", file=COMMAND_LINE, key=key)
        stages = node.get("stages", {})
        if root == "stages" and below and isinstance(stages, dict):
            if text.startswith("+"):
                node["stages"] = {**stages, below[0]: stages.get(below[0], {})}
                text = text.lstrip("+")
            elif below[0] not in stages:
                hint = nearest(below[0], stages) or f"Add it: +{text}"
                raise UserError(f"there is no stage '{below[0]}'", file=COMMAND_LINE, key=key, hint=hint)
        if key.startswith(_FREE) and text[0] not in "+~":
            # What they hold is checked with the rest of the section, so a key is added without a `+` too.
            text = f"++{text}"
        checked.append(text)
    return checked


def _defaults(given: Any, file: Path) -> list[Any]:
    """Complete a defaults list: the schema first, a cluster, and the file's own keys over all of them."""
    if given is not None and not isinstance(given, list):
        raise UserError("the defaults list is a list", file=file, key="defaults")
    entries = [entry for entry in given or [] if entry != "sweep"]
    for entry in entries:
        group = next(iter(entry), "") if isinstance(entry, dict) else entry
        name = str(group).removeprefix("override ").removeprefix("optional ").split("@")[0].lstrip("/")
        if name not in (*GROUPS, "_self_"):
            raise UserError(
                f"'{group}' is no config group", file=file, key="defaults", hint=nearest(name, GROUPS)
            )
    if not any(isinstance(entry, dict) and "slurm" in entry for entry in entries):
        entries.insert(0, {"slurm": "local"})
    if "_self_" not in entries:
        entries.append("_self_")
    # The user's file may itself be called sweep.yaml, so the schema needs a name no file has.
    return [_SCHEMA, *entries]


_SECTIONS: dict[str, type] = {
    "slurm": SlurmConfig,
    "jobs": JobConfig,
    "jobs.cost": CostConfig,
    "jobs.metrics": MetricsConfig,
    "jobs.resume": ResumeConfig,
}
_SCHEMA, _PRIMARY = "_orchestrator_schema", "_orchestrator_sweep"


@contextlib.contextmanager
def _hydra_to_ourselves() -> Iterator[None]:
    """Compose as if nobody else used Hydra here, and leave it as it was.

    What it composes with belongs to the whole process: an application of Hydra's, or a notebook that has
    called `hydra.initialize`, would go on with our version base.
    """
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.version import VersionBase

    versions, running = VersionBase.instance(), GlobalHydra.instance().hydra
    base = versions.getbase()
    GlobalHydra.instance().hydra = None
    try:
        yield
    finally:
        versions.version_base = base
        # Another instance by now: Hydra puts a copy in the place of the one that it found.
        GlobalHydra.instance().hydra = running
        for name in (_SCHEMA, _PRIMARY):
            ConfigStore.instance().repo.pop(f"{name}.yaml", None)


def _compose(node: dict[str, Any], folder: Path, overrides: list[str], file: Path) -> DictConfig:
    from hydra import compose, initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.errors import HydraException

    def composed(texts: Sequence[str]) -> DictConfig:
        with _hydra_to_ourselves():
            store = ConfigStore.instance()
            store.store(name=_SCHEMA, node=SweepConfig)
            store.store(name=_PRIMARY, node=node)
            with initialize_config_dir(config_dir=str(folder), version_base="1.3"):
                return compose(config_name=_PRIMARY, overrides=list(texts))

    def siblings(key: str) -> list[str]:
        parent = key.rpartition(".")[0]
        if schema := _SECTIONS.get(parent):
            return [item.name for item in fields(schema)]
        groups = [text for text in overrides if text.lstrip("+~").partition("=")[0] in GROUPS]
        found = OmegaConf.select(composed(groups), parent)
        return [str(name) for name in found] if OmegaConf.is_dict(found) else []

    try:
        return composed(overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(
            error, schema=SweepConfig, file=file, overrides=overrides, folders=(folder, catalogues()),
            siblings=siblings,
        ) from None  # fmt: skip
    except Exception as error:
        # PyYAML's errors about a file of a catalogue come through as they are.
        if (mark := getattr(error, "problem_mark", None)) is None:
            raise
        raise UserError(f"not readable as YAML ({' '.join(str(error).split())})", file=mark.name) from None


def _typed(node: Any, file: Path) -> SweepConfig:
    try:
        # What an override took away has its default again, or is missed below.
        node = OmegaConf.merge(OmegaConf.structured(SweepConfig), node)
        OmegaConf.set_readonly(node, False)
        if node.jobs.command is not None and OmegaConf.is_missing(node.jobs, "_target_"):
            node.jobs._target_ = None
        # Everything but the job's config is resolved now: the frozen file says what will happen.
        for name in node:
            if name not in ("jobs", "datasets"):
                value = OmegaConf.select(node, name)
                if OmegaConf.is_config(value):
                    OmegaConf.resolve(value)
    except OmegaConfBaseException as error:
        raise explain(
            error, schema=SweepConfig, file=file, overrides=(), folders=(), siblings=lambda key: ()
        ) from None
    if missing := _missing(OmegaConf.to_container(node, resolve=False)):
        key = min(missing)
        raise UserError("needs a value", file=file, key=key, hint=_missing_hint(key))
    return _to_object(node)


def _to_object(node: DictConfig) -> SweepConfig:
    """Convert to dataclasses; the job's config, its groups and the dataset stay plain and unresolved."""
    job_config = OmegaConf.to_container(node.jobs.config, resolve=False)
    dataset = OmegaConf.to_container(node.datasets, resolve=False)
    groups = OmegaConf.to_container(node.jobs.groups, resolve=False)
    rest = copy.deepcopy(node)
    rest.datasets, rest.jobs.config, rest.jobs.groups = {}, {}, {}
    config = OmegaConf.to_object(rest)
    assert isinstance(config, SweepConfig)
    config.jobs.config = dict(job_config)  # type: ignore[arg-type]
    config.jobs.groups = dict(groups)  # type: ignore[arg-type]
    config.datasets = dict(dataset)  # type: ignore[arg-type]
    return config


def _missing(value: Any, prefix: str = "") -> list[str]:
    """List the keys that need a value. OmegaConf's own list would resolve the job's interpolations."""
    if value == MISSING:
        return [prefix]
    dot = "." if prefix else ""
    items = value.items() if isinstance(value, dict) else ()
    return [key for name, item in items for key in _missing(item, f"{prefix}{dot}{name}")]


def _missing_hint(key: str) -> str:
    hints = {
        "name": "The sweep's directory is called after it",
        "metric.name": "Name a key of what the training function returns, such as val/accuracy",
        "jobs._target_": "Choose a job: `- jobs: classify` in the defaults list; or give a path or a command",
    }
    return hints.get(key, f"Write it in the file, or {key}=... on the command line")


def job_config(config: SweepConfig) -> DictConfig:
    """Return the config that the training function gets, before parameters and scale are written into it."""
    node = OmegaConf.create(dict(config.jobs.config))
    if config.datasets:
        node["dataset"] = dict(config.datasets)
    assert isinstance(node, DictConfig)
    return node


def has_path(node: DictConfig, path: str) -> bool:
    """Say whether a dotted path names a leaf or a group that is there, whatever its value."""
    current: Any = node
    for part in path.split("."):
        if not isinstance(current, DictConfig) or part not in current.keys():  # noqa: SIM118 - null values count
            return False
        current = current._get_node(part)
        if OmegaConf.is_dict(current) and current._is_none():
            return False
    return True


def leaf_paths(node: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List the dotted paths of a nested mapping's leaves."""
    paths: list[str] = []
    for key, value in node.items():
        path = f"{prefix}{key}"
        paths += leaf_paths(value, path + ".") if isinstance(value, dict) and value else [path]
    return paths
