"""What sharing a sweep's trials has done, for the command to tell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Shared:
    """One stage's trials in another tool.

    Attributes:
        name: what the stage is called there.
        stage: its name here.
        trials: how many of it have ended.
        added: how many of these were written just now.
        replaced: how many were written anew because they changed; None where nothing there ever changes.
    """

    name: str
    stage: str
    trials: int
    added: int
    replaced: int | None
