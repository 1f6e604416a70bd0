"""What was noticed about data, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

PROBLEM, WARNING, NOTE = "problem", "warning", "note"
LEVELS = (PROBLEM, WARNING, NOTE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing worth knowing.

    Attributes:
        code: what it is, for programs: "wrong_labels".
        level: PROBLEM (results would be wrong), WARNING (results would be worse) or NOTE.
        text: what was seen, in a sentence.
        advice: what to do about it.
        share: of the data that it concerns, 0 to 1; findings of one level are ordered by it.
    """

    code: str
    level: str
    text: str
    advice: str = ""
    share: float = 0.0


def ordered(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return findings with the weightiest first."""
    return tuple(sorted(findings, key=lambda each: (LEVELS.index(each.level), -each.share)))


def some(names: list[str], most: int = 5) -> str:
    """Return names for a sentence: the first few, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def counted(count: float, what: str) -> str:
    """Return a number with its noun in the singular or the plural: "1 row", "1,200 rows"."""
    return f"{count:,.0f} {what}{'' if count == 1 else 's'}"


def be(count: float) -> str:
    """Return "is" or "are", as the number wants it."""
    return "is" if count == 1 else "are"
