"""Retrying: run failed trials again, after a fix of the code or a cancelled sweep."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from orchestrator.control.opened import Sweep
from orchestrator.planning.validate_command import code_of
from orchestrator.sweep import lease
from orchestrator.sweep.facts import Retry, checked_path, compacted_path, read_facts, retries_path
from orchestrator.sweep.files import create_exclusive
from orchestrator.sweep.records import FAILED
from orchestrator.sweep.snapshot import take_snapshot


def retry(sweep: Sweep) -> int:
    """Forget the failures so far and take the user's code as it is now; returns how many trials run again.

    Raises:
        Busy: another process is driving the sweep.
    """
    directory = sweep.directory
    with lease.hold(directory.lease, "orchestrate retry"):
        facts = read_facts(directory, sweep.plan)
        wishes: list[Retry] = []
        for known in facts.phases:
            failed = {trial for trial, outcome in known.outcomes.items() if outcome.state == FAILED}
            # One that is being run again already needs no wish, which would have it run twice.
            failed |= set(known.attempts()) - set(known.outcomes) - known.with_cluster()
            if known.submissions:
                last = max(submission.number for submission in known.submissions)
                wishes.append(Retry(phase=known.phase.name, trials=frozenset(failed), submission=last))
        folder = Path(sweep.plan.folder)
        take_snapshot(folder, directory, code_of(sweep.config, folder))
        # The new code is imported once more before anything is submitted.
        checked_path(directory).unlink(missing_ok=True)
        if wishes:
            _write(retries_path(directory), wishes)
        # As many outcomes as before may mean other ones, so the results are due again.
        compacted_path(directory).unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            directory.cancelled.unlink()
    return sum(len(wish.trials) for wish in wishes)


def _write(folder: Path, wishes: list[Retry]) -> None:
    content = [{**asdict(wish), "trials": sorted(wish.trials)} for wish in wishes]
    number = 1 + max((int(path.stem) for path in folder.glob("[0-9]*.json")), default=0)
    while not create_exclusive(folder / f"{number:04d}.json", json.dumps(content)):
        number += 1
