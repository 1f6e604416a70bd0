"""Running a program as a trial: its output is read as it comes, and what it says goes into the records."""

from __future__ import annotations

import collections
import contextlib
import glob
import os
import signal
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from orchestrator.errors import ProgramFailed
from orchestrator.programs.arguments import (
    COMMAND,
    arguments,
    filled,
    from_snapshot,
    runs_module,
    words,
    write_config,
)
from orchestrator.programs.events import Events
from orchestrator.programs.files import Tailed
from orchestrator.programs.patterns import STEP, Matched, compiled
from orchestrator.programs.process import LOOK_SECONDS, end_as_asked, lines, started
from orchestrator.programs.told import Told, Trial
from orchestrator.schema import JobConfig, MetricConfig

# Lines of its output that are shown when a program fails, and characters of each.
LAST_LINES = 15
_LINE_CHARACTERS = 500
# Below the checkpoint_dir: what a trial told before it was interrupted.
STATE = ".program.json"


def run_program(
    job: JobConfig, metric: MetricConfig, snapshot: Path, config: DictConfig, trial: Trial
) -> dict[str, float]:
    """Run a job's command for one trial; returns each metric, of the last or the best step.

    A request to end (SIGTERM) goes to the program too. When that has ended, so does this process.

    Args:
        job: with a command.
        metric: the sweep's.
        snapshot: the user's code as it was planned; scripts that the command names are taken from there.
        config: the trial's.
        trial: gets a report for each step.

    Raises:
        ProgramFailed: it can't be started, failed, or did not give the metric; with its last lines.
        UserError: a name in braces has no value, or tensorboard is not installed.
        StopTrial: the trial was abandoned; the program has been ended.
    """
    call = _call(job, snapshot, config, trial)
    told = Told(
        trial, metric, keep_best=job.metrics.result == "best",
        state=trial.checkpoint_dir / STATE if job.resume.when and trial.leads else None,
    )  # fmt: skip
    if call.resumed:
        told.load()
    matched = Matched(compiled(job.metrics.output, "jobs.metrics.output"))
    sources = _sources(job, config, call, told, trial)
    tail = collections.deque[str](maxlen=LAST_LINES)
    with matched.bounded(), started(call.command, call.environment) as program:
        looked = time.monotonic()
        for line in lines(program):
            if line is not None:
                told.alive()
                tail.append(line[:_LINE_CHARACTERS])
                told.report(matched.line(line))
            if time.monotonic() - looked >= LOOK_SECONDS:
                for source in sources:
                    told.report(source.look())
                looked = time.monotonic()
        status = program.process.wait()
        told.report(matched.rest())
        for source in sources:
            told.report(source.rest())
    if program.asked:
        told.save()
        end_as_asked()
    _check_end(status, call.command[0], tail)
    if trial.leads and metric.name not in told.result:
        raise ProgramFailed(_nothing_of(metric.name, job, told.result, tail))
    return told.result


@dataclass(frozen=True, slots=True)
class _Call:
    """A trial's command, with all values filled in.

    Attributes:
        command: its words.
        environment: all its variables.
        own: what stands for the trial's own names in braces.
        resumed: it takes an interrupted attempt up.
    """

    command: list[str]
    environment: dict[str, str]
    own: Mapping[str, str]
    resumed: bool


def _call(job: JobConfig, snapshot: Path, config: DictConfig, trial: Trial) -> _Call:
    """Fill a trial's values in; its config file is written."""
    folder = trial.checkpoint_dir.resolve()
    own = {
        "checkpoint_dir": str(folder),
        "config_file": str(folder / (job.config_file or "config.json")),
        "python": sys.executable,
        "seed": str(trial.seed),
        "snapshot": str(snapshot),
        "stage": trial.stage,
        "trial": trial.id,
    }
    if job.config_file:
        write_config(Path(own["config_file"]), config)
    resumed = bool(job.resume.when) and _is_there(str(job.resume.when), config, own)
    command = arguments(words(job.command), config, own, COMMAND)
    if resumed and job.resume.add is not None:
        key = "jobs.resume.add"
        command += arguments(words(job.resume.add, key), config, own, key)
    # Without it what a Python program prints comes in blocks, and metrics late.
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if runs_module(command):
        # Else the current folder, where the code may have changed, comes before the snapshot.
        environment["PYTHONSAFEPATH"] = "1"
    for name, text in job.environment.items():
        value = None if text is None else filled(_plain(text), config, own, f"jobs.environment.{name}")
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    return _Call(from_snapshot(command, snapshot), environment, own, resumed)


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_there(pattern: str, config: DictConfig, own: Mapping[str, str]) -> bool:
    """Say whether there is a file of a pattern below the trial's folder."""
    escaped = {**own, "checkpoint_dir": glob.escape(own["checkpoint_dir"])}
    text = filled(pattern, config, escaped, "jobs.resume.when")
    return text is not None and any(glob.iglob(os.path.join(escaped["checkpoint_dir"], text)))


def _sources(
    job: JobConfig, config: DictConfig, call: _Call, told: Told, trial: Trial
) -> list[Tailed | Events]:
    """Return the files from which metrics are read, without what was in them before."""
    folder, metrics = Path(call.own["checkpoint_dir"]), job.metrics
    sources: list[Tailed | Events] = []
    if metrics.file and (name := filled(metrics.file, config, call.own, "jobs.metrics.file")):
        path = folder / name
        if trial.leads and not call.resumed and path.is_relative_to(folder):
            # Of an attempt that counts for nothing, and to whose rows the program would add its own.
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        sources.append(Tailed(path, metrics.step))
    if metrics.tensorboard and (
        name := filled(metrics.tensorboard, config, call.own, "jobs.metrics.tensorboard")
    ):
        sources.append(Events(folder / name))
    for source in sources:
        before = source.look()
        if call.resumed:
            told.know(before)
        else:
            collections.deque(before, maxlen=0)
    return sources


def _check_end(status: int, program: str, tail: Iterable[str]) -> None:
    """Refuse a program that has not ended well."""
    name, last = Path(program).name, _last_lines(tail)
    if status > 0:
        raise ProgramFailed(f"{name} ended with status {status}; its last lines:\n{last}")
    if status == -signal.SIGKILL:
        problem = f"{name} was killed by SIGKILL: out of memory, most likely; its last lines:\n{last}"
        raise ProgramFailed(problem) from MemoryError()
    if status < 0:
        try:
            how = signal.Signals(-status).name
        except ValueError:
            how = f"signal {-status}"
        raise ProgramFailed(f"{name} was killed by {how}; its last lines:\n{last}")


def _nothing_of(metric: str, job: JobConfig, found: Mapping[str, float], tail: Iterable[str]) -> str:
    """Say which metric the program did not give, where it was looked for, and what was there instead."""
    metrics = job.metrics
    if metric in metrics.output:
        looked = [f"no line of its output matches {metrics.output[metric]!r}"]
    else:
        looked = [f"{each} has none" for each in (metrics.file, metrics.tensorboard) if each]
        missed = [name for name in metrics.output if name != STEP and name not in found]
        looked += [f"no line of its output matches {metrics.output[name]!r} either" for name in missed]
    there = ", ".join(f"'{name}'" for name in sorted(found)[:20]) or "no metric at all"
    # What two trials have in common stands in the last line.
    return (
        f"the program's last lines:\n{_last_lines(tail)}\n"
        f"it ended well, but gave no '{metric}': {'; '.join(looked)}; there is {there}"
    )


def _last_lines(tail: Iterable[str]) -> str:
    return "\n".join(tail) or "(it printed nothing)"
