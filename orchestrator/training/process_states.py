"""What each of a run's processes has of its own, for a state that any number of processes can take up.

With as many processes as before a run goes on with the same bits. With others it goes on with the same
weights, batches and rates, and with other random numbers in the processes that were not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.training.randomness import capture, restore, seed_all, seed_of
from orchestrator.training.run import Run


def process_states(run: Run) -> list[dict[str, Any]]:
    """Return the generators and the sums of a pass of every process, by rank; all of them call it."""
    return run.peers.collected({"random": capture(run.train.device), "sums": run.sums})


def restore_process(state: Mapping[str, Any], run: Run) -> None:
    """Give this process back what was its own, or what comes nearest to it.

    Args:
        state: of a training; its `processes` are what `process_states` gave.
        run: that the rest of the state was loaded into.
    """
    saved, peers, device = state["processes"], run.peers, run.train.device
    if peers.rank < len(saved):
        restore(saved[peers.rank]["random"], device)
    else:
        seed_all(seed_of(run.settings.seed, run.fold, peers.rank, run.updates), device)
    if len(saved) == peers.count:
        run.sums.copy_(saved[peers.rank]["sums"])
    elif peers.leads:
        run.sums.copy_(sum(each["sums"] for each in saved))
    else:
        run.sums.zero_()
