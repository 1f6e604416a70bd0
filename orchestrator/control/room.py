"""Room: how many tasks may be submitted now, by the cluster's limits and by what it refused before."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.sweep.submissions import Submission

# When the cluster had no room for even one task, the next try waits so long, twice as long each time, up to
# the most.
WAIT_SECONDS, MOST_WAIT_SECONDS = 60.0, 960.0


def learned(submissions: Iterable[Submission], now: float) -> int | None:
    """Return how many tasks one submission may have after what the cluster refused, None for any number.

    A refused number is halved until it is taken, and doubled from then on; 0 while it is no use to ask again.

    Args:
        submissions: of all phases.
        now: in seconds since the epoch, by the clock that wrote the refusals.
    """
    most: int | None = None
    not_before = 0.0
    wait = WAIT_SECONDS
    for submission in sorted(submissions, key=lambda one: (one.intent.created, one.number)):
        size = len(submission.intent.tasks)
        if submission.refusal is not None and submission.refusal.full:
            most = max(1, size // 2)
            if size == 1:
                not_before = submission.refusal.time + wait
                wait = min(2 * wait, MOST_WAIT_SECONDS)
        elif submission.receipt is not None and most is not None:
            # Sent before the refusal or after it: the cluster took so many.
            most, not_before, wait = 2 * max(most, size), 0.0, WAIT_SECONDS
    # A clock that was set back must not hold the sweep up for longer than the wait itself.
    return 0 if now < not_before <= now + MOST_WAIT_SECONDS else most
