"""Choosing the ensemble: on validation data alone, and written down before any test label is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from orchestrator.ensemble import ablation
from orchestrator.ensemble.calibration import temperature
from orchestrator.ensemble.combine import METHODS, Combination
from orchestrator.ensemble.fitted import Fitted, describe, described_key, fitted, place_of
from orchestrator.ensemble.library import Probabilities
from orchestrator.ensemble.looks import digest
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.nested import Nested, nested
from orchestrator.ensemble.pool import Pool, read_pool
from orchestrator.ensemble.scores import MODES
from orchestrator.ensemble.store import Predict, read_library, read_named
from orchestrator.ensemble.stored import CLASSIFICATION
from orchestrator.ensemble.stored_library import VALIDATION
from orchestrator.ensemble.teaching import write_teacher
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.files import create_exclusive, read_as
from orchestrator.worker.job import load_function

VERSION = 2
SOUP = "soup"

Soup = Callable[
    [SweepDirectory, SweepConfig, Sequence[tuple[Candidate, float]], Predict], Mapping[str, Any] | None
]


def choose(directory: SweepDirectory, config: SweepConfig, *, soup: Soup | None = None) -> dict[str, Any]:
    """Choose the ensemble once; what was chosen before, or by another process meanwhile, stays.

    Args:
        directory, config: the sweep, its final runs' predictions stored.
        soup: makes an average of weights across runs, and stores what that predicts.

    Returns:
        The content of `choice.json`.

    Raises:
        UserError: nothing is stored, or what there is does not fit together.
    """
    if not directory.choice.exists():
        create_exclusive(directory.choice, as_text(decide(directory, config, soup=soup)))
    return read_choice(directory)


def read_choice(directory: SweepDirectory) -> dict[str, Any]:
    """Return what was chosen.

    Raises:
        UserError: nothing was, or somebody changed the file.
    """
    if not directory.choice.exists() and directory.ensemble_result.exists():
        raise UserError(
            "an early version of this program combined it, and kept no predictions to choose from again",
            file=directory.path,
            hint=f"What it chose can be handed over: orchestrate export {directory.path} OUT",
        )
    if not directory.choice.exists():
        raise UserError("no ensemble is chosen yet", file=directory.choice, hint="Go on: orchestrate run")
    return read_as(directory.choice, _vetted, "the choice of an ensemble")


def _vetted(choice: dict[str, Any]) -> dict[str, Any]:
    if missing := {"best_single", "members", "combination", "score"} - choice.keys():
        raise KeyError(min(missing))
    return choice


def as_text(content: Mapping[str, Any]) -> str:
    """Return a file's content as JSON."""
    return json.dumps(content, indent=1) + "\n"


def decide(
    directory: SweepDirectory,
    config: SweepConfig,
    *,
    soup: Soup | None = None,
    former: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Choose the ensemble, and write nothing but the soup's files.

    Args:
        directory, config: as for `choose`.
        soup: as for `choose`.
        former: an earlier choice, whose soup is taken over.

    Raises:
        UserError: as for `choose`.
    """
    pool = read_pool(directory, config)
    method = _method(pool, config)
    chosen = fitted(pool, pool.places, method.chosen, config)
    skipped = list(pool.library.skipped)
    made = former.get(SOUP) if former is not None else _soup(directory, config, soup, pool, skipped)
    predicted = _predicted(directory, pool, chosen, made is not None)
    return {
        "version": VERSION,
        "task": pool.library.task,
        "score": pool.score,
        "mode": MODES[pool.score],
        "asked": asdict(config.ensemble),
        "combine": method.chosen,
        "candidates": len(pool.places),
        "skipped": skipped,
        "members": _members(pool, chosen),
        "combination": chosen.combination.to_json(),
        "best_single": describe(pool.library.candidates[pool.best]),
        "soup": made,
        "temperature": _temperatures(pool, predicted),
        "nested": method.to_json(),
        "validation": _validation(pool, chosen, predicted),
        "validation_samples": pool.library.samples,
        "methods": _methods(pool, method, chosen, config),
        "ablation": _ablation(pool, method.chosen, config),
    }


def teach(directory: SweepDirectory, config: SweepConfig, predict: Predict) -> None:
    """Write what the chosen ensemble predicts for the training data, unless that is there.

    Args:
        directory, config: the sweep, its ensemble chosen.
        predict: the job's; it predicts the training data with each member once.

    Raises:
        UserError: nothing was chosen, or a member's checkpoint can't be used.
    """
    choice = read_choice(directory)
    library = read_library(directory, VALIDATION)
    members = [library.candidates[place_of(library, described_key(each))] for each in choice["members"]]
    combination = Combination.from_json(choice["combination"])
    heat = choice["temperature"].get("ensemble")
    write_teacher(directory.teacher, members, combination, predict, digest(choice), heat)


def _method(pool: Pool, config: SweepConfig) -> Nested:
    """Choose how to combine by nested validation; a declared way is measured in the same manner."""
    asked = config.ensemble
    return nested(
        pool.library.restricted(pool.places),
        pool.targets,
        methods=METHODS if asked.combine == "auto" else (asked.combine,),
        score=pool.score,
        max_members=asked.max_members,
        bags=asked.bags,
        folds=asked.folds,
        seed=config.seed,
    )


def _predicted(
    directory: SweepDirectory, pool: Pool, chosen: Fitted, with_soup: bool
) -> dict[str, Probabilities]:
    """Return what the models that are compared predict for validation samples."""
    found = {
        "best_single": pool.library.probabilities(pool.best),
        "ensemble": chosen.apply(pool.library),
    }
    if with_soup:
        found[SOUP] = read_named(directory, SOUP, VALIDATION, pool.library.ids).probabilities(0)
    return found


def _members(pool: Pool, chosen: Fitted) -> list[dict[str, Any]]:
    """Return the members with their weights, which sum to 1."""
    candidates = [pool.library.candidates[place] for place in chosen.places(pool.library)]
    weights = chosen.combination.weights
    return [describe(each) | {"weight": weight} for each, weight in zip(candidates, weights, strict=True)]


def _validation(pool: Pool, chosen: Fitted, predicted: Mapping[str, Probabilities]) -> dict[str, float]:
    """Return scores on validation data; the average member is the plain mean over distinct members."""
    members = [pool.value(pool.library.probabilities(place)) for place in chosen.places(pool.library)]
    values = {name: pool.value(each) for name, each in predicted.items()}
    return values | {"average_member": float(np.mean(members))}


def _methods(pool: Pool, method: Nested, chosen: Fitted, config: SweepConfig) -> dict[str, Any]:
    """Return every way of combining as it comes out on all of the validation data."""
    found = {}
    for name in METHODS:
        if name == method.chosen:
            found[name] = chosen.to_json()
            continue
        try:
            found[name] = fitted(pool, pool.places, name, config).to_json()
        except UserError:  # Too few samples for this one, which was not asked for.
            continue
    return found


def _ablation(pool: Pool, method: str, config: SweepConfig) -> list[dict[str, Any]]:
    """Return the ensembles of some kinds of members alone."""
    kinds = ablation.rows(pool.library.candidates, pool.merits, config.ensemble.members)
    return [
        {"kinds": list(some), "candidates": len(places)} | fitted(pool, places, method, config).to_json()
        for some, places in kinds
    ]


def _temperatures(pool: Pool, predicted: Mapping[str, Probabilities]) -> dict[str, float]:
    """Return the temperature of each; values have none."""
    if pool.library.task != CLASSIFICATION:
        return {}
    return {
        name: temperature(each, np.asarray(pool.targets, dtype=np.int64)) for name, each in predicted.items()
    }


def _soup(
    directory: SweepDirectory,
    config: SweepConfig,
    soup: Soup | None,
    pool: Pool,
    skipped: list[dict[str, str]],
) -> dict[str, Any] | None:
    """Make an average of weights of networks such as the best one; it must not stop the ensemble."""
    if soup is None or config.jobs.predict is None:
        return None
    candidates, model = pool.library.candidates, pool.library.candidates[pool.best].model
    some = [place for place in range(len(candidates)) if candidates[place].model == model]
    values = [(candidates[p], pool.value(pool.library.probabilities(p))) for p in some]
    try:
        found = soup(directory, config, values, load_function(config.jobs.predict, "jobs.predict"))
    except UserError:
        raise
    # It goes through a user's own predict and set-up, and the ensemble is good without it.
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        skipped.append({"checkpoint": SOUP, "why": why})
        return None
    return None if found is None else _flat(found)


def _flat(found: Mapping[str, Any]) -> dict[str, Any]:
    """Put the description of a soup's candidate beside what is said of it."""
    rest = {key: value for key, value in found.items() if key not in ("description", "validation")}
    return {**dict(found.get("description") or {}), **rest}
