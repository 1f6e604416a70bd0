"""Processes of this machine that carry a submission's token in their command line."""

from __future__ import annotations

import os

import psutil


def with_token(token: str, name: str | None = None) -> list[psutil.Process]:
    """Return the living processes, this one apart, in whose command line the token stands.

    Args:
        token: of a submission.
        name: only processes of this program; None: any. One may be gone by the time it is asked for its name.
    """
    found = []
    for process in psutil.process_iter():
        try:
            alive = process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE
            named = name is None or process.name() == name
            if alive and named and any(token in argument for argument in process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found
