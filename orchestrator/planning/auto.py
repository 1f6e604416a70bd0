"""The ladder that a budget pays for: stages of equal cost at growing scales, and the final runs.

Successive halving (Jamieson and Talwalkar, "Non-stochastic Best Arm Identification and Hyperparameter
Optimization", AISTATS 2016) over samples and epochs: each stage costs the same, so it has 1/ETA of the trials
of the stage before, each of ETA times the cost. Pure arithmetic, in full-scale trainings: 1.0 is one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.schema import DEFAULT_SEEDS, DEFAULT_TOP

# From one stage to the next a trial costs so many times more.
ETA = 3
# What one trial of a stage trains, as shares of a full-scale training; a large dataset has one more below.
SCALES = (1 / ETA**3, 1 / ETA**2, 1 / ETA)
LARGE_SAMPLES, LARGE_SCALE = 1_000_000, 1 / 81
# The share of the budget that is left for the final runs where nobody says: the second one from so many
# trainings on, as much less as a budget is smaller, and no less than the first. What smaller scales can tell
# is soon told, and full scale tells the rest.
FINAL_SHARE, MOST_FINAL_SHARE, LARGE_BUDGET = 0.3, 0.5, 20
# So many settings are tried at full scale before any has a second seed.
MOST_TOP = 10
# Where nobody says, the final runs are drawn in up to so many waves, of about so many settings or more.
FINAL_WAVES, LEAST_FINAL_WAVE = 4, 2
# Less data than this tell settings apart by chance: samples in all, and of each class.
LEAST_SAMPLES, LEAST_CLASS_SAMPLES = 50, 2
# Once the data can't shrink further, epochs do, down to this share: a shorter training is another one.
LEAST_EPOCHS = 1 / 9
# A stage whose trials are not cheaper than the next one's by this factor is left out.
LEAST_STEP = 1.5
# The fewest trials of the first stage, and of the others: with fewer there is nothing to choose from.
LEAST_FIRST, LEAST_TRIALS = 4, 2
# More trials than this at one scale find nothing that is worth their cost.
MOST_TRIALS = 10_000
# How a stage draws its trials: by this sampler, in so many waves, of at least so many trials each.
SAMPLER, WAVES, LEAST_WAVE = "model", 4, 2
# The model itself takes settings on; so few more are sure to run again, and so many for comparison. A stage
# of at least the last number of trials has two of each, the most that its first wave holds.
SURVIVORS, CONTROLS, COMPARED_TRIALS = 1 / 8, 1 / 16, 16
# One of so many trials has enough of both to measure how a ranking carries over (see `trust.TOO_FEW`).
MEASURED_TRIALS, MEASURED = 20, 5
# The share of the last stage that runs its best settings again, and the fewest runs worth it.
REPEATS, LEAST_REPEATS = 0.15, 2
CLOSE, PRUNE = 1.0, 0.0

_NAMES = {
    1: ("coarse",),
    2: ("coarse", "fine"),
    3: ("coarse", "medium", "fine"),
    4: ("coarse", "medium", "fine", "finest"),
    5: ("coarsest", "coarse", "medium", "fine", "finest"),
}


class BudgetTooSmall(Exception):
    """The budget pays no final run beside a first stage.

    Args:
        least: the smallest budget that works, in trainings.
        trials: how many trials of the cheapest stage it would buy.
        scale: of that stage.
    """

    def __init__(self, least: float, trials: int, scale: float) -> None:
        self.least, self.trials, self.scale = least, trials, scale
        super().__init__(f"at least {least:.3g} trainings are needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """A scale: the share of the data, the epochs (None: the job's own), and what both come to."""

    data: float
    epochs: int | None
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoStage:
    """A stage of the ladder; `cost` is that of all its runs, in trainings.

    `survivors` and `controls` are what the stage before hands on; the first one has none.
    """

    name: str
    rung: Rung
    trials: int
    repeats: int
    waves: int
    survivors: int
    controls: int
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoLadder:
    """What a budget of trainings pays for.

    `exploration` is what was set apart for the stages; `left_out` are the scales without a stage, with the
    reason.
    """

    stages: tuple[AutoStage, ...]
    top: int
    seeds: int
    final_waves: int
    exploration: float
    left_out: tuple[tuple[float, str], ...] = ()

    @property
    def cost(self) -> float:
        """What all of it costs, in trainings."""
        return sum(stage.cost for stage in self.stages) + self.top * self.seeds


def auto_stages(
    budget: float,
    full_samples: int | None,
    full_epochs: int | None,
    num_classes: int | None = None,
    *,
    data: bool = True,
    overhead: float = 0.0,
    at_once: int = 1,
    top: int | None = None,
    seeds: int | None = None,
    share: float | None = None,
) -> AutoLadder:
    """Work out the ladder of a budget.

    Args:
        budget: in full-scale trainings.
        full_samples: training samples at full scale; None where it is not known.
        full_epochs: epochs at full scale; None where a trial's epochs can't be set.
        num_classes: of the dataset; None where it has none.
        data: whether a trial's share of the data can be set.
        overhead: the share of a full-scale training's cost that no scale makes smaller, in [0, 1).
        at_once: trials that run side by side; no wave has fewer, so that none of them waits.
        top: settings of the final runs as asked for; 0 leaves them out, None has them worked out.
        seeds: runs of each of them as asked for, or None.
        share: of the budget for the final runs as asked for, or None.

    Raises:
        BudgetTooSmall: not even one final run and the smallest first stage are paid by it.
    """
    scales = _scales(full_samples, finals=top != 0)
    floor = _least_data(full_samples, num_classes) if data else 1.0
    rungs, left_out = _rungs(scales, floor, full_epochs, overhead, data=data)
    least = max(LEAST_FIRST, top or 0) * trial_cost(rungs[0], overhead)
    free, more_seeds = top is None, seeds is None
    top, seeds = _final_runs(budget, least, top, seeds, share)
    if free and share is None:
        top = _offered(rungs, top, seeds, budget, overhead)
    elif free:
        top, seeds = _held(top, seeds, budget, trial_cost(rungs[0], overhead), more_seeds=more_seeds)
    exploration = budget - top * seeds
    if exploration < least * (1 - 1e-9):
        affordable = math.floor(budget / trial_cost(rungs[0], overhead))
        raise BudgetTooSmall(top * seeds + least, affordable, rungs[0].scale)
    while len(rungs) > 1 and not _worth_it(_counts(rungs, exploration, overhead), top):
        left_out.append((rungs[-1].scale, "too few trials"))
        rungs.pop()
    counts = _counts(rungs, exploration, overhead)
    stages = _stages(rungs, counts, overhead, top, max(LEAST_WAVE, at_once))
    top = min(top, stages[-1].trials)
    return AutoLadder(
        stages=stages, top=top, seeds=seeds, final_waves=_final_waves(top, seeds, at_once) if free else 1,
        exploration=exploration, left_out=tuple(left_out),
    )  # fmt: skip


def trial_cost(rung: Rung, overhead: float) -> float:
    """Return what one trial at a scale costs, in trainings."""
    return overhead + (1 - overhead) * rung.scale


def _scales(full_samples: int | None, *, finals: bool) -> list[float]:
    """Return the scales to try, the smallest first; without final runs the last stage is full scale."""
    large = [LARGE_SCALE] if (full_samples or 0) > LARGE_SAMPLES else []
    return [*large, *SCALES, *([] if finals else [1.0])]


def _rungs(
    scales: Sequence[float], floor: float, full_epochs: int | None, overhead: float, *, data: bool
) -> tuple[list[Rung], list[tuple[float, str]]]:
    """Turn scales into shares of data and epochs, without those that come to nothing sensible."""
    rungs: list[Rung] = []
    left_out: list[tuple[float, str]] = []
    for scale in reversed(scales):
        rung = _rung(scale, floor, full_epochs, data=data)
        if rung is None:
            left_out.append((scale, "too few samples" if data else "less than one epoch"))
        elif scale < 1.0 and trial_cost(rung, overhead) * LEAST_STEP > (
            trial_cost(rungs[0], overhead) if rungs else 1.0
        ):
            left_out.append((scale, "hardly cheaper"))
        else:
            rungs.insert(0, rung)
    # A problem too small for any smaller scale is searched as it is.
    return rungs or [Rung(data=1.0, epochs=full_epochs, scale=1.0)], left_out


def _rung(scale: float, floor: float, full_epochs: int | None, *, data: bool) -> Rung | None:
    share = float(f"{max(scale, floor):.3g}") if max(scale, floor) < 1 else 1.0
    rest = scale / share
    if full_epochs is None:
        return Rung(data=share, epochs=None, scale=share) if share <= LEAST_STEP * scale else None
    if rest < (LEAST_EPOCHS if data else 0.5 / full_epochs) * (1 - 1e-9):
        return None
    # The data's share is rounded, which must not cost an epoch.
    epochs = min(full_epochs, max(1, round(full_epochs * rest))) if rest < 0.99 else full_epochs
    return Rung(data=share, epochs=epochs, scale=share * epochs / full_epochs)


def _least_data(full_samples: int | None, num_classes: int | None) -> float:
    """Return the smallest sensible share of the data; 0 where the dataset's size is not known."""
    if not full_samples:
        return 0.0
    return min(1.0, max(LEAST_SAMPLES, LEAST_CLASS_SAMPLES * (num_classes or 0)) / full_samples)


def _final_runs(
    budget: float, least: float, top: int | None, seeds: int | None, share: float | None
) -> tuple[int, int]:
    """Return the settings and the seeds of the final runs: as asked for, the rest from their share."""
    if top == 0:
        return 0, seeds or 1
    if top is not None and seeds is not None:
        return top, seeds
    # Even one run must leave the stages what they need at the least.
    runs = min(budget * (final_share(budget) if share is None else share), budget - least)
    count = max(1, math.floor(runs + 1e-9))
    if share is None:
        count = min(count, MOST_TOP * DEFAULT_SEEDS)
    if top is not None:
        return top, max(1, min(count // top, DEFAULT_SEEDS) if share is None else count // top)
    if seeds is None:
        seeds = max(1, min(DEFAULT_SEEDS, count // MOST_TOP))
    top = max(1, count // seeds)
    return (min(top, MOST_TOP) if share is None else top), seeds


def final_share(budget: float) -> float:
    """Return the share of a budget in trainings that is left for the final runs where nobody says."""
    return min(MOST_FINAL_SHARE, max(FINAL_SHARE, MOST_FINAL_SHARE * budget / LARGE_BUDGET))


def _final_waves(top: int, seeds: int, at_once: int) -> int:
    """Return in how many waves the final runs are drawn: no more than they would take one after another.

    A wave waits for all runs of the one before, so waves smaller than what runs side by side cost time.
    """
    least = max(LEAST_FINAL_WAVE, math.ceil(at_once / seeds))
    return max(1, min(FINAL_WAVES, math.ceil(top / least)))


def _counts(rungs: Sequence[Rung], exploration: float, overhead: float) -> list[int]:
    """Share the exploration equally over the stages; what no whole trial uses goes to the first one."""
    costs = [trial_cost(rung, overhead) for rung in rungs]
    each = exploration / len(rungs)
    counts = [math.floor(each / cost + 1e-9) for cost in costs]
    left = exploration - sum(count * cost for count, cost in zip(counts, costs, strict=True))
    counts[0] += max(0, math.floor(left / costs[0] + 1e-9))
    return [min(count, MOST_TRIALS) for count in counts]


def _offered(rungs: Sequence[Rung], top: int, seeds: int, budget: float, overhead: float) -> int:
    """Return how many settings of the final runs, up to `top`, can be chosen at the largest scale below.

    That scale is worth more than the last few of them, but for the usual number.
    """
    while top > DEFAULT_TOP and _counts(rungs, budget - top * seeds, overhead)[-1] < top:
        top -= 1
    return top


def _held(top: int, seeds: int, budget: float, cost: float, *, more_seeds: bool) -> tuple[int, int]:
    """Return final runs of no more settings than a single stage, of trials at this cost, has to choose from.

    What is left of an asked share goes to further seeds; where their number was asked for, to the search.
    """
    runs = top * seeds
    if more_seeds:
        held = max(1, min(MOST_TRIALS, math.floor((budget - runs) / cost + 1e-9)))
        seeds = max(seeds, math.ceil(runs / held))
        return runs // seeds, seeds
    held = min(MOST_TRIALS, math.floor(budget / (seeds + cost) + 1e-9))
    return max(1, min(top, held)), seeds


def _worth_it(counts: Sequence[int], top: int) -> bool:
    """Say whether every stage has trials enough to choose from, the last one those of the final runs."""
    return counts[0] >= LEAST_FIRST and all(n >= LEAST_TRIALS for n in counts[1:]) and counts[-1] >= top


def _stages(
    rungs: Sequence[Rung], counts: Sequence[int], overhead: float, top: int, least_wave: int
) -> tuple[AutoStage, ...]:
    stages = []
    for place, (rung, runs) in enumerate(zip(rungs, counts, strict=True)):
        # What the final runs are chosen from is measured more than once.
        last = top > 0 and place == len(rungs) - 1
        repeats = min(math.floor(runs * REPEATS), runs - top) if last else 0
        repeats = repeats if repeats >= LEAST_REPEATS else 0
        survivors, controls = _promoted(runs - repeats) if place else (0, 0)
        stages.append(
            AutoStage(
                name=_NAMES[len(rungs)][place],
                rung=rung,
                trials=runs - repeats,
                repeats=repeats,
                waves=max(1, min(WAVES, (runs - repeats) // least_wave)),
                survivors=survivors,
                controls=controls,
                cost=runs * trial_cost(rung, overhead),
            )
        )
    return tuple(stages)


def _promoted(trials: int) -> tuple[int, int]:
    """Return how many survivors and controls of the stage before are sure to run again."""
    least = 2 if trials >= COMPARED_TRIALS else 0
    survivors, controls = (max(math.floor(trials * share), least) for share in (SURVIVORS, CONTROLS))
    return max(survivors, MEASURED - controls if trials >= MEASURED_TRIALS else 0), controls
