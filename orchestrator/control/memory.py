"""Out of memory: such a failure is no result while a larger request is declared and was not tried."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.schema import SlurmConfig
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import FAILED, MEMORY


def with_larger_requests(facts: Facts, resources: SlurmConfig) -> Facts:
    """Set aside the failures of trials that are to run again with `slurm.on_out_of_memory`."""
    if not resources.on_out_of_memory:
        return facts
    return replace(facts, phases=tuple(_set_aside(known) for known in facts.phases))


def _set_aside(known: PhaseFacts) -> PhaseFacts:
    asked = {submission.number for submission in known.submissions if submission.intent.larger}
    short: dict[str, int] = {}
    for submission in known.submissions:
        for loss in submission.losses.values():
            for trial in loss.blamed if loss.cause == MEMORY else ():
                if not known.forgiven(trial, submission.number):
                    short[trial] = max(short.get(trial, 0), submission.number)
    for trial, outcome in known.outcomes.items():
        if outcome.state == FAILED and outcome.cause == MEMORY:
            short[trial] = max(short.get(trial, 0), outcome.submission)
        else:
            short.pop(trial, None)
    # One that was given more and ran out of it has had its chance.
    short = {trial: number for trial, number in short.items() if number not in asked}
    outcomes = {trial: outcome for trial, outcome in known.outcomes.items() if trial not in short}
    return replace(known, outcomes=outcomes, short_of_memory=short)
