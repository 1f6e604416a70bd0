"""What the terminal shows of a plan: the ladder, the ranges, the price."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from orchestrator.planning.budget import parse_budget, planned_cost, show_amount
from orchestrator.planning.narrowing.holding import AUTO
from orchestrator.planning.plan import Phase, Plan
from orchestrator.report.layout import duration, hours, table
from orchestrator.report.units import counted
from orchestrator.space import Parameter, show
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE

WITHOUT_STUDENTS = 2  # waves of the ensemble: predictions, then the choice with its measurement


def show_plan(
    console: Console,
    plan: Plan,
    space: Sequence[Parameter],
    directory: Path,
    tied: Mapping[str, Any] | None = None,
) -> None:
    """Print the ladder, the ranges with their conditions, what is tied to them, and the price."""
    aim = "highest" if plan.mode == "max" else "lowest"
    console.print(f"[bold]{escape(plan.name)}[/]: the {aim} {escape(plan.metric)}")
    numbers = ("samples", "classes", "epochs", "trials", "tasks", "at once", "time")
    ladder = table("phase", *numbers, f"{plan.unit}-hours", right=(*numbers, f"{plan.unit}-hours"))
    for phase in plan.phases:
        ladder.add_row(escape(phase.name), *_ladder_row(phase))
    console.print(ladder)
    for note in plan.notes:
        console.print(Text(note), soft_wrap=False)
    for phase, after in zip(plan.phases, [*plan.phases[1:], None], strict=True):
        console.print(Text(f"{phase.name}: {_story(phase, after)}"), soft_wrap=False)
    conditions = ["only when"] if any(parameter.when for parameter in space) else []
    ranges = table("parameter", "range", *conditions, "hard limits")
    for parameter in space:
        when = [escape(parameter.when)] if conditions else []
        ranges.add_row(escape(parameter.name), escape(parameter.span()), *when, _limits(parameter))
    for name, expression in (tied or {}).items():
        ranges.add_row(escape(name), escape(f"= {expression}"))
    console.print(ranges)
    console.print(_price(plan))
    for warning in plan.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))
    console.print(Text(f"directory: {directory}"))


def _ladder_row(phase: Phase) -> list[str]:
    scale, cost = phase.scale, phase.cost
    if not phase.trains:
        return ["", "", "", str(phase.trials), "1", "1", "", ""]
    data = f"{scale.data:.0f}" if scale.data > 1 else f"{scale.data:.0%}"
    samples = f"{phase.samples:,} ({data})" if phase.samples is not None else data
    seconds = cost.seconds / (phase.array or 1) if cost.seconds is not None else None
    return [
        samples,
        str(scale.classes) if scale.classes is not None else "all",
        str(scale.epochs) if scale.epochs is not None else "job's",
        f"{phase.trials} + {phase.repeats}" if phase.repeats else str(phase.trials),
        f"{phase.tasks} × {phase.batch}",
        str(phase.array),
        duration(seconds),
        "?" if cost.hours is None else f"{cost.hours:.3g}",
    ]


def _story(phase: Phase, after: Phase | None) -> str:
    if phase.kind == ENSEMBLE:
        predicted = "every kept checkpoint predicts validation and test data"
        taught = ", and teaches students" if phase.waves > WITHOUT_STUDENTS else ""
        return f"{predicted}; validation data choose{taught}; then the test data's labels are read once"
    if phase.kind == CHECKS:
        tested = ", and tests which learning rates are worth a search" if phase.trials > 1 else ""
        return f"looks at the set-up on the first stage's data, and stops the sweep if it is unsound{tested}"
    if phase.kind == FINAL:
        seeds = phase.trials // phase.survivors
        best = "the best setting" if phase.survivors == 1 else f"the best {phase.survivors} settings"
        waves = f", chosen in {phase.waves} waves" if phase.waves > 1 else ""
        return f"{best} from {seeds} seed{'s' * (seeds > 1)}{waves}, {_kept(phase.scale.checkpoints)}"
    new = phase.trials - phase.survivors - phase.controls
    text = f"{_promoted(phase)}{new} new settings by {phase.sampler}"
    if phase.tune:
        text += f", {_tuned(phase.tune)}"
    if phase.waves > 1:
        text += f", drawn in {phase.waves} waves"
    if phase.repeats:
        text += f", then its best {phase.repeats} again from other seeds"
    if after is not None and after.kind == STAGE:
        return f"{text}; then every range is narrowed to where the best {phase.keep:.0%} were"
    return f"{text}; then the best go on to full scale" if after is not None else text


def _promoted(phase: Phase) -> str:
    """Say how many settings of the stage before run again."""
    counts = {"survivor": phase.survivors, "control": phase.controls}
    told = [counted(count, what) for what, count in counts.items() if count]
    return f"{' and '.join(told)}, " if told else ""


def _tuned(tune: Sequence[str]) -> str:
    """Say what a stage varies, and what not."""
    if tuple(tune) == (AUTO,):
        return "all tuned but what hardly mattered before, which is held"
    return f"tuning {', '.join(tune)} and holding the rest"


def _kept(checkpoints: int | Sequence[str]) -> str:
    """Return what is kept of each run: so many checkpoints, or those of the moments."""
    if isinstance(checkpoints, int):
        return f"{checkpoints} checkpoint{'s' * (checkpoints != 1)} kept of each run"
    return f"checkpoints kept of each run: {', '.join(checkpoints)}"


def _limits(parameter: Parameter) -> str:
    low, high = parameter.limits
    if low is None and high is None:
        return ""
    return f"{show(low) if low is not None else '…'} to {show(high) if high is not None else '…'}"


def _price(plan: Plan) -> str:
    total = plan.total
    parts = [f"total: [bold]{hours(total.hours, plan.unit)}[/]"]
    if plan.budget:
        budget = parse_budget(plan.budget)
        cost = planned_cost(plan.phases, budget)
        parts.append(f"{'?' if cost is None else show_amount(cost)} of a budget of {budget.show()}")
    if total.trained_samples is not None:
        parts.append(f"{total.trained_samples:,.0f} samples trained")
    if plan.full_scale_share is not None:
        trials = sum(phase.runs for phase in plan.phases if phase.trains)
        parts.append(f"{plan.full_scale_share:.1%} of what {trials} trials at full scale would take")
    return ", ".join(parts)
