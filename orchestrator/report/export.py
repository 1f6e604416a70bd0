"""`orchestrate results`: the trials as a table in the terminal, or as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from orchestrator.errors import UserError, nearest
from orchestrator.report.terminal import table
from orchestrator.results.load import load_results

if TYPE_CHECKING:
    import pandas as pd


def select_trials(sweep: Path, stage: str | None, top: int | None) -> pd.DataFrame:
    """Return the trials of a sweep, the best first within each stage.

    Raises:
        UserError: no results yet, or no such stage.
    """
    loaded = load_results(sweep)
    trials = loaded.trials
    if stage is not None:
        known = list(loaded.stages)
        if stage not in known:
            raise UserError(
                f"there is no stage '{stage}'", file=sweep, key="--stage", hint=nearest(stage, known)
            )
        trials = trials[trials["stage"] == stage]
    ascending = loaded.plan["metric"]["mode"] == "min"
    trials = trials.sort_values(["stage", "objective"], ascending=[False, ascending], na_position="last")
    return trials if top is None else trials.head(top)


def export_results(trials: pd.DataFrame, kind: str, output: Path | None, console: Console) -> None:
    """Print trials as a table, CSV or JSON, or write them to a file.

    Raises:
        UserError: the file's kind is not known.
    """
    if output is not None:
        _write(trials, output)
        console.print(f"{len(trials)} trials written to {escape(str(output))}")
    elif kind == "csv":
        print(trials.to_csv(index=False), end="")
    elif kind == "json":
        print(trials.to_json(orient="records", indent=1))
    else:
        _print(trials, console)


def _write(trials: pd.DataFrame, output: Path) -> None:
    match output.suffix:
        case ".csv":
            trials.to_csv(output, index=False)
        case ".json":
            trials.to_json(output, orient="records", indent=1)
        case ".parquet":
            trials.to_parquet(output, index=False)
        case other:
            raise UserError(f"'{other}' is no kind of file", file=output, hint="Valid: .csv, .json, .parquet")


def _print(trials: pd.DataFrame, console: Console) -> None:
    params = [name for name in trials.columns if name.startswith("param.")]
    view = table("trial", "state", "objective", *(name.removeprefix("param.") for name in params), "seconds")
    for row in trials.to_dict("records"):
        values = [row["objective"], *(row[name] for name in params), row["seconds"]]
        view.add_row(escape(str(row["trial_id"])), str(row["state"]), *(_cell(value) for value in values))
    console.print(view)


def _cell(value: object) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else escape(str(value))
