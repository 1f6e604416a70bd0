"""Budgets: reading what a person writes (`40 gpu-hours`), and reckoning a plan in its unit."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from orchestrator.errors import UserError, nearest
from orchestrator.planning.plan import Phase, Plan
from orchestrator.sweep.directory import FINAL, STAGE

TRAININGS, SAMPLES, GPU_HOURS, CORE_HOURS = "trainings", "samples", "GPU-hours", "core-hours"
EXAMPLE = "Write an amount and its unit: 40 gpu-hours, 12 core-hours, 3e8 samples or 20 trainings"

# What a person may write, by the unit it is reckoned in and how many of those it is.
_UNITS = {
    "trainings": (TRAININGS, 1.0),
    "samples": (SAMPLES, 1.0),
    "gpu-hours": (GPU_HOURS, 1.0),
    "gpu-days": (GPU_HOURS, 24.0),
    "core-hours": (CORE_HOURS, 1.0),
    "core-days": (CORE_HOURS, 24.0),
}
# Sums of floats miss a round budget by a last digit, which is no overspending.
TOLERANCE = 1e-9
# The trials of the very first wave of a budget in hours: what they cost can't be bounded beforehand.
CALIBRATION_TRIALS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """An amount of `trainings` (at full scale), `samples` (trained), `GPU-hours` or `core-hours`."""

    amount: float
    unit: str

    @property
    def in_hours(self) -> bool:
        """Say whether it is spent by the clock, startup included, and not by what is trained."""
        return self.unit in (GPU_HOURS, CORE_HOURS)

    def show(self, amount: float | None = None) -> str:
        """Return an amount (its own, unless another is given) with its unit, for a person to read."""
        value = self.amount if amount is None else amount
        return f"{show_amount(value)} {self.unit.removesuffix('s') if value == 1 else self.unit}"


def show_amount(value: float) -> str:
    """Return a number of a budget for a person to read: three digits, and no more noughts than needed."""
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"


def parse_budget(text: str, *, file: object = None, key: str | None = "budget") -> Budget:
    """Read a budget as a person writes it.

    Args:
        text: an amount and a unit, such as `40 gpu-hours`.
        file: where it stands, for the error.
        key: the key it stands under there.

    Raises:
        UserError: no amount above zero, or no known unit.
    """
    found = re.fullmatch(r"\s*([-+]?[\d.,_]+(?:[eE][-+]?\d+)?)\s*(.*?)\s*", text)
    number, words = found.groups() if found else (text.strip().split(" ")[0], "")
    # 1,000 is a thousand here; 1,5 may be anything.
    plain = number.replace(",", "") if re.fullmatch(r"\d{1,3}(,\d{3})+", number) else number
    try:
        amount = float(plain) if found else math.nan
    except ValueError:
        amount = math.nan
    if not math.isfinite(amount) or amount <= 0:
        raise UserError(f"'{number}' is no amount to spend", file=file, key=key, hint=EXAMPLE)
    if not words:
        raise UserError(f"{number} has no unit", file=file, key=key, hint=EXAMPLE)
    unit = re.sub(r"[\s_-]+", "-", words.lower())
    unit = unit if unit.endswith("s") else unit + "s"
    if unit not in _UNITS:
        raise UserError(f"'{words}' is no unit of a budget", file=file, key=key, hint=nearest(unit, _UNITS))
    kind, factor = _UNITS[unit]
    return Budget(amount=amount * factor, unit=kind)


def check_unit(budget: Budget, unit: str, file: object, key: str | None = "budget") -> None:
    """Refuse hours of what the cluster's tasks don't hold.

    Args:
        budget: as it was asked for.
        unit: `GPU` or `core`: what the tasks hold.
        file: where the budget stands, for the error.
        key: the key it stands under there.

    Raises:
        UserError: GPU-hours without GPUs, or core-hours with them.
    """
    if not budget.in_hours or budget.unit == f"{unit}-hours":
        return
    if unit == "core":
        raise UserError(
            "the tasks have no GPU (slurm.gpus_per_task is 0), so none spends GPU-hours", file=file, key=key,
            hint="Write core-hours, or choose a cluster with GPUs: slurm=gpu",
        )  # fmt: skip
    raise UserError(
        "the tasks hold GPUs, and their hours are what is counted", file=file, key=key,
        hint="Write gpu-hours, or choose a cluster without GPUs: slurm=cpu",
    )  # fmt: skip


def run_cost(phase: Phase, budget: Budget) -> float | None:
    """Return what one trial of a phase costs by the plan, in the budget's unit; None where not known."""
    if not phase.trains:
        return 0.0
    if budget.unit == TRAININGS:
        return phase.share
    whole = phase.cost.trained_samples if budget.unit == SAMPLES else phase.cost.hours
    return None if whole is None else whole / phase.runs


def planned_cost(phases: Sequence[Phase], budget: Budget) -> float | None:
    """Return what phases cost by the plan, in the budget's unit; None where any of it is not known."""
    costs = [run_cost(phase, budget) for phase in phases]
    if None in costs:
        return None
    return sum((cost or 0.0) * phase.runs for cost, phase in zip(costs, phases, strict=True))


def check_countable(plan: Plan, budget: Budget, file: object, key: str | None = "budget") -> None:
    """Refuse a budget that what the plan trains can't be counted in; hours are known after the first trials.

    Raises:
        UserError: the dataset's size is not known.
    """
    unknown = [phase.name for phase in plan.phases if run_cost(phase, budget) is None]
    if unknown and not budget.in_hours:
        raise UserError(
            f"what '{unknown[0]}' trains can't be counted in {budget.unit}: the dataset's size isn't known",
            file=file, key=key,
            hint="Give datasets.samples and datasets.num_classes, or write the budget in hours",
        )  # fmt: skip


def check_affordable(plan: Plan, budget: Budget, file: object) -> None:
    """Refuse a plan that costs more than its budget; one whose cost is not known yet passes.

    Raises:
        UserError: it says by how much, and what would fit; or that the plan can't be counted in this unit.
    """
    check_countable(plan, budget, file)
    total = planned_cost(plan.phases, budget)
    if total is None or total <= budget.amount * (1 + TOLERANCE):
        return
    over = total - budget.amount
    parts = ", ".join(
        f"{phase.name} {show_amount(planned_cost([phase], budget) or 0.0)}"
        for phase in plan.phases
        if phase.trains
    )
    raise UserError(
        f"the plan costs {budget.show(total)} ({parts}), {show_amount(over)} ({over / budget.amount:.0%}) "
        f"more than the budget of {budget.show()}",
        file=file, key="budget", hint=_what_fits(plan, budget),
    )  # fmt: skip


def _what_fits(plan: Plan, budget: Budget) -> str:
    """Name counts that the budget pays: fewer seeds, then fewer settings, and the stages cut alike."""
    final = plan.final
    top, seeds = (final.survivors, final.trials // final.survivors) if final else (0, 0)
    choices = [(top, fewer) for fewer in range(seeds, 0, -1)] + [
        (fewer, 1) for fewer in range(top - 1, 0, -1)
    ]
    for settings, runs in choices or [(0, 0)]:
        smaller = _cut(plan, budget, settings, runs)
        if smaller is None:
            continue
        counts = [f"stages.{p.name}.trials={p.trials}" for p in smaller if p.kind == STAGE]
        counts += [f"final.top={settings}"] * (settings != top) + [f"final.seeds={runs}"] * (runs != seeds)
        return f"This would fit: {' '.join(counts)}; or have the stages worked out: stages=auto"
    least = _cut(plan, replace(budget, amount=math.inf), min(top, 1), 1, least=True) or ()
    costs = budget.show(planned_cost(least, budget) or 0.0)
    return f"Nothing of this shape fits; two trials of each stage and one final run cost {costs}"


def _cut(
    plan: Plan, budget: Budget, top: int, seeds: int, *, least: bool = False
) -> tuple[Phase, ...] | None:
    """Return the plan's phases with so many final runs and what the budget leaves for stages, or None.

    Every stage keeps the same share of its trials, two at least and as many as go on from the last.
    """
    stages, final = plan.stages, plan.final
    ends = () if final is None else (_resized(final, top * seeds),)
    left = budget.amount - (planned_cost(ends, budget) or 0.0)
    share = 0.0 if least else max(0.0, min(1.0, left / (planned_cost(stages, budget) or math.inf)))
    floors = [min(stage.trials, max(2, top if stage is stages[-1] else 0)) for stage in stages]
    cut = tuple(
        _resized(stage, max(floor, math.floor(stage.trials * share)))
        for stage, floor in zip(stages, floors, strict=True)
    )
    phases = (*cut, *ends)
    return phases if (planned_cost(phases, budget) or 0.0) <= budget.amount * (1 + TOLERANCE) else None


def _resized(phase: Phase, trials: int) -> Phase:
    """Return a phase with another number of trials, and the repeats and the price that go with them."""
    repeats = phase.repeats * trials // phase.trials if phase.kind != FINAL else 0
    factor = (trials + repeats) / phase.runs
    cost = replace(
        phase.cost,
        trained_samples=_times(phase.cost.trained_samples, factor),
        seconds=_times(phase.cost.seconds, factor),
        hours=_times(phase.cost.hours, factor),
    )
    return replace(phase, trials=trials, repeats=repeats, cost=cost)


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor
