"""`orchestrate results`: rows of the results, chosen and in an order, in the terminal or as a file."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands import completing
from orchestrator.commands.sweeps import directory_argument, json_option
from orchestrator.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

    from orchestrator.report.selecting import Selected

# On a terminal, rows without --top: what a screen has room for, with the head and what is typed next.
LEAST_ROWS, OTHER_LINES = 10, 6
STATES = ("completed", "pruned", "diverged", "failed")


@click.command()
@directory_argument
@click.option(
    "--where", multiple=True, metavar="CONDITION", shell_complete=completing.columns,
    help="Only rows like this: 'objective > 0.9 and optimizer.lr < 1e-2'. Several must all hold.",
)  # fmt: skip
@click.option(
    "--stage",
    "stages",
    multiple=True,
    shell_complete=completing.stages,
    help="Only the trials of this stage.",
)
@click.option(
    "--state", "states", multiple=True, type=click.Choice(STATES), help="Only trials that ended so."
)
@click.option(
    "--top", type=click.IntRange(min=1), help="Only the best so many, or the first so many of --sort."
)
@click.option(
    "--sort", multiple=True, metavar="COLUMNS", shell_complete=completing.columns,
    help="By these columns, -COLUMN from large to small. Default: the last stage first, the best first.",
)  # fmt: skip
@click.option(
    "--columns", multiple=True, metavar="COLUMNS", shell_complete=completing.columns,
    help="Only these, such as trial_id,objective,param.*",
)  # fmt: skip
@click.option("--curves", is_flag=True, help="The reported steps of these trials instead.")
@click.option(
    "--format", "kind", type=click.Choice(["table", "vertical", "csv", "json", "jsonl", "parquet"]),
    help="Default: that of --output's name, else a table.",
)  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file; - is standard output.")
@click.option(
    "--dask", metavar="WHERE",
    help="Read what is new there: threads, a Dask scheduler's address, or slurm. Default: results.dask.",
)  # fmt: skip
@json_option
def results(
    directory: Path,
    where: tuple[str, ...],
    stages: tuple[str, ...],
    states: tuple[str, ...],
    top: int | None,
    sort: tuple[str, ...],
    columns: tuple[str, ...],
    curves: bool,
    kind: str | None,
    output: Path | None,
    dask: str | None,
    as_json: bool,
) -> None:
    """Show the results as a table, or export them; while the sweep runs, what has ended so far.

    Conditions compare columns with numbers, text and null by == != < <= > >=, in (a, b), contains, and join
    with and, or, not. A parameter or metric may be named without its prefix, and strange names stand in
    `backticks`.

    \b
    Examples:
      orchestrate results sweeps/digits --top 10
      orchestrate results sweeps/digits --where 'objective > 0.9 and optimizer.lr < 1e-2' --sort seconds
      orchestrate results sweeps/digits --state failed --columns trial_id,host,error --format vertical
      orchestrate results sweeps/digits --stage fine --format csv
      orchestrate results sweeps/digits --output results.parquet
      orchestrate results sweeps/digits --top 5 --curves --output best.jsonl
    """
    from orchestrator.report.export import TABLE, VERTICAL, format_of, write_rows
    from orchestrator.report.selecting import Wish, read_results, select

    if as_json and kind not in (None, "json"):
        raise UserError(f"--json and --format {kind} are two formats", file="command line", hint="Give one")
    kind = format_of("json" if as_json else kind, output)
    wish = Wish(where=where, stages=stages, states=states, top=top, sort=sort, columns=columns, curves=curves)
    _bring_up_to_date(directory, dask)
    selected = select(read_results(directory, curves=curves), wish)
    to_file = output is not None and str(output) != "-"
    if kind not in (TABLE, VERTICAL) or to_file or not sys.stdout.isatty():
        rows = selected.rows
        if kind == TABLE and not columns:
            rows = rows.select(_telling(rows, curves))
        write_rows(rows, kind, output)
        if to_file:
            click.echo(f"{rows.num_rows} {'steps' if curves else 'trials'} written to {output}")
    else:
        _show(selected, kind == VERTICAL, limited=top is None, asked=bool(columns), curves=curves)
    _explain_none(selected, curves)


def _bring_up_to_date(directory: Path, dask: str | None) -> None:
    """Compact what the tasks have written meanwhile; where that can't be done, what is there must do.

    Raises:
        UserError: it can't be done where `dask` says.
    """
    from orchestrator.control.act import compact_results
    from orchestrator.control.opened import open_sweep
    from orchestrator.control.rest import is_finished
    from orchestrator.sweep.directory import SweepDirectory

    place = SweepDirectory(directory.resolve())
    if not place.plan.exists() or (dask is None and is_finished(place)):
        return
    try:
        sweep = open_sweep(place)
        compact_results(sweep.directory, sweep.plan, sweep.config, dask)
    # Somebody else's sweep, a full disk, a sweep file of another version: all can be looked at.
    except (OSError, UserError) as error:
        if dask is not None and isinstance(error, UserError):
            raise
        click.echo(f"what is new could not be added: {error}", err=True)


def _show(selected: Selected, vertical: bool, *, limited: bool, asked: bool, curves: bool) -> None:
    """Print rows to a terminal: so many that the first ones stay on the screen, and what fits its width."""
    from orchestrator.report.tabular import table_lines, vertical_lines

    width, height = shutil.get_terminal_size()
    total = selected.rows.num_rows
    names = selected.rows.column_names if asked or vertical else _telling(selected.rows, curves)
    room = max(LEAST_ROWS, height - OTHER_LINES) if limited else total
    fitted = table_lines(selected.rows.slice(0, room).to_pylist(), names, width, bold=True)
    # Who asks for columns gets them all.
    if vertical := vertical or (asked and bool(fitted.dropped)):
        room = max(1, room // (len(names) + 1)) if limited else total
    rows = selected.rows.slice(0, room)
    lines = vertical_lines(rows.to_pylist(), names, width) if vertical else fitted.lines
    for line in lines if total else ():
        click.echo(line)
    notes = []
    if rows.num_rows < total:
        notes.append(
            f"the first {rows.num_rows:,} of {total:,} rows; others: --top, --where, | less, --output"
        )
    if fitted.dropped and not vertical:
        notes.append(f"no room for {_listed(fitted.dropped)}: --columns, --format vertical, | less -S")
    for line in (part for note in notes for part in textwrap.wrap(note, width)):
        click.secho(line, dim=True, err=True)


def _telling(rows: pa.Table, curves: bool) -> list[str]:
    """Return the columns that say most, the most important first."""
    if curves:
        return list(rows.column_names)
    params = [name for name in rows.column_names if name.startswith("param.")]
    return ["trial_id", "state", "objective", *params, "seconds"]


def _listed(names: Sequence[str]) -> str:
    few = ", ".join(names[:3])
    return f"{few} and {len(names) - 3} more" if len(names) > 4 else ", ".join(names)


def _explain_none(selected: Selected, curves: bool) -> None:
    if selected.rows.num_rows:
        return
    what = "reported steps" if curves else "trials"
    click.echo(f"none of {selected.of:,} {what} is like this" if selected.of else f"no {what} yet", err=True)
    for note in selected.notes:
        click.echo(note, err=True)
