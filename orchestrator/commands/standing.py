"""`orchestrate status`: where a sweep stands, on a screen, again and again, or as JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import (
    console,
    directory_argument,
    how_to_go_on,
    how_to_mend,
    json_option,
    open_target,
    say,
)

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.control.opened import Sweep
    from orchestrator.control.standing import Standing
    from orchestrator.space import Parameter

WATCH_SECONDS = 1.0
# Lines of a screen that are neither phases nor ranges, at most; ranges that are shown however low it is.
OTHER_LINES, LEAST_RANGES = 14, 3


@click.command()
@directory_argument
@json_option
@click.option("--watch", is_flag=True, help="Show it again and again until the sweep is at rest.")
@click.option("--why", is_flag=True, help="All ranges of all stages, with every reason in full.")
def status(directory: Path, as_json: bool, watch: bool, why: bool) -> None:
    """Show where a sweep stands: trials by state, best so far, cost, ranges that changed and why.

    With --watch, a line for each change where the output is no terminal.

    \b
    Examples:
      orchestrate status sweeps/digits
      orchestrate status sweeps/digits --watch
      orchestrate status sweeps/digits --why | less
      orchestrate status sweeps/digits --json | jq .phases
    """
    from orchestrator.control.drive import observe, owner

    sweep = open_target(directory, ())
    if as_json:
        click.echo(json.dumps({**observe(sweep).to_json(), "driven_by": owner(sweep)}, indent=1))
        return
    screen = console()
    standing = _watch(screen, sweep) if watch else observe(sweep)
    if not watch or screen.is_terminal:
        _show(screen, sweep, standing, why)
        return
    for sentence in _what_to_do(sweep, standing):
        say(screen, sentence)


def _show(screen: Console, sweep: Sweep, standing: Standing, why: bool) -> None:
    """Print all of it: what counts most first, and what is longest last."""
    from orchestrator.report.ranges import every_range_view, ranges_view
    from orchestrator.report.terminal import ensemble_view, standing_view
    from orchestrator.results.ensemble_file import read_ensemble

    screen.print(standing_view(standing, width=screen.width, brief=not why))
    for sentence in _what_to_do(sweep, standing):
        say(screen, sentence)
    if (combined := read_ensemble(sweep.directory)) is not None:
        screen.print(ensemble_view(combined))
    for sentence in _diagnoses(sweep, all_stages=why):
        say(screen, sentence)
    spaces = planned_spaces(sweep)
    if why:
        screen.print(every_range_view(spaces))
        return
    most = (
        max(LEAST_RANGES, screen.height - len(standing.phases) - OTHER_LINES) if screen.is_terminal else None
    )
    screen.print(ranges_view(spaces, declared=declared_ranges(sweep), width=screen.width, most=most))


def _what_to_do(sweep: Sweep, standing: Standing) -> Iterator[str]:
    """Give what a person should know, and can do."""
    from orchestrator.control.drive import owner
    from orchestrator.control.journal import last_line
    from orchestrator.control.submit import driver_log, handed_over

    if standing.message:
        yield standing.message
    if standing.state == "paused":
        yield from how_to_mend(sweep)
    if standing.state != "running":
        return
    by = owner(sweep)
    if by is None and handed_over(sweep.directory):
        words = last_line(driver_log(sweep.directory)) or "it said nothing"
        yield f"the job that drove it is gone; its last words: {words}"
    yield f"driven by {by}" if by else f"nobody drives it: {how_to_go_on(sweep)}"


def planned_spaces(sweep: Sweep) -> dict[str, tuple[Parameter, ...]]:
    """Return the ranges of each stage that has been planned."""
    from orchestrator.sweep.spaces import read_space

    spaces = {}
    for phase in sweep.plan.stages:
        path = sweep.directory.phase(phase.kind, phase.name).space
        if path.exists():
            spaces[phase.name] = read_space(path)
    return spaces


def declared_ranges(sweep: Sweep) -> tuple[Parameter, ...]:
    """Return the ranges that the first stage began with, those of what it holds too; none before that."""
    from orchestrator.planning.narrowing.holding import searchable
    from orchestrator.sweep.files import read_as
    from orchestrator.sweep.spaces import RANGES

    first = sweep.plan.stages[0]
    path = sweep.directory.phase(first.kind, first.name).space
    return read_as(path, searchable, RANGES) if path.exists() else ()


def _diagnoses(sweep: Sweep, *, all_stages: bool) -> list[str]:
    """Return what the trials of each stage, or the last one, have in common, once the one after has begun."""
    from orchestrator.sweep.spaces import read_diagnosis

    found: list[list[str]] = []
    for stage, after in pairwise(sweep.plan.stages):
        path = sweep.directory.phase(after.kind, after.name).space
        sentences = read_diagnosis(path) if path.exists() else []
        found.append([f"{stage.name}: {sentence}" for sentence in sentences])
    told = [sentences for sentences in found if sentences]
    return [sentence for sentences in (told if all_stages else told[-1:]) for sentence in sentences]


def _watch(screen: Console, sweep: Sweep) -> Standing:
    """Show where a sweep stands until it is at rest, or somebody has seen enough; returns the last look."""
    from orchestrator.control.drive import observe, owner
    from orchestrator.report.progress import Progress

    try:
        with Progress(screen, transient=True) as progress:
            if (standing := observe(sweep)).state == "running" and owner(sweep) is None:
                progress.note(f"nobody drives it: {how_to_go_on(sweep)}")
            while standing.state == "running":
                progress.show(standing)
                time.sleep(WATCH_SECONDS)
                standing = observe(sweep)
            progress.show(standing)
            return standing
    except KeyboardInterrupt:
        sys.exit(130)
