"""The ranges of a sweep's parameters in the terminal: what has become of them, or every stage's, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Group
from rich.markup import escape
from rich.text import Text

from orchestrator.report.layout import table
from orchestrator.space import Parameter

Spaces = Mapping[str, Sequence[Parameter]]

MOST_OF_SPAN, LEAST_OF_REASON = 34, 24  # cells
MOST_OF_LINE = 160  # cells: in a pipe, where lines may be as long as they like, reasons would fill a page
BETWEEN = 3


def ranges_view(
    spaces: Spaces, *, declared: Sequence[Parameter] = (), width: int, most: int | None = None
) -> Group:
    """Return the ranges that have changed, a line each: as they were, as they are, and why.

    Args:
        spaces: the parameters of each stage that has been planned.
        declared: those of the first stage as they were before it held any; left out, as it searched them.
        width: cells of a line.
        most: so many ranges at most; what is left out is said.
    """
    width = min(width, MOST_OF_LINE)
    if not spaces or not next(iter(spaces.values())):
        return Group()
    if len(spaces) == 1:
        return Group(_every(spaces))
    changed = _changes(spaces, declared or next(iter(spaces.values())))
    shown = changed[:most]
    stage = list(spaces)[-1]
    names = [name for name, *_ in shown]
    now = [_cut(span) for _, span, _, _ in shown]
    before = [_cut(span) for _, _, span, _ in shown]
    room = width - sum(_widest(cells) + BETWEEN for cells in (["parameter", *names], [stage, *now])) - BETWEEN
    with_before = room >= (needed := _widest(["declared", *before]) + BETWEEN)
    room -= needed if with_before else 0
    with_reason = room >= LEAST_OF_REASON
    columns = [*(["declared"] if with_before else []), stage, *(["why"] if with_reason else [])]
    view = table("parameter", *columns)
    for (name, _, _, reason), new, old in zip(shown, now, before, strict=True):
        cells = [*([old] if with_before else []), new, *([_cut(reason, room)] if with_reason else [])]
        view.add_row(escape(name), *map(escape, cells))
    others = _others(spaces, [name for name, *_ in changed], len(shown))
    others.append(Text("the ranges of all stages, and why: orchestrate status DIR --why", style="dim"))
    return Group(*([view] if shown else []), *others)


def _changes(spaces: Spaces, declared: Sequence[Parameter]) -> list[tuple[str, str, str, str]]:
    """Return name, range now, range at first and the reason for the last change, of those that changed."""
    stages = [("declared", declared), *spaces.items()]
    found = []
    for index, parameter in enumerate(stages[-1][1]):
        spans = [space[index].span() for _, space in stages]
        changes = [number for number in range(1, len(spans)) if spans[number] != spans[number - 1]]
        # What a stage held and the next one gave back is as it was.
        if changes and spans[-1] != spans[0]:
            stage, space = stages[changes[-1]]
            found.append((parameter.name, spans[-1], spans[0], f"{stage}: {space[index].reason}"))
    return found


def _others(spaces: Spaces, changed: Sequence[str], shown: int) -> list[Text]:
    lines = []
    if left := changed[shown:]:
        lines.append(Text(f"narrowed or widened too: {', '.join(left)}", style="dim"))
    same = [parameter.name for parameter in next(iter(spaces.values())) if parameter.name not in changed]
    if same:
        lines.append(Text(f"ranges as declared: {', '.join(same)}", style="dim"))
    return lines


def every_range_view(spaces: Spaces) -> Group:
    """Return each parameter's range in every stage, and why it is what it is, in all words."""
    lines = [
        Text(f"{stage}: {parameter.name} {parameter.reason}", style="dim")
        for stage, space in list(spaces.items())[1:]
        for parameter in space
    ]
    return Group(*([_every(spaces)] if spaces else []), *lines)


def _every(spaces: Spaces) -> Group:
    first = next(iter(spaces.values()), ())
    conditional = any(parameter.when for parameter in first)
    view = table("parameter", *spaces, *(["only when"] if conditional else []))
    for index, parameter in enumerate(first):
        spans = [escape(space[index].span()) for space in spaces.values()]
        view.add_row(escape(parameter.name), *spans, *([escape(parameter.when)] if conditional else []))
    return Group(view)


def _widest(cells: Sequence[str]) -> int:
    return max(map(cell_len, cells))


def _cut(text: str, width: int = MOST_OF_SPAN) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
