"""A sweep's trials as a log folder of TensorBoard: FOLDER/STAGE/TRIAL, one event file in each.

A file's name tells its content, so what is there already needs no list: a trial whose file has the right
name is done, and any process may die at any instant. A trial that changed (it failed, and was run again) gets
a new file, and then the old one is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote

from orchestrator.errors import UserError
from orchestrator.integrations.alone import alone
from orchestrator.integrations.combined import ENSEMBLE, combined
from orchestrator.integrations.ended import OUTCOME, Ended, ended_trials, frozen_settings
from orchestrator.integrations.installed import check_installed
from orchestrator.integrations.shared import Shared
from orchestrator.results.load import Results, load_results
from orchestrator.results.schema import text
from orchestrator.sweep.files import create_exclusive, read_json, write_atomic

MARK = "orchestrator-share.json"  # says whose folder it is
_SUFFIX = ".orchestrator"
_NOTE_EVERY = 50


def share_with_tensorboard(
    sweep: Path, folder: Path, *, note: Callable[[str], None] = lambda text: None
) -> list[Shared]:
    """Write the ended trials of a sweep below a folder, those that are not there yet.

    Args:
        sweep: the sweep's directory; its results say what has ended.
        folder: where; made where there is none.
        note: called now and then with how far it is.

    Raises:
        UserError: the package is missing, no results yet, or the folder holds something else or can't be
            written to.
    """
    check_installed("tensorboard")
    from orchestrator.integrations.tensorboard_events import VERSION, run_file, trial_file

    results = load_results(sweep)
    shared = []
    with alone(results.path) as lease, _writable(folder):
        _claim(folder, results)
        kinds = _experiment(folder, results)
        for stage in results.stages:
            count = len(results.at(stage))
            done: list[str] = []
            for trial in ended_trials(results, stage):
                if len(done) % _NOTE_EVERY == 0:
                    note(f"{stage}: {len(done)} of {count}")
                    lease.confirm()
                name = _name(trial, trial.digest(VERSION, kinds))
                done.append(_place(_run(folder, trial), name, lambda one=trial: trial_file(one, kinds)))  # type: ignore[misc]
            if done:
                added, replaced = done.count("added"), done.count("replaced")
                shared.append(
                    Shared(name=stage, stage=stage, trials=len(done), added=added, replaced=replaced)
                )
        if (ensemble := combined(results)) is not None:
            name = _name(ensemble, ensemble.digest(VERSION))
            _place(folder / ENSEMBLE, name, lambda: run_file(ensemble))
    return shared


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Say whose permission is missing, and where.

    Raises:
        UserError: nothing may be written there.
    """
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise UserError(f"can't be written to ({error.strerror})", file=folder) from None


def _claim(folder: Path, results: Results) -> None:
    """Mark a folder as this sweep's, so that nothing of others is ever touched.

    Raises:
        UserError: it holds something else.
    """
    mine = str(results.plan.get("uid") or results.name)
    mark = folder / MARK
    if folder.exists() and not folder.is_dir():
        raise UserError("is no folder", file=folder)
    if not mark.exists():
        if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
            hint = f"Give a folder of its own, such as {folder / quote(text(results.name), safe=' ')}"
            raise UserError("holds something else", file=folder, hint=hint)
        create_exclusive(mark, json.dumps({"uid": mine, "sweep": text(results.name)}) + "\n")
    found = read_json(mark)
    if not isinstance(found, dict) or found.get("uid") != mine:
        whose = found.get("sweep", "?") if isinstance(found, dict) else "?"
        raise UserError(f"holds the trials of another sweep ('{whose}')", file=folder, hint="Give another")


def _experiment(folder: Path, results: Results) -> dict[str, str]:
    """Write what the HParams page has for columns; return what the values of each parameter are."""
    from orchestrator.integrations.tensorboard_events import experiment_file, kinds_of

    ranges = [pair for space in results.spaces.values() for pair in space.items()]
    declared = [(text(name), value) for name, spec in ranges for value in spec.get("values", (0,))]
    kinds = kinds_of([*declared, *frozen_settings(results)])
    metrics = [
        str(name).removeprefix("metric.") for name in results.trials if str(name).startswith("metric.")
    ]
    outcome = [OUTCOME + text(name) for name in metrics if name != results.metric]
    began = float(results.plan.get("created", 0.0))
    content = experiment_file(kinds, results.metric, outcome, began)
    digest = sha256(content).hexdigest()[:16]
    _place(folder, f"events.out.tfevents.{int(began):010d}.{digest}{_SUFFIX}", lambda: content)
    return kinds


def _run(folder: Path, trial: Ended) -> Path:
    return folder / quote(trial.stage, safe=" ") / quote(trial.trial_id, safe=" ")


def _name(trial: Ended, digest: str) -> str:
    # TensorBoard reads the files of a run in the order of their names.
    return f"events.out.tfevents.{int(trial.ended):010d}.{digest}{_SUFFIX}"


def _place(run: Path, name: str, content: Callable[[], bytes]) -> str:
    """Make a run's folder hold that one file of ours; return what that took: added, replaced or nothing."""
    before = [entry.name for entry in _entries(run) if entry.name.endswith(_SUFFIX)]
    if before == [name]:
        return "nothing"
    if name not in before:
        # Not written under its own name: TensorBoard takes any file with tfevents in it for one of its own.
        staged = run / "staged"
        write_atomic(staged, content())
        os.replace(staged, run / name)
    for other in before:
        if other != name:
            (run / other).unlink(missing_ok=True)
    return "replaced" if before else "added"


def _entries(run: Path) -> list[os.DirEntry[Any]]:
    try:
        with os.scandir(run) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
