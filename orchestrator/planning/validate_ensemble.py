"""Checking how the ensemble is combined, before anything runs and when it is combined anew."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UserError, nearest
from orchestrator.schema import COMBINE, MEMBERS, SCORES, EnsembleConfig


def validate_ensemble(asked: EnsembleConfig, file: Path | str) -> None:
    """Refuse kinds of members, methods, scores and counts that there are not.

    Args:
        asked: the section `ensemble` of a sweep file.
        file: to name in errors.

    Raises:
        UserError: with the nearest right value.
    """
    known: list[tuple[str, str, tuple[str, ...]]] = [
        *(("ensemble.members", member, MEMBERS) for member in asked.members),
        ("ensemble.combine", asked.combine, COMBINE),
    ]
    if asked.score is not None:
        known.append(("ensemble.score", asked.score, tuple(SCORES)))
    for key, value, valid in known:
        if value not in valid:
            raise UserError(f"'{value}' is not known", file=file, key=key, hint=nearest(value, valid))
    for name, least in (("max_members", 1), ("bags", 1), ("folds", 2)):
        value = getattr(asked, name)
        if value < least:
            problem = f"{value} is too few; the least is {least}"
            raise UserError(problem, file=file, key=f"ensemble.{name}")
