"""Narrowing: from the stages' results to the next stage's ranges, with a reason for every parameter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.planning.narrowing.choices import drop_unsound, narrow_choice, narrow_ordered, with_value
from orchestrator.planning.narrowing.drift import drift
from orchestrator.planning.narrowing.evidence import (
    Sample,
    StageResults,
    ranked,
    samples,
    sound,
    soundness_of,
)
from orchestrator.planning.narrowing.importance import importance
from orchestrator.planning.narrowing.numbers import CORE, Grip, cut_unsound, narrow_number
from orchestrator.planning.narrowing.trust import Agreement, carries_over, few, figures, hardness, measured
from orchestrator.planning.sampling.observation import Observation
from orchestrator.space import CHOICE, Parameter, show, with_reason

__all__ = ["StageResults", "narrow"]

# Fewer results than this say too little to give anything up.
FEWEST_TRIALS = 6
NOTHING = "kept: no trial of the stage gave a result to go by"
# When more than this share of the trials is as good as the good ones, they don't tell good from bad.
TIE_SHARE = 0.6
# A parameter with less than this share of an equal importance hardly matters and is cut less.
MATTERS = 0.25
# Among good trials two parameters are tied when their ranks correlate so much more than among all trials, at
# this two-sided normal quantile (98%) of Fisher's transformation.
TIED, TIED_QUANTILE = 0.3, 2.33
# Then they are cut so much less hard.
CONFOUNDED = 0.5


def narrow(
    space: Sequence[Parameter],
    stages: Sequence[StageResults],
    *,
    keep: float,
    margin: float,
    trust: Agreement | None,
) -> tuple[Parameter, ...]:
    """Draw the next ranges.

    Each parameter's range is cut to where good results are not rarer than elsewhere (`window`), less hard the
    less rankings carry over between scales, the less the parameter matters, and where its good values hang on
    another's; moved past an edge that the best press against; and moved along a drift (`drift`).

    Whatever the results: the best trial lies in every range; no range inverts or passes a hard limit; the
    order of the trials is irrelevant; the same results give the same ranges anywhere.

    Args:
        space: the ranges that the last stage searched; of parameters that it held, those before they were
            held (`holding.searchable`).
        stages: all stages so far, oldest first; the last one decides, the others tell of drift.
        keep: the share of the trials that counts as good.
        margin: how much wider than where the good trials lie the next range is, as a share of that.
        trust: how far rankings carry over between the last two scales; None: not measured.

    Returns:
        The parameters in the same order, each with its reason.
    """
    last = stages[-1].observations if stages else ()
    shares = importance(space, last)
    evidence = [(stage, samples(space, stage.observations, keep)) for stage in stages]
    there = evidence[-1][1] if evidence else {}
    tied = _tied(space, ranked(last), keep)
    after = []
    for parameter in space:
        sample = there.get(parameter.name)
        if sample is None or not sound(sample.trials[0]):
            after.append(with_reason(parameter, _nothing(last, sample)))
        elif reason := _too_little(parameter, sample, keep):
            after.append(_unchanged(parameter, reason, sample))
        elif not carries_over(trust):
            assert trust is not None, "what was not measured is trusted"
            after.append(_only_sound(parameter, sample, trust))
        else:
            grip = _grip(parameter, shares, tied, margin, trust)
            after.append(_narrowed(parameter, sample, grip, evidence))
    return tuple(after)


def _narrowed(
    parameter: Parameter,
    sample: Sample,
    grip: Grip,
    evidence: Sequence[tuple[StageResults, Mapping[str, Sample]]],
) -> Parameter:
    if parameter.kind == CHOICE:
        return (narrow_ordered if parameter.ordered else narrow_choice)(parameter, sample, grip)
    return narrow_number(parameter, sample, grip, drift(parameter, evidence))


def _nothing(trials: Sequence[Observation], sample: Sample | None) -> str:
    """Say why no result tells of a parameter, although others may have given results."""
    if not any(sound(trial) for trial in trials):
        return NOTHING
    if sample is None:
        return "kept: no trial of the stage had it"
    number = len(sample.trials)
    return f"kept: {'the only trial' if number == 1 else f'all {number} trials'} that had it diverged"


def _too_little(parameter: Parameter, sample: Sample, keep: float) -> str:
    """Say why the trials that have a parameter tell nothing about its range; empty where they do."""
    there = sample.trials
    if parameter.constant:
        return "held at " + show(parameter.values[0] if parameter.kind == CHOICE else parameter.low)
    if len(there) < FEWEST_TRIALS:
        trials = "1 trial is" if len(there) == 1 else f"{len(there)} trials are"
        return f"kept: {trials} too few to give anything up"
    first = there[0].params[parameter.name]
    if all(type(other := trial.params[parameter.name]) is type(first) and other == first for trial in there):
        return f"kept: all trials had {show(first)}"
    good = sample.best
    if len(good) > TIE_SHARE * len(there) and len(good) > keep * len(there) + 1:
        return (
            f"kept: {len(good)} of {len(there)} trials reach {good[-1].objective:.4g}, which tells none apart"
        )
    return ""


def _unchanged(parameter: Parameter, reason: str, sample: Sample) -> Parameter:
    """Return a range as it was, widened to the best few trials, which may be promoted from outside it."""
    values = [trial.params[parameter.name] for trial in sample.trials[:CORE] if sound(trial)]
    if all(parameter.contains(value) for value in values[: 1 if parameter.kind == CHOICE else CORE]):
        return with_reason(parameter, reason)
    # What has more than one value again is not held.
    widened = f"{f'no longer {reason}' if parameter.constant else reason}; widened to the best trials"
    if parameter.kind == CHOICE:
        return with_reason(
            parameter, widened, values=tuple(with_value(parameter, parameter.values, values[0]))
        )
    low, high = min(parameter.low, *values), max(parameter.high, *values)
    return with_reason(parameter, widened, low=low, high=high)


def _only_sound(parameter: Parameter, sample: Sample, trust: Agreement) -> Parameter:
    """Return a range that nothing but divergence may cut: rankings say nothing about the next scale."""
    reason = f"rankings do not carry over from {trust.low} to {trust.high} ({figures(trust)})"
    unsound = drop_unsound if parameter.kind == CHOICE else cut_unsound
    return unsound(parameter, soundness_of(sample.trials), reason)


def _grip(
    parameter: Parameter,
    shares: Mapping[str, float],
    tied: Mapping[str, tuple[str, float]],
    margin: float,
    trust: Agreement | None,
) -> Grip:
    """Work out how hard a parameter may be narrowed."""
    trusted = hardness(trust)
    hard, because = trusted, []
    if parameter.name in shares:
        share = shares[parameter.name]
        matters = min(1.0, share * len(shares) / MATTERS)
        hard *= matters
        because.append(f"importance {share:.0%}" + (", too little to cut it hard" if matters < 1 else ""))
    if parameter.name in tied:
        other, correlation = tied[parameter.name]
        hard *= CONFOUNDED
        because.append(
            f"cut less because its good values go with {other} (rank correlation {correlation:+.2f})"
        )
    if trust is not None and trusted < 1 and not measured(trust):
        because.append(f"cut {trusted:.0%} as hard because {few(trust)}")
    elif trust is not None and trusted < 1:
        loosely = f"rankings carry over loosely (tau {trust.correlation:.2f})"
        because.append(f"cut {trusted:.0%} as hard because {loosely}")
    return Grip(hard=hard, margin=margin, edge=trusted, because=tuple(because))


def _tied(
    space: Sequence[Parameter], ordered: Sequence[Observation], keep: float
) -> dict[str, tuple[str, float]]:
    """Find the numbers and ordered choices whose good values hang on another's.

    Returns:
        By name, the other parameter that it goes with most, and Spearman's rank correlation among the good.
    """
    from scipy.stats import rankdata

    lines = [p for p in space if not p.constant and (p.kind != CHOICE or p.ordered)]
    finite = [trial for trial in ordered if all(p.name in trial.params for p in lines) and sound(trial)]
    count = max(3, round(keep * len(finite)))
    if len(lines) < 2 or len(finite) < 2 * count or count < FEWEST_TRIALS:
        return {}
    values = np.array([[_place(p, trial) for p in lines] for trial in finite])

    def correlations(
        rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        ranks = rankdata(rows, axis=0)
        ranks -= ranks.mean(axis=0)
        lengths = np.sqrt((ranks**2).sum(axis=0))
        lengths[lengths == 0] = np.inf
        return np.asarray((ranks / lengths).T @ (ranks / lengths), dtype=float)

    good, every = correlations(values[:count]), correlations(values)
    np.fill_diagonal(good, 0.0)
    bound = np.tanh(TIED_QUANTILE / np.sqrt(max(1, count - 3)))
    found = np.where((np.abs(good) > bound) & (np.abs(good) > np.abs(every) + TIED), good, 0.0)
    return {
        p.name: (lines[other].name, float(found[index, other]))
        for index, p in enumerate(lines)
        if found[index, other := int(np.abs(found[index]).argmax())] != 0
    }


def _place(parameter: Parameter, trial: Observation) -> float:
    value = trial.params[parameter.name]
    if parameter.kind != CHOICE:
        return parameter.transformed(value)
    at = [i for i, other in enumerate(parameter.values) if (type(other), other) == (type(value), value)]
    # Promoted from an earlier stage's values: in the middle it says neither way.
    return float(at[0]) if at else (len(parameter.values) - 1) / 2
