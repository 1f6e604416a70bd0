"""Checks of a job that is a command: its words, what they stand for, and where its metrics come from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from orchestrator.config import has_path, job_config, leaf_paths
from orchestrator.errors import UserError, nearest
from orchestrator.programs.arguments import COMMAND, OF_THE_TRIAL, places, scripts, words
from orchestrator.programs.events import check_installed
from orchestrator.programs.patterns import STEP, compiled
from orchestrator.schema import RESULTS, JobConfig, MetricsConfig, ResumeConfig, SweepConfig
from orchestrator.space import Parameter
from orchestrator.space.ties import ordered_ties

_OF_SHELLS = ("&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1")
_CONFIGS = (".json", ".yaml", ".yml")


def validate_command(config: SweepConfig, space: tuple[Parameter, ...], file: Path | str) -> None:
    """Check `jobs.command` and what belongs to it.

    Raises:
        UserError: the first thing that is wrong, with its file and key.
    """
    try:
        if config.jobs.command is None:
            _only_with_command(config.jobs)
            return
        if config.jobs._target_ is not None:
            raise UserError(
                "the job has both a function (jobs._target_) and a command", key=COMMAND,
                hint="Leave one of them out",
            )  # fmt: skip
        texts = _texts(config.jobs)
        _no_shell(config.jobs)
        _places(config, texts)
        _config_file(config.jobs, texts)
        _metrics(config.jobs.metrics, config.metric.name)
        if bool(config.jobs.resume.when) != (config.jobs.resume.add is not None):
            missing = "add" if config.jobs.resume.when else "when"
            hint = "Both are needed: {when: last.pt, add: '--resume {checkpoint_dir}/last.pt'}"
            raise UserError("needs a value", key=f"jobs.resume.{missing}", hint=hint)
        _reached(config, space, texts)
    except UserError as error:
        raise UserError(error.problem, file=file, key=error.key, hint=error.hint) from None


def check_program(config: SweepConfig, folder: Path, file: Path | str) -> None:
    """Find a job's program, and the scripts that its words name, without running any.

    Args:
        config: with a command.
        folder: of the sweep file.
        file: the sweep file, for messages.

    Raises:
        UserError: one is not there.
    """
    command = words(config.jobs.command)
    program, *rest = command
    slurm = config.slurm
    # The shell lines of a cluster's tasks, or their container, may bring programs that this machine lacks.
    elsewhere = slurm.executor != "local" and bool(slurm.setup or slurm.python)
    if not places(program) and "/" not in program and not elsewhere and shutil.which(program) is None:
        hint = nearest(program, [name for name in ("python3", "python", "bash", "sh") if shutil.which(name)])
        if program.startswith("python"):
            hint += f" {{python}} is the one that runs the tasks: '{{python}} {' '.join(rest)}'"
        elif (folder / program).is_file():
            hint = f"The file of this name beside the sweep file is ./{program}"
        raise UserError(f"there is no program '{program}'", file=file, key=COMMAND, hint=hint.strip())
    if not places(program) and "/" in program and not (folder / program).is_file() and not elsewhere:
        raise UserError(f"there is no file {folder / program}", file=file, key=COMMAND)
    script = next((word for word in rest if not word.startswith("-")), "")
    # What an interpreter is given first: with another word in front of it, it may be anything.
    if (
        rest[:1] == [script]
        and script.endswith((".py", ".sh"))
        and not places(script)
        and not (folder / script).is_file()
    ):
        found = [path.name for path in folder.glob(f"*{Path(script).suffix}")]
        problem = f"there is no file {folder / script}"
        raise UserError(problem, file=file, key=COMMAND, hint=nearest(script, found))


def code_of(config: SweepConfig, folder: Path) -> list[Path]:
    """Return the files beside a sweep file that its command names: they are code, whatever their ending."""
    return [] if config.jobs.command is None else scripts(words(config.jobs.command), folder)


def _only_with_command(job: JobConfig) -> None:
    if job._target_ is None:
        raise UserError("the job has neither a function (jobs._target_) nor a command", key="jobs._target_")
    for name, given in (
        ("environment", bool(job.environment)),
        ("config_file", job.config_file is not None),
        ("metrics", job.metrics != MetricsConfig()),
        ("resume", job.resume != ResumeConfig()),
    ):
        if given:
            hint = "A function gets its config, and reports its metrics by trial.report"
            raise UserError(
                "is for a command (jobs.command), and the job is a function", key=f"jobs.{name}", hint=hint
            )


def _texts(job: JobConfig) -> dict[str, list[str]]:
    """Return the texts of a job in which braces may stand, by their keys."""
    texts = {COMMAND: words(job.command)}
    for name, value in job.environment.items():
        key = f"jobs.environment.{name}"
        if not re.fullmatch(r"[^=\0]+", str(name)):
            raise UserError(f"{name!r} can't be a variable's name", key=key)
        if isinstance(value, Mapping | list):
            hint = "Put a value with braces in quotation marks: '{lr}'"
            raise UserError(f"{value!r} is no text", key=key, hint=hint)
        texts[key] = [] if value is None else [str(value)]
    if job.resume.add is not None:
        texts["jobs.resume.add"] = words(job.resume.add, "jobs.resume.add")
    for key, text in (
        ("jobs.resume.when", job.resume.when),
        ("jobs.metrics.file", job.metrics.file),
        ("jobs.metrics.tensorboard", job.metrics.tensorboard),
    ):
        if text is not None:
            texts[key] = [text]
    for key, found in texts.items():
        if any("\0" in text for text in found):
            raise UserError("a NUL character can't be given to a program", key=key)
    return texts


def _no_shell(job: JobConfig) -> None:
    """A command is started without a shell; what only a shell understands would be taken for arguments."""
    if not isinstance(job.command, str):
        return
    for word in words(job.command):
        if word in _OF_SHELLS:
            hint = "Start one: [bash, -c, 'first && second']"
            raise UserError(f"`{word}` is for a shell, and there is none between", key=COMMAND, hint=hint)


def _places(config: SweepConfig, texts: Mapping[str, Iterable[str]]) -> None:
    node = job_config(config)
    plain: Any = OmegaConf.to_container(node, resolve=False)
    known = [*leaf_paths(plain), *_of_groups(config)]
    for key, found in texts.items():
        for name in (name for text in found for name in places(text)):
            if name not in known and name not in OF_THE_TRIAL and not has_path(node, name):
                hint = nearest(name, [*known, *OF_THE_TRIAL])
                if not re.fullmatch(r"[\w.@/-]+", name):
                    hint = "A brace that is meant as such is written twice: {{"
                raise UserError(f"{{{name}}} is not in the job's config", key=key, hint=hint)


def _of_groups(config: SweepConfig) -> list[str]:
    """Return the paths that the options of config groups bring."""
    return [
        path
        for group, options in config.jobs.groups.items()
        for option in (options.values() if isinstance(options, dict) else ())
        if isinstance(option, dict)
        for path in [*leaf_paths(option, f"{group}."), group]
    ]


def _config_file(job: JobConfig, texts: Mapping[str, Iterable[str]]) -> None:
    name, key = job.config_file, "jobs.config_file"
    used = any("config_file" in places(text) for found in texts.values() for text in found)
    if name is None:
        if used and not has_path(OmegaConf.create(dict(job.config)), "config_file"):
            raise UserError("needs a value", key=key, hint="Name the file of {config_file}: config.yaml")
        return
    if Path(name).suffix not in _CONFIGS or Path(name).name != name:
        raise UserError(
            f"'{name}' is no name of a config file", key=key, hint="Write config.json or config.yaml"
        )
    if not used:
        hint = "Write {config_file} in jobs.command, or in a variable of jobs.environment"
        raise UserError("the command is not told of it", key=key, hint=hint)


def _metrics(metrics: MetricsConfig, metric: str) -> None:
    key = "jobs.metrics"
    compiled(metrics.output, f"{key}.output")
    if metrics.result not in RESULTS:
        raise UserError(
            f"'{metrics.result}' is not known", key=f"{key}.result", hint=nearest(metrics.result, RESULTS)
        )
    if metrics.step is not None and metrics.file is None:
        hint = "Of the output it is the pattern called step: output: {step: 'epoch %'}"
        raise UserError("is for a file of metrics, and there is none", key=f"{key}.step", hint=hint)
    if metrics.tensorboard is not None:
        check_installed()
    if metrics.file is not None or metrics.tensorboard is not None:
        return
    names = [name for name in metrics.output if name != STEP]
    if not names:
        hint = (
            f"Match the output, output: {{{metric}: 'accuracy: %'}}; or name a file or tensorboard's folder"
        )
        raise UserError("there is no place to find the command's metrics", key=key, hint=hint)
    if metric not in names:
        problem = f"the sweep's metric '{metric}' is not among them"
        raise UserError(problem, key=f"{key}.output", hint=nearest(metric, names))


def _reached(config: SweepConfig, space: tuple[Parameter, ...], texts: Mapping[str, Iterable[str]]) -> None:
    """A parameter that the command never sees makes all its trials the same unnoticed; so does a scale."""
    for name, key in _scaled(config).items():
        if name in config.jobs.scale and config.jobs.scale[name] is None:
            hint = f"Name a key of its config: jobs.scale: {{{name}: ...}}"
            raise UserError("a command can't take it from the trial", key=key, hint=hint)
    if config.jobs.config_file is not None or "${" in str(config.jobs.config):
        # It gets all of it; or what depends on what is known only when a trial's config is resolved.
        return
    told = _told(config, texts)
    needed = {each.name: (f"space.{each.name}", "it is searched, but") for each in space}
    for name, key in _scaled(config).items():
        if place := config.jobs.scale.get(name):
            needed.setdefault(place, (key, f"it is written to '{place}', but"))
    for path, (key, what) in needed.items():
        # Of a group of options the command may see one of their keys alone.
        options = path in config.jobs.groups and any(_among(name, {path}) for name in told)
        if not options and not _among(path, told):
            hint = f"Write {{{path}}} in jobs.command, or give it a config file: jobs.config_file"
            raise UserError(f"{what} the command never sees it", key=key, hint=hint)


def _told(config: SweepConfig, texts: Mapping[str, Iterable[str]]) -> set[str]:
    """Return the keys of the config that the command is told of, and those that these are computed from."""
    own = [found for key, found in texts.items() if not key.startswith(("jobs.metrics", "jobs.resume"))]
    told = {name for found in own for text in found for name in places(text)}
    for path, expression in reversed(ordered_ties(config.tied).items()):
        if _among(path, told):
            told |= set(expression.names)
    return told


def _among(path: str, told: Iterable[str]) -> bool:
    """Say whether a path, or what it is in, is among those that the command is told."""
    return any(path == name or path.startswith(f"{name}.") for name in told)


def _scaled(config: SweepConfig) -> dict[str, str]:
    """Return the scales that stages set, and where."""
    found: dict[str, str] = {}
    for name, stage in config.stages.items():
        whole: dict[str, Any] = {"data": 1.0}
        for scale in ("data", "classes", "epochs", "validation_size", "resolution", "augment"):
            if getattr(stage, scale) != whole.get(scale):
                found.setdefault(scale, f"stages.{name}.{scale}")
    if config.final.epochs is not None:
        found.setdefault("epochs", "final.epochs")
    return found
