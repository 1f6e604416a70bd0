"""What one check found, in plain data."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: how it ended, what was found in one line, and what to change where something is wrong."""

    check: str
    result: str
    found: str
    advice: str = ""


def ok(check: str, found: str) -> Finding:
    """Return that a check found nothing wrong."""
    return Finding(check, OK, found)


def warning(check: str, found: str, advice: str = "") -> Finding:
    """Return that a check found what may be a hindrance."""
    return Finding(check, WARNING, found, advice)


def problem(check: str, found: str, advice: str = "") -> Finding:
    """Return that a check found what a sweep can't run with."""
    return Finding(check, PROBLEM, found, advice)
