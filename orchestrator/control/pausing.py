"""Why a sweep pauses: what says that to go on would burn the budget for nothing."""

from __future__ import annotations

import re
from collections import Counter

from orchestrator.cluster.interface import COMPLETED, MEMORY, TIME_LIMIT, UNTOLD
from orchestrator.cluster.interface import FAILED as ENDED_FAILED
from orchestrator.sweep.directory import CHECKS
from orchestrator.sweep.facts import PhaseFacts
from orchestrator.sweep.records import FAILED

# The same error this often, and in so large a share of the trials, is the set-up's, not the setting's.
# One bad choice of two must not reach it by an unlucky order.
SAME_ERRORS, SAME_SHARE = 6, 0.75
# So many tasks that end before any trial of their phase has begun can't run at all.
NEVER_BEGAN = 3
# Ends that may be of the task's own doing.
OWN_DOING = (UNTOLD, COMPLETED, ENDED_FAILED, MEMORY, TIME_LIMIT)

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")


def why_pause(known: PhaseFacts, attempts: int, *, accepted: bool) -> str:
    """Return why a phase must not go on until a person has looked, or nothing.

    Args:
        known: the phase, which has begun.
        attempts: how often a trial is started when the cluster ends it.
        accepted: a person wants to go on in spite of what the checks found.
    """
    if known.phase.kind == CHECKS:
        return ("" if accepted else _unsound(known, attempts)) or _never_began(known)
    return _same_error(known) or _never_began(known)


def _unsound(known: PhaseFacts, attempts: int) -> str:
    """Return what the checks found wrong, or nothing."""
    failures = [outcome.error for outcome in known.outcomes.values() if outcome.state == FAILED]
    return "\n".join([*failures, *(f"the checks: {reason}" for reason in known.given_up(attempts).values())])


def _same_error(known: PhaseFacts) -> str:
    """Return how most trials failed in the same way, or nothing."""
    failures = [outcome for outcome in known.outcomes.values() if outcome.state == FAILED]
    if not failures:
        return ""
    signature, count = Counter(_signature(outcome.error) for outcome in failures).most_common(1)[0]
    if count < min(SAME_ERRORS, len(known.trials)) or count < SAME_SHARE * len(known.outcomes):
        return ""
    example = next(outcome for outcome in failures if _signature(outcome.error) == signature)
    return (
        f"{count} of {len(known.outcomes)} trials of '{known.phase.name}' failed in the same way; "
        f"here is one of them ({example.trial}):\n{example.error}"
    )


def _never_began(known: PhaseFacts) -> str:
    """Return how several tasks ended, of which none so much as began a trial, or nothing."""
    counts = [loss for loss in known.losses() if loss.cause in OWN_DOING and loss.blamed]
    if known.outcomes or any(known.started.values()) or len(counts) < NEVER_BEGAN:
        return ""
    return f"{len(counts)} tasks of '{known.phase.name}' ended before they began a trial: {counts[-1].reason}"


def _signature(error: str) -> str:
    """Return what is the same in one error met by two trials: its last line, without numbers."""
    last = error.strip().splitlines()[-1] if error.strip() else ""
    return _NUMBER.sub("#", last)
