"""What the terminal shows of where a sweep stands, and of how it ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.control.decide import CANCELLED, DONE, PAUSED, STUCK
from orchestrator.control.standing import PhaseStanding, Standing
from orchestrator.planning.narrowing.trust import Agreement, carries_over, describe, hardness, measured
from orchestrator.report.ensemble_words import summary_rows
from orchestrator.report.layout import duration, hours, table
from orchestrator.report.ranges import ranges_view
from orchestrator.space import Parameter, show
from orchestrator.sweep.directory import TRAINED

_COLOURS = {DONE: "green", PAUSED: "red", STUCK: "red", CANCELLED: "yellow"}
_SHORT = {"running": "run", "pruned": "cut", "diverged": "div", "failed": "fail"}  # on narrow terminals
MOST_OF_BAR, LEAST_OF_BAR, BETWEEN = 24, 5, 3  # cells
UNLIMITED = 10_000


def standing_view(standing: Standing, *, width: int = UNLIMITED, brief: bool = False) -> Group:
    """Return where a sweep stands as a table with bars, for the live view and for `status`.

    Args:
        standing: what to show.
        width: cells of a line; bars are shorter or left out where there is little room.
        brief: how rankings carry over as figures, not in sentences.
    """
    parts: list[RenderableType] = [*_headline(standing, width), _phases(standing.phases, width)]
    if standing.waiting:
        reasons = (f"{count} ({reason})" for reason, count in standing.waiting.items())
        parts.append(Text(f"tasks in the queue: {', '.join(reasons)}", style="dim"))
    if not brief:
        parts += [Text(describe(one)) for one in standing.agreements]
    elif standing.agreements:
        parts.append(Text(f"how rankings carry over (Kendall's tau): {_figures(standing.agreements)}"))
    unreadable = sum(phase.unreadable for phase in standing.phases)
    if unreadable:
        parts.append(Text(f"{unreadable} unreadable lines in the records were passed over", style="yellow"))
    return Group(*parts)


def _phases(phases: Sequence[PhaseStanding], width: int) -> Table:
    """Return a row for each phase; counts that are zero everywhere have no column."""
    columns: dict[str, list[str]] = {
        "phase": [phase.name for phase in phases],
        "done": [_done(phase) for phase in phases],
    }
    for state in ("running", "pruned", "diverged", "failed"):
        counts: list[int] = [getattr(phase, state) for phase in phases]
        if any(counts):
            columns[state] = [str(count or "") for count in counts]
    columns["best"] = ["" if phase.best is None else f"{phase.best:.4f}" for phase in phases]
    if _taken(columns) > width:
        columns = {_SHORT.get(head, head): cells for head, cells in columns.items()}
    for head in ("best", _SHORT["running"]):  # the best is in the headline too
        if _taken(columns) > width:
            columns.pop(head, None)
    bar = min(MOST_OF_BAR, width - _taken(columns) - BETWEEN)
    heads = ["phase", *([""] if bar >= LEAST_OF_BAR else []), *list(columns)[1:]]
    view = table(*heads, right=list(columns)[1:])
    for index, phase in enumerate(phases):
        first, *others = (escape(cells[index]) for cells in columns.values())
        bars = [ProgressBar(total=max(1, phase.planned), completed=phase.done, width=bar)]
        view.add_row(first, *(bars if bar >= LEAST_OF_BAR else []), *others)
    return view


def _taken(columns: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(cell_len, [head, *cells])) + BETWEEN for head, cells in columns.items())


def _done(phase: PhaseStanding) -> str:
    wave = f", wave {phase.wave} of {phase.waves}" if phase.wave and phase.waves > 1 else ""
    return f"{phase.done}/{phase.planned}{wave}"


def _figures(agreements: Sequence[Agreement]) -> str:
    """Return how far rankings carry over in a few figures: "coarse → fine 0.92, fine → final 0.3 loosely"."""
    return ", ".join(f"{one.low} → {one.high} {_figure(one)}" for one in agreements)


def _figure(agreement: Agreement) -> str:
    if not measured(agreement):
        return f"? ({agreement.settings} setting{'s' * (agreement.settings != 1)})"
    word = "" if hardness(agreement) >= 1 else " loosely" if carries_over(agreement) else " not at all"
    return f"{agreement.correlation:.2f}{word}"


def _headline(standing: Standing, width: int) -> list[Text]:
    """Return the name, the state, the best and the cost, in as many lines as they need."""
    parts = [Text(standing.name, style="bold"), Text(standing.state, _COLOURS.get(standing.state, "cyan"))]
    best = best_phase(standing)
    if best is not None:
        parts.append(Text(f"best {standing.metric} {best.best:.4f} ({best.name})"))
    spent = hours(standing.hours, standing.unit)
    if standing.planned_hours is not None:
        spent = spent.removesuffix(f" {standing.unit}-hours")
        spent += f" of {hours(standing.planned_hours, standing.unit)} planned"
    parts.append(Text(f"spent {spent}"))
    if standing.state == "running" and standing.seconds_left is not None:
        parts.append(Text(f"left {duration(standing.seconds_left)}"))
    lines = [parts[0]]
    for part in parts[1:]:
        if cell_len(lines[-1].plain) + 2 + cell_len(part.plain) > width:
            lines.append(part)
        else:
            lines[-1] = Text("  ").join([lines[-1], part])
    return lines


def best_phase(standing: Standing) -> PhaseStanding | None:
    """Return the latest phase with a result: its scale is the largest, so its best is what counts."""
    measured = [phase for phase in standing.phases if phase.best is not None and phase.kind in TRAINED]
    return measured[-1] if measured else None


def show_end(
    console: Console,
    standing: Standing,
    ensemble: Mapping[str, Any] | None,
    spaces: Mapping[str, Sequence[Parameter]],
    directory: Path,
    declared: Sequence[Parameter] = (),
) -> None:
    """Print how a finished sweep ended: best setting, figures, ranges, cost, where things lie."""
    console.print(ranges_view(spaces, declared=declared, width=console.width))
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
