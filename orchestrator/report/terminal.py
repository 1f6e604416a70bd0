"""What the terminal shows of a plan, of where a sweep stands, and of how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.control.decide import CANCELLED, DONE, PAUSED, STUCK
from orchestrator.control.standing import PhaseStanding, Standing
from orchestrator.planning.budget import parse_budget, planned_cost, show_amount
from orchestrator.planning.narrowing.trust import describe
from orchestrator.planning.plan import Phase, Plan
from orchestrator.report.ensemble_words import summary_rows
from orchestrator.space import Parameter, show
from orchestrator.sweep.directory import CHECKS, ENSEMBLE, FINAL, STAGE, TRAINED

WITHOUT_STUDENTS = 2  # waves of the ensemble: predictions, then the choice with its measurement
_COLOURS = {DONE: "green", PAUSED: "red", STUCK: "red", CANCELLED: "yellow"}


def duration(seconds: float | None) -> str:
    """Return seconds for a person to read."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60):02d} min"


def hours(value: float | None, unit: str) -> str:
    """Return GPU-hours or core-hours for a person to read."""
    if value is None:
        return "not known before the first trials"
    amount = f"{value:.1f}" if value >= 10 else f"{value:.2g}" if value >= 0.01 else f"{value:.4f}"
    return f"{amount} {unit}-hours"


def table(*columns: str, right: Sequence[str] = ()) -> Table:
    """Return an empty table in the style of all of them."""
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        # What a row is about is never cut; the other columns fold on a narrow terminal.
        result.add_column(column, justify=justify, overflow="fold", no_wrap=index == 0)
    return result


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
    promoted = f"{phase.survivors} survivors and {phase.controls} controls, " if phase.survivors else ""
    text = f"{promoted}{new} new settings by {phase.sampler}"
    if phase.waves > 1:
        text += f", drawn in {phase.waves} waves"
    if phase.repeats:
        text += f", then its best {phase.repeats} again from other seeds"
    if after is not None and after.kind == STAGE:
        return f"{text}; then every range is narrowed to where the best {phase.keep:.0%} were"
    return f"{text}; then the best go on to full scale" if after is not None else text


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


def standing_view(standing: Standing, spaces: Mapping[str, Sequence[Parameter]] | None = None) -> Group:
    """Return where a sweep stands as a table with bars, for the live view and for `status`."""
    phases = table(
        "phase", "", "done", "running", "failed", "best", right=("done", "running", "failed", "best")
    )
    for phase in standing.phases:
        bar = ProgressBar(total=max(1, phase.planned), completed=phase.done, width=24)
        phases.add_row(
            escape(phase.name),
            bar,
            _done(phase),
            str(phase.running or ""),
            _failed(phase),
            "" if phase.best is None else f"{phase.best:.4f}",
        )
    parts: list[RenderableType] = [_headline(standing), phases]
    if standing.waiting:
        reasons = (f"{count} ({reason})" for reason, count in standing.waiting.items())
        parts.append(Text(f"tasks in the queue: {', '.join(reasons)}", style="dim"))
    parts += [Text(describe(one)) for one in standing.agreements]
    unreadable = sum(phase.unreadable for phase in standing.phases)
    if unreadable:
        parts.append(Text(f"{unreadable} unreadable lines in the records were passed over", style="yellow"))
    if spaces:
        parts.append(ranges_view(spaces))
    return Group(*parts)


def _done(phase: PhaseStanding) -> str:
    wave = f", wave {phase.wave} of {phase.waves}" if phase.wave and phase.waves > 1 else ""
    return f"{phase.done}/{phase.planned}{wave}"


def _failed(phase: PhaseStanding) -> str:
    parts = [
        f"{phase.pruned} pruned" if phase.pruned else "",
        f"{phase.failed}" if phase.failed else "",
        f"{phase.diverged} diverged" if phase.diverged else "",
    ]
    return ", ".join(part for part in parts if part)


def _headline(standing: Standing) -> Text:
    text = Text()
    text.append(standing.name, style="bold")
    text.append("  ")
    text.append(standing.state, style=_COLOURS.get(standing.state, "cyan"))
    best = best_phase(standing)
    if best is not None:
        text.append(f"  best {standing.metric} {best.best:.4f} ({best.name})")
    text.append(f"  spent {hours(standing.hours, standing.unit)}")
    if standing.planned_hours is not None:
        text.append(f" of {hours(standing.planned_hours, standing.unit)} planned")
    if standing.state == "running":
        text.append(f"  left {duration(standing.seconds_left)}")
    return text


def best_phase(standing: Standing) -> PhaseStanding | None:
    """Return the latest phase with a result: its scale is the largest, so its best is what counts."""
    measured = [phase for phase in standing.phases if phase.best is not None and phase.kind in TRAINED]
    return measured[-1] if measured else None


def ranges_view(spaces: Mapping[str, Sequence[Parameter]]) -> Group:
    """Return each parameter's range in every stage, and why it is what it is in the last one."""
    first = next(iter(spaces.values()))
    conditional = any(parameter.when for parameter in first)
    ranges = table("parameter", *spaces, *(["only when"] if conditional else []))
    for index, parameter in enumerate(first):
        spans = [escape(space[index].span()) for space in spaces.values()]
        ranges.add_row(escape(parameter.name), *spans, *([escape(parameter.when)] if conditional else []))
    if len(spaces) == 1:
        return Group(ranges)
    lines = [
        Text(f"{stage}: {parameter.name} {parameter.reason}", style="dim")
        for stage, space in list(spaces.items())[1:]
        for parameter in space
    ]
    return Group(ranges, *lines)


def show_end(
    console: Console,
    standing: Standing,
    ensemble: Mapping[str, Any] | None,
    spaces: Mapping[str, Sequence[Parameter]],
    directory: Path,
) -> None:
    """Print how a finished sweep ended: best setting, figures, ranges, cost, where things lie."""
    console.print(ranges_view(spaces))
    best = best_phase(standing)
    summary = Table.grid(padding=(0, 2))
    if best is not None and best.best_params is not None:
        setting = ", ".join(f"{name} {show(value)}" for name, value in best.best_params.items())
        summary.add_row("best setting", escape(setting))
    if ensemble is not None:
        _add_figures(summary, ensemble)
    elif best is not None:
        summary.add_row("best", f"{escape(standing.metric)} {best.best:.4f} ({escape(best.best_trial)})")
    cost = hours(standing.hours, standing.unit)
    if standing.planned_hours:
        planned = hours(standing.planned_hours, standing.unit)
        cost += f" against {planned} planned ({standing.hours / standing.planned_hours:.0%})"
    summary.add_row("cost", cost)
    summary.add_row("results", escape(str(directory / "results")))
    summary.add_row("report", escape(str(directory / "report.html")))
    console.print(summary)


def ensemble_view(ensemble: Mapping[str, Any]) -> Table:
    """Return what an ensemble came to, in a few lines."""
    summary = Table.grid(padding=(0, 2))
    _add_figures(summary, ensemble)
    return summary


def _add_figures(summary: Table, ensemble: Mapping[str, Any]) -> None:
    for about, text in summary_rows(ensemble):
        summary.add_row(about, escape(text))
