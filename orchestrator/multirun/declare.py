"""From the sweeper's settings and the command line to a sweep: its config, space and plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config import has_path, leaf_paths
from orchestrator.data.size import DatasetSize
from orchestrator.errors import UserError, nearest
from orchestrator.explain import check_shape
from orchestrator.multirun.words import Word
from orchestrator.planning.ladder import build_plan
from orchestrator.planning.plan import Plan
from orchestrator.planning.sampling.points import cardinality
from orchestrator.planning.sampling.start_from import starting_settings
from orchestrator.planning.validate import validate_stages
from orchestrator.schema import (
    SCALE_KEYS,
    ChecksConfig,
    FinalConfig,
    JobConfig,
    MetricConfig,
    StageConfig,
    SweepConfig,
)
from orchestrator.space import Parameter, parse_space
from orchestrator.space.conditions import declared_space

WHERE = "hydra.sweeper"
MODES = {"max": "max", "min": "min", "maximize": "max", "minimize": "min"}
# The ladder of a sweep that declares none: trials, and the share of the full scale.
LADDER = {"coarse": (32, 1 / 9), "medium": (16, 1 / 3), "fine": (8, 1.0)}
# All settings of a space of at most so many are run, once.
FEW = 32
TARGET = "orchestrator.multirun.elsewhere.only_the_hydra_application_runs_these_trials"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is declared under `hydra.sweeper`; the keys are documented with the plugin's config."""

    metric: str = "objective"
    mode: str = "max"
    seed: int = 0
    sampler: str = "model"
    keep: float = 0.25
    stages: Mapping[str, Any] | None = None
    scale: Mapping[str, str] | None = None
    limits: Mapping[str, Any] | None = None
    when: Mapping[str, Any] | None = None
    start_from: Sequence[Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Declared:
    """A sweep over a Hydra application, checked and planned."""

    config: SweepConfig
    plan: Plan
    words: tuple[Word, ...]
    # the keys that a stage's scale goes to, as overrides have them
    places: Mapping[str, str]


def declare(settings: Settings, words: tuple[Word, ...], application: DictConfig, name: str) -> Declared:
    """Work out a sweep.

    Args:
        settings: of the sweeper.
        words: the command line, with at least one range.
        application: its config, with the fixed overrides in it.
        name: of the sweep.

    Raises:
        UserError: a range, a stage or a key is wrong.
    """
    searched = {word.name: word.declared for word in words if word.searched}
    for key in ("scale", "limits", "when"):
        if not isinstance(getattr(settings, key) or {}, Mapping):
            raise UserError("is no mapping", file=WHERE, key=key, hint=f"Write {key}: {{name: ...}}")
    if not isinstance(settings.start_from or [], list):
        raise UserError("is no list", file=WHERE, key="start_from", hint="Write start_from: [{lr: 0.1}]")
    places = _places(settings.scale or {}, application, searched)
    limits = dict(settings.limits or {})
    paths = {key: place.lstrip("+") for key, place in places.items()}
    if settings.mode not in MODES:
        raise UserError(
            f"'{settings.mode}' is not known", file=WHERE, key="mode", hint=nearest(settings.mode, MODES)
        )
    space = parse_space(searched, limits, WHERE)
    own = _own(application, [*searched, *paths.values()])
    config = SweepConfig(
        name=name,
        seed=settings.seed,
        metric=MetricConfig(name=settings.metric, mode=MODES[settings.mode]),
        space=searched,
        when=dict(settings.when or {}),
        start_from=list(settings.start_from or ()),
        stages=_stages(settings, space, own, paths),
        checks=ChecksConfig(enabled=False),
        final=FinalConfig(top=0),
        jobs=JobConfig(
            _target_=TARGET,
            config={**own, "hydra": {"overrides": [word.override() for word in words if not word.searched]}},
            scale=dict(paths),
            limits=limits,
        ),
    )
    _check(config)
    declared = declared_space(config, WHERE)
    plan = build_plan(config, declared, DatasetSize(), Path.cwd())
    return Declared(config=config, plan=plan, words=words, places=places)


def _places(scale: Mapping[str, str], application: DictConfig, searched: Mapping[str, Any]) -> dict[str, str]:
    """Check the keys that a stage's scale goes to."""
    for key, place in scale.items():
        if key not in SCALE_KEYS:
            raise UserError("is no scale", file=WHERE, key=f"scale.{key}", hint=nearest(key, SCALE_KEYS))
        if str(place).lstrip("+") in searched:
            raise UserError(f"'{place}' is searched, so a stage can't set it", file=WHERE, key=f"scale.{key}")
        if not str(place).startswith("+") and not has_path(application, str(place)):
            plain = OmegaConf.to_container(application, resolve=False)
            assert isinstance(plain, dict)
            paths = leaf_paths({str(name): value for name, value in plain.items()})
            raise UserError(
                f"'{place}' is not in the application's config", file=WHERE, key=f"scale.{key}",
                hint=f"{nearest(str(place), paths)} To add it, write '+{place}'",
            )  # fmt: skip
    return {key: str(place) for key, place in scale.items()}


def _own(application: DictConfig, names: Sequence[str]) -> dict[str, Any]:
    """Return what the application's config has for some keys, nested as it is there."""
    node = OmegaConf.create({})
    for name in names:
        try:
            value = OmegaConf.select(application, name, throw_on_missing=False)
            if isinstance(value, int | float | str):
                OmegaConf.update(node, name, value, force_add=True)
        except OmegaConfBaseException:
            # An interpolation without a value, or a name that is a config group's.
            continue
    return {str(key): value for key, value in OmegaConf.to_container(node, resolve=True).items()}  # type: ignore[union-attr]


def _stages(
    settings: Settings, space: tuple[Parameter, ...], own: Mapping[str, Any], paths: Mapping[str, str]
) -> dict[str, StageConfig]:
    """Return the ladder as declared, or a usual one."""
    common = {"sampler": settings.sampler, "keep": settings.keep}
    if settings.stages is None:
        whole = cardinality(space)
        if whole <= FEW and not {"data", "epochs"} & {*paths}:
            return {"all": StageConfig(trials=int(whole), sampler="grid")}
        return {
            name: StageConfig(trials=trials, **_share(share, own, paths), **common)  # type: ignore[arg-type]
            for name, (trials, share) in LADDER.items()
        }
    check_shape({"stages": settings.stages}, SweepConfig, WHERE)
    stages = {}
    for name, given in settings.stages.items():
        if "trials" not in given:
            raise UserError("needs a value", file=WHERE, key=f"stages.{name}.trials")
        try:
            merged = OmegaConf.merge(OmegaConf.structured(StageConfig), common, given)
            stage = OmegaConf.to_object(merged)
        except OmegaConfBaseException as error:
            problem = str(error).split("\n")[0]
            raise UserError(problem, file=WHERE, key=f"stages.{name}") from None
        assert isinstance(stage, StageConfig)
        stages[str(name)] = stage
    return stages


def _share(share: float, own: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return a share of the full scale: of the data, or else of the epochs that the application has."""
    if share == 1.0:
        return {}
    if "data" in paths:
        return {"data": round(share, 3)}
    epochs = OmegaConf.select(OmegaConf.create(dict(own)), paths["epochs"]) if "epochs" in paths else None
    if "epochs" in paths and not isinstance(epochs, int):
        raise UserError(
            f"'{paths['epochs']}' has no whole number, so a share of it is not known", file=WHERE,
            key="stages", hint="Write the stages out: stages: {coarse: {trials: 32, epochs: 3}}",
        )  # fmt: skip
    return {"epochs": max(1, round(share * epochs))} if epochs else {}


def _check(config: SweepConfig) -> None:
    """Check the stages, and what is tried first.

    Raises:
        UserError: something can't be.
    """
    space = declared_space(config, WHERE)
    if all(parameter.constant for parameter in space) and len(config.stages) > 1:
        raise UserError("nothing varies: every range has one value", file=WHERE)
    validate_stages(config, space, DatasetSize(), WHERE)
    for name, stage in config.stages.items():
        if stage.prune:
            raise UserError(
                "a job that reports nothing on its way can't be stopped", file=WHERE,
                key=f"stages.{name}.prune", hint="Leave it out",
            )  # fmt: skip
    starting_settings(config, space, WHERE)
