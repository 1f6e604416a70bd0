"""Nested validation: how good each way of combining is on samples that neither chose nor weighed.

The best of many candidates looks better on the samples that it was chosen by than it is, and so does an
ensemble that was fitted to them (Cawley and Talbot, "On over-fitting in model selection and subsequent
selection bias in performance evaluation", JMLR 2010). So the validation samples are dealt into folds; for
each fold the best single model is chosen and every method fitted on the other folds, and all are measured on
this one. Differences are paired: both sides saw the same samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.ensemble.combine import METHODS, check_method, fit
from orchestrator.ensemble.library import Library, Part
from orchestrator.ensemble.ranking import alone, sampled
from orchestrator.ensemble.scores import Targets, better, check_score, each_sample
from orchestrator.ensemble.stacking import dealt, why_not

SAMPLES = 20_000  # of more validation samples a seeded part is used
_FEWEST = 20  # of fewer, the differences say nothing
_IN_FOLD = 10  # samples of each fold, where that leaves at least two folds
_BYTES = 800_000_000  # of predictions kept in memory between the folds

_CERTAIN = 1.96  # standard errors: two-sided 95%
_SINGLE = "the best single model"

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Method:
    """What nested validation says of one way of combining.

    Attributes:
        value: the score on samples that it was not fitted to.
        gain: by how much that is better than the best single model, chosen in the same way; in the score's
            unit, positive is better.
        gain_error: its standard error, from the paired differences of the samples.
    """

    value: float
    gain: float
    gain_error: float


@dataclass(frozen=True, slots=True)
class Nested:
    """What was measured, and which way of combining it speaks for.

    Attributes:
        folds: how many; 0 where there were too few samples or candidates to measure anything.
        samples: how many were used.
        methods: by name.
        chosen: the name of one.
        why: in a sentence or two.
    """

    folds: int
    samples: int
    methods: dict[str, Method]
    chosen: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return asdict(self)


def nested(
    library: Library,
    targets: Targets,
    *,
    methods: Sequence[str] = METHODS,
    score: str,
    max_members: int,
    bags: int,
    folds: int,
    seed: int,
) -> Nested:
    """Measure ways of combining by nested validation, and choose the simplest of the good ones.

    Chosen is the first of `METHODS` that is within one standard error (of the paired difference) of the best.

    Args:
        library: what the candidates predict for validation samples.
        targets: right classes (n,) int64, or right values (n,) float32.
        methods: at least one of `METHODS`; stacking is left out where a fold has too few samples for it.
        score: one of `scores.MODES`.
        max_members, bags: as of `combine.fit`.
        folds: how many; fewer where there are few samples.
        seed: of the folds, the bags, and the samples where there are very many.

    Raises:
        UserError: a wrong name or number.
    """
    check_score(score, targets)
    for method in methods:
        check_method(method)
    rows = sampled(library.samples, SAMPLES, seed)
    part = Part(library, np.arange(library.samples) if rows is None else rows, _BYTES)
    targets = targets[part.rows]
    ordered = [each for each in METHODS if each in methods]
    folds = min(folds, max(2, part.samples // _IN_FOLD))
    if len(library) == 1 or part.samples < _FEWEST or folds < 2:
        return _unmeasured(library, part.samples, ordered)
    fold = dealt(targets, folds, seed)
    left_out = _left_out(ordered, targets, fold, library.outputs)
    ordered = [each for each in ordered if each not in left_out]
    options = {"score": score, "max_members": max_members, "bags": bags, "seed": seed}
    values = _held_out(part, targets, fold, ordered, options)
    notes = list(left_out.values())
    if rows is not None:
        notes.append(f"{part.samples} of {library.samples} validation samples were used")
    return _concluded(score, ordered, values, folds, notes)


def _concluded(
    score: str, methods: Sequence[str], values: dict[str, Values], folds: int, notes: list[str]
) -> Nested:
    """Return what the values of the samples say."""
    chosen, why = _choose(score, methods, values)
    measured = {name: _measured(score, values[name], values[_SINGLE]) for name in methods}
    sentences = "; ".join([why, _gain(measured[chosen]), *notes])
    return Nested(folds, len(values[chosen]), measured, chosen, sentences)


def _held_out(
    library: Library,
    targets: Targets,
    fold: NDArray[np.int64],
    methods: Sequence[str],
    options: dict[str, Any],
) -> dict[str, Values]:
    """Return each method's score for each sample, fitted without its fold; and the best single model's."""
    values = {name: np.empty(len(targets)) for name in (*methods, _SINGLE)}
    each_alone = alone(library, targets, options["score"])
    for held in range(int(fold.max()) + 1):
        rest, own = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        order = each_alone.order(rest)
        best = library.probabilities(order(options["score"])[0], own)
        values[_SINGLE][own] = each_sample(options["score"], best, targets[own])
        for name in methods:
            found = fit(name, Part(library, rest), targets[rest], order=order, **options)
            values[name][own] = each_sample(options["score"], found.apply(library, own), targets[own])
    return values


def _unmeasured(library: Library, samples: int, methods: Sequence[str]) -> Nested:
    """Return the simplest method, and why nothing was measured."""
    if len(library) == 1:
        why = "there is one candidate only: the ensemble is that one"
    elif samples < _FEWEST:
        why = f"{samples} validation samples are too few to compare methods: the simplest one is taken"
    else:
        why = "without two folds nothing can be compared: the simplest method is taken"
    return Nested(0, samples, {}, methods[0], why)


def _left_out(
    methods: Sequence[str], targets: Targets, fold: NDArray[np.int64], outputs: int
) -> dict[str, str]:
    """Return the methods that cannot be fitted without some fold, with the reason of each."""
    if "stacking" not in methods or methods == ["stacking"]:
        return {}
    for held in range(int(fold.max()) + 1):
        why = why_not(targets[fold != held], outputs)
        if why is not None:
            return {"stacking": f"stacking was left out: {why.removeprefix('stacking ')}"}
    return {}


def _measured(score: str, values: Values, single: Values) -> Method:
    """Return a method's value, and its gain over the best single model with the standard error."""
    gain, error = _difference(score, values, single)
    return Method(float(values.mean()), gain, error)


def _difference(score: str, values: Values, others: Values) -> tuple[float, float]:
    """Return by how much values are better than others on average, and the standard error of that."""
    error = float((values - others).std(ddof=1) / np.sqrt(len(values)))
    return better(score, float(values.mean()), float(others.mean())), error


def _choose(score: str, methods: Sequence[str], values: dict[str, Values]) -> tuple[str, str]:
    """Return the simplest method within one standard error of the best, and a sentence that says so."""
    if len(methods) == 1:
        return methods[0], f"{methods[0]} was the only method to try"
    best = max(methods, key=lambda name: better(score, float(values[name].mean()), 0.0))
    for name in methods:
        behind, error = _difference(score, values[best], values[name])
        # One sample's difference is one standard error to the last bit: rounding must not decide.
        if name == best or behind <= error * (1 + 1e-9):
            break
    figures = f"{score} {values[name].mean():.4g}"
    if name == best:
        return name, f"{name} is best on samples that it was not fitted to ({figures})"
    return name, (
        f"{name} is the simplest method within one standard error of the best, {best} "
        f"({figures} against {values[best].mean():.4g}, standard error of the difference {error:.2g})"
    )


def _gain(method: Method) -> str:
    """Return in words whether a method gains over the best single model."""
    gain, error = _short(method.gain), _short(method.gain_error)
    if method.gain > _CERTAIN * method.gain_error:
        return f"it gains {gain} ± {error} over the best single model"
    sign = "+" if method.gain >= 0 else ""
    return f"no gain over the best single model is certain ({sign}{gain} ± {error})"


def _short(value: float) -> str:
    """Return a number to two places or more, never with an exponent where it has no fraction to speak of."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}"
