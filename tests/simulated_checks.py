"""What has to hold of a simulated sweep: while it runs, when it has come to its end, and at rest."""

from __future__ import annotations

import hashlib
import os
import re
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from faults import here
from simulated_templates import Template

from orchestrator.cluster.simulation.machine import Machine
from orchestrator.cluster.simulation.work import pretended_value
from orchestrator.control.advance import affordable_facts
from orchestrator.control.decide import DONE, Decision
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import PhaseFacts, read_phase
from orchestrator.sweep.submissions import read_submissions


class Seen(Protocol):
    """A sweep, and what there is to be seen of it.

    Attributes:
        whole: its results are really written.
        happened: what befell it, by name.
    """

    template: Template
    directory: SweepDirectory
    machine: Machine
    whole: bool
    happened: Counter[str]


class Checks:
    """Notes in `wrong` what does not hold."""

    def __init__(self, sweep: Seen) -> None:
        self._sweep = sweep
        self.wrong: list[str] = []
        self._counted: dict[str, tuple[int, float]] = {}
        self._frozen_files: dict[str, str] = {}
        self._stamps: dict[str, tuple[int, int]] = {}

    def try_out(self, check: Callable[[], None]) -> None:
        """Check something; what can't even be read is wrong too."""
        try:
            check()
        except Exception as error:
            self.wrong.append("".join(traceback.format_exception(error)))

    def frozen(self) -> None:
        """Check that what is frozen stays as it is."""
        for phase in self._sweep.template.plan.phases:
            folder = self._sweep.directory.phase(phase.kind, phase.name)
            for path in (*_files(folder.path, "trials", "space"), *_files(folder.submissions, "")):
                if path.endswith((".parquet", "space.json", ".intent.json")):
                    self._keep(path)

    def _keep(self, path: str) -> None:
        found = os.stat(path)
        stamp = found.st_ino, found.st_mtime_ns
        if self._stamps.get(path) == stamp:
            return
        self._stamps[path] = stamp
        digest = hashlib.sha1(Path(path).read_bytes()).hexdigest()
        if self._frozen_files.setdefault(path, digest) != digest:
            self.wrong.append(
                f"{os.path.relpath(path, self._sweep.directory.path)} changed after it was frozen"
            )
            self._frozen_files[path] = digest

    def end_of_task(self, path: str) -> None:
        """Check that what is about to be called lost, or nothing at all, is so on the cluster.

        Args:
            path: of any file that is about to be written.
        """
        found = re.search(r"/(\d+)\.(abandoned|lost-(\d+))\.json$", path)
        if found is None:
            return
        folder, before, here.process = Path(path).parent, here.process, None
        try:
            (submission,) = (one for one in read_submissions(folder) if one.number == int(found[1]))
        finally:
            here.process = before
        # What arrives late has nothing to run.
        jobs = [
            job
            for job in self._sweep.machine.alive()
            if job.token == submission.intent.token and job.payload is not None
        ]
        if found[3] is not None:
            assert submission.receipt is not None
            lost = submission.receipt.jobs[int(found[3])]
            jobs = [job for job in jobs if job.id == lost]
        if jobs:
            self.wrong.append(f"{path} is about to be written, and there is {jobs}")

    def counted(self) -> None:
        """Check that a result which others may have built on stays as it was."""
        happened = self._sweep.happened
        if any(happened[kind] for kind in ("node cut off", "requeued, ghost", "retried by a person")):
            return
        for phase in self._sweep.template.plan.phases:
            for trial, outcome in read_phase(self._sweep.directory, phase).outcomes.items():
                counts = outcome.submission, outcome.time
                if self._counted.setdefault(trial, counts) != counts:
                    self.wrong.append(f"the result of {trial} was {self._counted[trial]} and is {counts}")

    def cancelled(self) -> None:
        """Check that a cancelled sweep which has nothing more to do leaves nothing on the cluster."""
        # What was sent without anybody knowing ends by itself as soon as it begins.
        directory = self._sweep.directory
        phases = [directory.phase(phase.kind, phase.name) for phase in self._sweep.template.plan.phases]
        submissions = [one for folder in phases for one in read_submissions(folder.submissions)]
        known = {one.intent.token for one in submissions if one.receipt is not None}
        if left := [job for job in self._sweep.machine.alive() if job.token in known]:
            self.wrong.append(f"cancelled, and jobs are left on the cluster: {left}")

    def results(self) -> None:
        """Check that each trial of a sweep at its end has its one result, or a reason for having none."""
        config = self._sweep.template.config
        facts = affordable_facts(self._sweep.directory, self._sweep.template.plan, config)
        for known in facts.phases:
            given_up = known.given_up(config.slurm.attempts)
            if (
                len(known.trials) != known.planned
                or len({spec.trial_id for spec in known.trials}) != known.planned
            ):
                self.wrong.append(f"'{known.phase.name}' has {len(known.trials)} trials, not {known.planned}")
            for spec in known.trials:
                outcome = known.outcomes.get(spec.trial_id)
                if outcome is None:
                    reason = given_up.get(spec.trial_id, "")
                    if not self._called_for(reason):
                        self.wrong.append(f"{spec.trial_id} has no result ({reason})")
                elif list(outcome.metrics.values()) != [pretended_value(spec)]:
                    self.wrong.append(f"{spec.trial_id} has another setting's result")
            self._runs(known)
        if self._sweep.whole:
            import pandas as pd

            rows = sorted(pd.read_parquet(self._sweep.directory.results / "trials")["trial_id"])
            trained = [known for known in facts.phases if known.phase.trains]
            if rows != sorted(spec.trial_id for known in trained for spec in known.trials):
                self.wrong.append(f"the results hold {rows}")

    def _called_for(self, reason: str) -> bool:
        """Say whether a trial may have been given up for a reason."""
        twice = self._sweep.happened["out of memory"] > 1
        return reason == "its stage had closed" or (twice and reason.startswith("out of memory"))

    def _runs(self, known: PhaseFacts) -> None:
        """Check that each task which ran is in a receipt or abandoned, and what ran twice was lost before."""
        submissions = {one.number: one for one in known.submissions}
        runs: dict[str, set[tuple[int, int]]] = {}
        ends: dict[str, list[tuple[float, int]]] = {}
        folder = self._sweep.directory.phase(known.phase.kind, known.phase.name)
        for file in records.read_directory(folder.records):
            if not file.header:
                continue
            submission = submissions[file.header["submission"]]
            if submission.receipt is None and not submission.abandoned:
                self.wrong.append(f"{file.path.name} was written by a task outside a receipt")
            for line in file.lines:
                if line["kind"] == "start":
                    task = submission.number, int(file.header["task"])
                    runs.setdefault(line["trial"], set()).add(task)
                elif line["kind"] == "outcome":
                    ends.setdefault(line["trial"], []).append((line["time"], submission.number))
        for trial, outcome in known.outcomes.items():
            if (outcome.time, outcome.submission) != min(ends[trial]):
                self.wrong.append(
                    f"of the results of {trial} at {ends[trial]}, that at {outcome.time} counts"
                )
        for trial, tasks in runs.items():
            whole = [
                (number, index)
                for number, index in tasks
                if not submissions[number].abandoned
                and index not in submissions[number].losses
                and not known.forgiven(trial, number)
            ]
            if len(whole) > 1:
                self.wrong.append(f"{trial} ran in {whole}, none of which was lost")

    def rest(self, advance_on: Callable[[int], Decision | None]) -> None:
        """Check that a sweep at its end stays as it is when it is advanced.

        Args:
            advance_on: advances it from one of two machines.
        """
        before = self._tree()
        for host in range(2):
            decision = advance_on(host)
            if decision is None or decision.state != DONE or decision.actions:
                self.wrong.append(f"at rest there is still something to do: {decision}")
        if (after := self._tree()) != before:
            changed = {*before.items()} ^ {*after.items()}
            self.wrong.append(f"at rest files change: {sorted(path for path, _ in changed)}")

    def _tree(self) -> dict[str, str]:
        """Return every file's digest; who held the lease last is no fact of the sweep."""
        directory = self._sweep.directory
        return {
            str(path.relative_to(directory.path)): hashlib.sha1(path.read_bytes()).hexdigest()
            for path in directory.path.glob("**/*")
            if path.is_file() and path.parent != directory.lease
        }


def _files(folder: Path, *starts: str) -> list[str]:
    """Return the whole files of a folder whose names start so; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            return [
                e.path for e in entries if e.name[:1] != "." and e.name.startswith(starts) and e.is_file()
            ]
    except FileNotFoundError:
        return []
