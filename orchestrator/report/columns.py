"""Columns as a person names them: in full, without the prefix of their group, or by a pattern."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from orchestrator.errors import UserError, nearest

GROUPS = ("param.", "metric.", "scale.")
_PATTERN = frozenset("*?[")


def matching(name: str, columns: Iterable[str]) -> list[str]:
    """Return the columns that a name may mean: the one of that name, else those with a group's prefix."""
    known = set(columns)
    return [name] if name in known else [group + name for group in GROUPS if group + name in known]


def resolve(name: str, columns: Sequence[str], option: str) -> str:
    """Return the column that a name means.

    Raises:
        UserError: none, or more than one.
    """
    found = matching(name, columns)
    if not found:
        raise UserError(f"there is no column '{name}'", file=option, hint=near(name, columns))
    if len(found) > 1:
        raise UserError(f"'{name}' may be {' or '.join(found)}", file=option)
    return found[0]


def chosen(words: Iterable[str], columns: Sequence[str], option: str) -> list[str]:
    """Return the columns that words name, in their order, each once.

    Args:
        words: each names some, separated by commas; `param.*` is all parameters.
        columns: that there are.
        option: for the message.

    Raises:
        UserError: a word names none.
    """
    found: list[str] = []
    for word in _words(words, columns, option):
        if word not in columns and _PATTERN & set(word):
            several = [column for column in columns if fnmatch.fnmatchcase(column, word)]
            if not several:
                raise UserError(f"no column is like '{word}'", file=option, hint=near(word, columns))
            found += several
        else:
            found.append(resolve(word, columns, option))
    return list(dict.fromkeys(found))


def order(words: Iterable[str], columns: Sequence[str], option: str) -> list[tuple[str, bool]]:
    """Return the columns to sort by, and for each whether it descends: `stage,-objective`.

    Raises:
        UserError: a word names no column.
    """
    found = []
    for word in _words(words, columns, option):
        # A column's own name may begin with a hyphen.
        down = word.startswith("-") and word not in columns
        found.append((resolve(word[down:], columns, option), down))
    return found


def short(column: str) -> str:
    """Return a column's name for the head of a table."""
    return column.removeprefix("param.")


def _words(words: Iterable[str], columns: Sequence[str], option: str) -> list[str]:
    known = set(columns)
    found = []
    for word in words:
        # A column's own name may hold a comma.
        parts = (
            [word] if matching(word.removeprefix("-"), known) else [one.strip() for one in word.split(",")]
        )
        found += [part for part in parts if part]
    if not found:
        raise UserError("names no column", file=option, hint=near("", columns))
    return found


def near(name: str, columns: Iterable[str]) -> str:
    """Return a hint that names the column whose full or short name is the nearest, or all columns."""
    full = list(columns)
    names = [*full, *(column.removeprefix(group) for group in GROUPS for column in full)]
    # By the end of a dotted name, as in lr for optimizer.lr, before one that is spelt alike.
    same_end = [one for one in names if one.endswith(f".{name}") and name]
    hint = (
        nearest(name, dict.fromkeys(names)) if not same_end else f"Did you mean '{min(same_end, key=len)}'?"
    )
    return hint if hint.startswith("Did") else f"There are: {', '.join(full)}"
