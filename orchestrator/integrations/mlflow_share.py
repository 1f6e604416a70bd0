"""A sweep's trials as runs of MLflow: an experiment for the sweep, a run for each stage, its trials below."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from orchestrator.errors import UserError
from orchestrator.integrations.alone import alone
from orchestrator.integrations.combined import ENSEMBLE, combined
from orchestrator.integrations.ended import ended_trials
from orchestrator.integrations.installed import check_installed
from orchestrator.integrations.mlflow_book import ADDED, REPLACED, Book, open_book, write_run
from orchestrator.integrations.mlflow_names import name_of, tag_of
from orchestrator.integrations.mlflow_open import open_place
from orchestrator.integrations.mlflow_place import Place
from orchestrator.integrations.mlflow_runs import OF_ENSEMBLE, OF_TRIAL, run_of
from orchestrator.integrations.mlflow_stage import begin_stage, tell_stage
from orchestrator.integrations.shared import Shared
from orchestrator.results.load import Results, load_results
from orchestrator.results.schema import text

_NOTE_EVERY = 20


def share_with_mlflow(
    sweep: Path,
    place: Place,
    *,
    name: str | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> list[Shared]:
    """Write the ended trials of a sweep as runs of MLflow, those that are not there yet.

    Args:
        sweep: the sweep's directory; its results say what has ended.
        place: where the runs are kept.
        name: of the experiment; otherwise the sweep's.
        note: called now and then with how far it is.

    Raises:
        UserError: the package is missing, no results yet, an experiment of that name that is another's, or
            the place can't be used.
    """
    check_installed("mlflow")
    results = load_results(sweep)
    if place.is_folder:
        _check_paths(results)
    with alone(results.path) as lease, open_place(place) as client:
        book = open_book(client, text(results.name if name is None else name), results, lease)
        stages = [stage for stage in results.stages if len(results.at(stage))]
        shared = [_share_stage(book, results, stage, note) for stage in stages]
        if (ensemble := combined(results)) is not None:
            write_run(book, run_of(ensemble, OF_ENSEMBLE), (OF_ENSEMBLE, ENSEMBLE, ENSEMBLE))
    return shared


def _share_stage(book: Book, results: Results, stage: str, note: Callable[[str], None]) -> Shared:
    count = len(results.at(stage))
    took: list[str] = []
    for trial in ended_trials(results, stage):
        if not took:
            parent = begin_stage(book, results, stage, trial)
        if len(took) % _NOTE_EVERY == 0:
            note(f"{stage}: {len(took)} of {count}")
        key = OF_TRIAL, tag_of(trial.stage), tag_of(trial.trial_id)
        took.append(write_run(book, run_of(trial), key, parent))
    if took:
        tell_stage(book, parent, results, stage, trial)
    added, replaced = took.count(ADDED), took.count(REPLACED)
    return Shared(name=text(stage), stage=stage, trials=len(took), added=added, replaced=replaced)


def _check_paths(results: Results) -> None:
    """Refuse what a folder can't hold: there a metric is a file, and the part before a slash a folder.

    Raises:
        UserError: one name is the beginning of another.
    """
    names = {name_of(str(name)) for name in results.curves["metric"].unique()}
    names |= {name_of(str(name).removeprefix("metric.")) for name in results.trials.columns}
    for name in sorted(names):
        if clash := next((str(one) for one in PurePosixPath(name).parents if str(one) in names), None):
            raise UserError(
                f"MLflow can't keep both '{clash}' and '{name}' in a folder",
                hint="Give a database: sqlite:///FILE.db",
            )
