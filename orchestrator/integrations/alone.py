"""One process at a time gives a sweep's trials away: two would both find the same ones missing."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import Busy, UserError
from orchestrator.sweep.lease import Lease, hold

PATIENCE_SECONDS = 20.0


@contextlib.contextmanager
def alone(sweep: Path) -> Iterator[Lease]:
    """Hold off others that share the same sweep, and be held off by them for a while.

    Args:
        sweep: its directory.

    Raises:
        UserError: somebody is at it, for longer than there is patience.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    try:
        folder = sweep / "lease-share"
        with hold(folder, "orchestrate share", wait=lambda owner: time.monotonic() < until) as lease:
            yield lease
    except Busy as owner:
        raise UserError(f"is being shared by {owner}", file=sweep, hint="Call this again later") from None
