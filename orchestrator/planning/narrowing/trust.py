"""Trust: how well the ranking at one scale carries over to the next, measured, and what it governs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import TYPE_CHECKING, Any

from orchestrator.space import setting_id
from orchestrator.sweep.directory import FINAL

if TYPE_CHECKING:
    from orchestrator.planning.narrowing.evidence import StageResults
    from orchestrator.planning.sampling.observation import Observation

# So many settings, or fewer, say nothing about a correlation: its interval is all of -1 to 1.
TOO_FEW = 4
# The normal quantile of a two-sided interval of 90%.
QUANTILE = 1.6449
# Rankings do not carry over when their correlation is surely below the first, or not above the second.
SURELY_LOW, ABOUT_ZERO = 0.2, 0.1
# Full trust when the estimate and the interval's lower end average so much; never less than the least while
# rankings carry over at all; and what is assumed when too few settings ran at both scales.
FULL, LEAST, UNKNOWN = 0.4, 0.2, 0.5
# Rankings carry over so surely from this lower end on that fewer settings have to run again.
SURELY_HIGH, FEWER = 0.6, 2 / 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """How well the ranking at one scale carries over to the next.

    Attributes:
        low: the name of the stage at the smaller scale.
        high: the name of the stage after it.
        settings: how many settings ran at both.
        correlation: Kendall's tau-b, NaN when too few settings can be told apart.
        interval: its 90% confidence interval, (-1, 1) when nothing is known.
    """

    low: str
    high: str
    settings: int
    correlation: float
    interval: tuple[float, float]


def agreement(low: StageResults, high: StageResults) -> Agreement | None:
    """Measure how well the ranking at one scale carries over to the next.

    The settings are those that ran at both: survivors and controls. Kendall's tau-b (Kendall 1945) is taken
    over them, with the interval of Fieller, Hartley and Pearson (Biometrika 44, 1957): the inverse hyperbolic
    tangent of tau has the variance 0.437 / (n - 4). Two things are added that small samples need: ties leave
    n only as large as the number of pairs that differ at both scales, and a perfect agreement of few settings
    counts half a pair as disagreeing.

    What is corrected: survivors were chosen because they were good at the smaller scale, and among the good
    alone a ranking looks less stable than it is. That restriction of range is undone by the normal scores of
    their ranks at the smaller scale (Thorndike, Personnel Selection, 1949, case 2: selection by the measured
    value itself). Where controls from all over the ranking ran again too, the range is not restricted and
    nothing changes. In simulations (64 trials, 12 that run again, with and without controls) the interval
    then holds the truth in 90 to 96 of 100 cases, and without controls uncorrected tau is half of it.

    What is not corrected: results are single, noisy ones. That survivors do less well the second time
    (regression to the mean) does not bias the correlation of measured results, but noise lowers it below that
    of the settings' true merits. It is the measured one that decides who survives, so that is the one shown.
    Nor is it corrected that a later stage's own ranges are already narrow.

    Returns:
        The agreement; None when no setting ran at both.
    """
    before, after = _merits(low.observations), _merits(high.observations)
    shared = sorted(before.keys() & after.keys())
    if not shared:
        return None
    pairs = [(before[one], after[one]) for one in shared]
    tau, distinct = _tau([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    # As many settings without ties would make as many pairs that differ.
    effective = (1 + math.sqrt(1 + 8 * distinct)) / 2
    if effective <= TOO_FEW:
        return Agreement(
            low=low.name, high=high.name, settings=len(shared), correlation=math.nan, interval=(-1.0, 1.0)
        )
    restricted = _restriction(before, shared)
    ends = _interval(tau, effective, distinct)
    return Agreement(
        low=low.name,
        high=high.name,
        settings=len(shared),
        correlation=_unrestricted(tau, restricted),
        interval=(_unrestricted(ends[0], restricted), _unrestricted(ends[1], restricted)),
    )


def _merits(observations: Sequence[Observation]) -> dict[str, tuple[int, float]]:
    """Return each setting's merit, larger is better: pruned settings tie below the others, diverged lowest.

    A setting that ran several times has the mean of its settled results.
    """
    by_setting: dict[str, list[Observation]] = {}
    for seen in observations:
        by_setting.setdefault(setting_id(seen.params), []).append(seen)
    merits = {}
    for setting, seen_there in by_setting.items():
        settled = sorted(one.objective for one in seen_there if one.settled)
        if any(not math.isfinite(one.objective) for one in seen_there):
            merits[setting] = (0, 0.0)
        elif settled:
            merits[setting] = (2, mean(settled))
        else:
            # Early values of trials that were pruned at different times can't be compared.
            merits[setting] = (1, 0.0)
    return merits


def _tau(one: Sequence[tuple[int, float]], other: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return Kendall's tau-b, and how many pairs differ at both scales (the geometric mean of the two)."""
    import numpy as np

    signs = []
    for merits in (one, other):
        places = np.array([sorted(set(merits)).index(merit) for merit in merits], dtype=float)
        signs.append(np.sign(places[:, None] - places[None, :]))
    distinct = math.sqrt(float(np.abs(signs[0]).sum() / 2) * float(np.abs(signs[1]).sum() / 2))
    return (float((signs[0] * signs[1]).sum() / 2) / distinct if distinct else math.nan), distinct


def _interval(tau: float, effective: float, pairs: float) -> tuple[float, float]:
    centre = math.atanh(tau * (1 - 1 / pairs))
    reach = QUANTILE * math.sqrt(0.437 / (effective - TOO_FEW))
    # The half pair must not put the estimate outside.
    return min(tau, math.tanh(centre - reach)), max(tau, math.tanh(centre + reach))


def _restriction(before: Mapping[str, tuple[int, float]], shared: Sequence[str]) -> float:
    """Return how much wider the whole stage spreads than the settings that ran again, in normal scores."""
    from statistics import NormalDist, pstdev

    ordered = sorted(before.values())
    places: dict[tuple[int, float], list[int]] = {}
    for place, merit in enumerate(ordered):
        places.setdefault(merit, []).append(place)
    normal = NormalDist()
    # Equal results share the middle of their places.
    scores = {
        merit: normal.inv_cdf((math.fsum(at) / len(at) + 0.5) / len(ordered)) for merit, at in places.items()
    }
    chosen = pstdev(scores[before[one]] for one in shared)
    return max(1.0, pstdev(scores[merit] for merit in ordered) / chosen) if chosen > 0 else 1.0


def _unrestricted(tau: float, restricted: float) -> float:
    """Undo a restriction of range, by way of the linear correlation that a tau stands for under normality."""
    linear = math.sin(math.pi * tau / 2)
    whole = linear * restricted / math.sqrt(1 + linear**2 * (restricted**2 - 1))
    return 2 / math.pi * math.asin(max(-1.0, min(1.0, whole)))


def measured(trust: Agreement | None) -> bool:
    """Say whether there is a correlation to go by."""
    return trust is not None and math.isfinite(trust.correlation)


def carries_over(trust: Agreement | None) -> bool:
    """Say whether the ranking at one scale says anything about the next; as long as nothing is known, yes."""
    if trust is None or not measured(trust):
        return True
    return trust.interval[1] >= SURELY_LOW and trust.correlation > ABOUT_ZERO


def hardness(trust: Agreement | None) -> float:
    """Return how much of the way ranges are narrowed: 1 as configured, 0 not at all.

    Both the estimate and the lower end of its interval count: a good correlation of few settings is not yet
    to be relied on.
    """
    if trust is None:
        return 1.0
    if not measured(trust):
        return UNKNOWN
    if not carries_over(trust):
        return 0.0
    return max(LEAST, min(1.0, (trust.correlation + trust.interval[0]) / 2 / FULL))


def survivors_wanted(planned: int, trust: Agreement | None, trials: int) -> int:
    """Return how many settings survive into the next stage.

    Fewer than planned where rankings surely carry over (the rest of the stage is better spent on new
    settings), more where they do so only loosely, because the best may stand further down. Where they do not
    carry over, more of the top would not help: the number stays, and `carries_over` tells the caller to take
    survivors from all over the ranking.

    Args:
        planned: survivors in the plan.
        trust: what was measured between the last two scales.
        trials: all trials of the stage that they go to; at most half of them are survivors, unless the plan
            itself has more.
    """
    if planned <= 0 or trust is None or not measured(trust) or not carries_over(trust):
        return max(0, planned)
    if trust.interval[0] >= SURELY_HIGH:
        return math.ceil(planned * FEWER)
    return min(math.ceil(planned * (2 - hardness(trust))), max(planned, trials // 2))


def describe(trust: Agreement) -> str:
    """Return in one sentence how far rankings carry over, and what follows from it."""
    # After the final runs nothing is drawn any more.
    last = trust.high == FINAL
    if not measured(trust):
        return few(trust) + ("" if last else ": ranges are narrowed half as hard")
    if not carries_over(trust):
        word = "do not carry over"
        follows = "ranges stay, but for what diverges, and survivors come from all over the ranking"
    elif hardness(trust) >= 1:
        word, follows = "carry over", "ranges are narrowed as configured"
    else:
        word = "carry over loosely"
        follows = f"ranges are narrowed {hardness(trust):.0%} as hard, and more settings survive"
    told = f"rankings {word} from {trust.low} to {trust.high} ({figures(trust)})"
    return told if last else f"{told}: {follows}"


def few(trust: Agreement) -> str:
    """Say that too few settings ran at both scales."""
    settings = f"{trust.settings} setting{'' if trust.settings == 1 else 's'}"
    return f"{settings} that ran at both {trust.low} and {trust.high} can't tell whether rankings carry over"


def figures(trust: Agreement) -> str:
    """Return the figures of an agreement: "Kendall's tau 0.62, 90% interval 0.41 … 0.78, 12 settings"."""
    low, high = trust.interval
    return (
        f"Kendall's tau {trust.correlation:.2f}, 90% interval {low:.2f} … {high:.2f}, "
        f"{trust.settings} settings"
    )


def to_json(trust: Agreement) -> dict[str, Any]:
    """Return an agreement as plain data; no correlation is null."""
    return {
        "low": trust.low,
        "high": trust.high,
        "settings": trust.settings,
        "correlation": trust.correlation if measured(trust) else None,
        "interval": list(trust.interval),
    }


def told(trust: Agreement) -> dict[str, Any]:
    """Return an agreement as plain data together with the sentence about it, for `--json`."""
    return {**to_json(trust), "says": describe(trust)}


def from_json(content: Mapping[str, Any] | None) -> Agreement | None:
    """Read an agreement from plain data; None where there is none."""
    if not content:
        return None
    correlation, (low, high) = content["correlation"], content["interval"]
    return Agreement(
        low=content["low"],
        high=content["high"],
        settings=content["settings"],
        correlation=math.nan if correlation is None else correlation,
        interval=(low, high),
    )
