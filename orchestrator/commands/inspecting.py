"""The command that looks at data before any training."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import click

from orchestrator.commands.sweeps import checked, console, json_option, overrides_argument, short

_SAMPLE = 10_000


@click.command()
@click.argument("target")
@overrides_argument
@json_option
@click.option("--page", type=click.Path(path_type=Path), help="Write a page with pictures too: FILE.html.")
@click.option(
    "--sample",
    type=click.IntRange(min=10),
    default=_SAMPLE,
    show_default=True,
    help="Samples that are compared with each other, at most.",
)
def inspect(target: str, overrides: tuple[str, ...], as_json: bool, page: Path | None, sample: int) -> None:
    """Look at data before any training: balance, gaps, skew, copies, wrong labels, outliers.

    TARGET is a sweep file, a sweep's directory, a dataset of the catalogue (digits), or data: a Parquet
    table, a NumPy archive, IDX files, or a folder with a folder of pictures for each class.

    \b
    Examples:
      orchestrate inspect digits --page digits.html
      orchestrate inspect sweep.yaml
      orchestrate inspect flowers.parquet label=species
      orchestrate inspect pictures/ --sample 2000 --json
    """
    from orchestrator.inspection.examine import examine, to_json
    from orchestrator.inspection.target import resolve

    if page is not None:
        _writable(page)
    found = examine(resolve(target, checked(overrides)), sample, _progress(as_json))
    if not as_json and sys.stderr.isatty():
        click.echo("\r\x1b[K", nl=False, err=True)
    if page is not None:
        from orchestrator.inspection.page import write_page

        write_page(found, page)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=1))
        return
    from orchestrator.inspection.show import show

    show(console(), found)
    if page is not None:
        click.echo(f"page: {short(page)}")
    else:
        click.echo("Pictures and plots: --page FILE.html")


def _progress(quiet: bool) -> Callable[[str], None]:
    """Return what shows the step on a terminal, and does nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        return lambda text: None
    return lambda text: click.echo(f"\r\x1b[K{text} …", nl=False, err=True)


def _writable(page: Path) -> None:
    from orchestrator.errors import UserError

    if page.is_dir():
        raise UserError("is a folder", file=page, hint="Say the page's file: --page FILE.html")
    if not page.parent.is_dir():
        raise UserError("there is no such folder", file=page.parent)
