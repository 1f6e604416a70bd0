"""The exceptions that users meet."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: the command line prints it alone and exits with status 2.

    Args:
        problem: what is wrong, in one sentence.
        file: the file it stands in.
        key: the dotted key inside that file.
        hint: the nearest right thing, or what to do next.
    """

    def __init__(self, problem: str, *, file: object = None, key: str | None = None, hint: str = "") -> None:
        self.problem, self.file, self.key, self.hint = problem, file, key, hint
        where = ": ".join(str(part) for part in (file, key) if part)
        super().__init__(f"{where + ': ' if where else ''}{problem}{'. ' + hint if hint else ''}")


class Damaged(UserError):
    """What is written down of a sweep is not as it was written, so nothing of it can be trusted."""


class StopTrial(Exception):
    """Raised by `Trial.report` when the trial is abandoned; a job lets it pass through."""


class CheckFailed(Exception):
    """The checks before the first stage found the set-up unfit; the message says all there is to say."""


class ProgramFailed(Exception):
    """A job's command failed, or gave no metric; the message says all there is to say."""


class Busy(Exception):
    """Another process holds the sweep's lease."""


class SubmissionRefused(Exception):
    """The cluster took nothing of a submission, and says why.

    Args:
        reason: in the cluster's words.
        later: it is a limit on how much may be queued: fewer tasks, or the same ones later, may be taken.
    """

    def __init__(self, reason: str, *, later: bool = False) -> None:
        self.later = later
        super().__init__(reason)


class ClusterUnavailable(Exception):
    """The cluster can't be asked just now; nothing is known, so nothing is decided."""


class LeaseLost(Exception):
    """This process was fenced off: another one took the sweep over while it was stalled."""


def nearest(wrong: str, valid: Iterable[str]) -> str:
    """Return a hint that names the nearest of the valid names, or all of them where none is near."""
    names = sorted(str(name) for name in valid)
    if close := difflib.get_close_matches(wrong, names, n=1, cutoff=0.6):
        return f"Did you mean '{close[0]}'?"
    return f"Valid: {', '.join(names)}" if names else ""


def how_to_install(extra: str) -> str:
    """Return the command that brings the packages of one of this package's extras."""
    return f"pip install 'coarse-to-fine-orchestrator[{extra}]'"
