"""Re-pricing: how many of the trials ahead a budget pays for, by what those behind have taken.

The budget is a hard cap. The final runs come first: what they cost is kept, and what is left over is shared
by the stages ahead in the proportions of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.planning.auto import LEAST_FIRST, LEAST_TRIALS, MOST_TRIALS, final_share
from orchestrator.planning.budget import CALIBRATION_TRIALS, TOLERANCE, Budget, parse_budget, show_amount
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Phase, Plan
from orchestrator.planning.spending import Spent, run_costs, spent, used_so_far
from orchestrator.sweep.directory import FINAL, STAGE
from orchestrator.sweep.facts import Facts

# Trials that turn out cheaper than declared allow more of them, up to so many times the plan's.
MOST_GROWTH = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Repriced:
    """The plan as the budget pays for it now.

    `stop` says why what comes next can't begin without a larger budget; empty when it can. `note` says what
    was cut, or added.
    """

    plan: Plan
    used: float = 0.0
    stop: str = ""
    note: str = ""


def reprice(
    plan: Plan, measured: Mapping[str, Spent], budget: Budget, price: Price, where: str = "DIR"
) -> Repriced:
    """Fit what is not drawn yet of a plan to what is left of its budget.

    Args:
        plan: as it was frozen.
        measured: what each phase has spent, by its name; a phase that is missing has spent nothing.
        budget: the cap.
        price: what a trial holds of a GPU or core, and the declared seconds.
        where: the sweep's directory, for the message.
    """
    costs = run_costs(plan, measured, budget, price)
    used = used_so_far(plan, measured, budget, price)
    index = next((i for i, phase in enumerate(plan.phases) if not _drawn(phase, measured)), None)
    if index is None or not plan.phases[index].trains:
        return Repriced(plan=plan, used=used)
    following = plan.phases[index]
    if costs[following.name] is None or any(costs[p.name] is None for p in plan.phases[index:]):
        return Repriced(plan=_calibrating(plan, index, measured), used=used)
    known = {name: cost for name, cost in costs.items() if cost is not None}
    if following.kind == FINAL:
        past = measured.get(following.name, Spent())
        return _reprice_final(plan, following, past, known[following.name], used, budget, where)
    if budget.in_hours:
        # A declared price may be wrong, and is not measured on this device before the first trials.
        plan = _calibrating(plan, index, measured)
    return _reprice_stages(plan, index, measured, known, used, budget, where)


def within_budget(facts: Facts, price: Price, where: str = "DIR") -> Facts:
    """Return facts whose plan is what the budget pays for now; as they are without a budget.

    Args:
        facts: as they were read.
        price: of the sweep's config.
        where: the sweep's directory, for the message.
    """
    if not facts.budget:
        return facts
    measured = {known.phase.name: spent(known, price) for known in facts.phases}
    fitted = reprice(facts.plan, measured, parse_budget(facts.budget), price, where)
    phases = tuple(
        replace(known, phase=phase) for known, phase in zip(facts.phases, fitted.plan.phases, strict=True)
    )
    return replace(facts, plan=fitted.plan, phases=phases, stop=fitted.stop, note=fitted.note)


def _drawn(phase: Phase, measured: Mapping[str, Spent]) -> bool:
    return phase.name in measured and measured[phase.name].waves >= len(phase.wave_sizes)


def _calibrating(plan: Plan, index: int, measured: Mapping[str, Spent]) -> Plan:
    """Make the very first wave a small one: its cost is not known before it ran."""
    phase = plan.phases[index]
    sizes = phase.wave_sizes
    begun = any(measured[stage.name].drawn for stage in plan.stages if stage.name in measured)
    if begun or phase.waves < 2 or sizes[0] <= CALIBRATION_TRIALS:
        return plan
    first = CALIBRATION_TRIALS
    rest = _even(phase.trials - first, phase.waves - 1)
    return _with(plan, replace(phase, sizes=(first, *rest, *sizes[phase.waves :])))


def _reprice_stages(
    plan: Plan,
    index: int,
    measured: Mapping[str, Spent],
    costs: Mapping[str, float],
    used: float,
    budget: Budget,
    where: str,
) -> Repriced:
    """Share what the final runs leave over the stages ahead, in the plan's proportions."""
    stages = [phase for phase in plan.phases[index:] if phase.kind == STAGE]
    following = stages[0]
    reserve = _reserve(plan, costs, budget)
    left = budget.amount * (1 + TOLERANCE) - used - reserve
    to_come = {phase.name: _to_come(plan, phase, measured) for phase in stages}
    trials = sum(to_come[phase.name][0] * costs[phase.name] for phase in stages)
    repeats = sum(to_come[phase.name][1] * costs[phase.name] for phase in stages)
    ahead = trials + repeats
    share = left / ahead if ahead > 0 else 1.0
    if share > 1 and trials > 0:
        # More trials, not more repeats of the best.
        share = min(_growth(plan, budget), (left - repeats) / trials)
    share = max(0.0, share) if trials > 0 else min(1.0, max(0.0, share))
    resized = plan
    for phase in stages:
        past = measured.get(phase.name, Spent())
        resized = _with(resized, _scaled(phase, past, to_come[phase.name], share))
    now = next(phase for phase in resized.phases if phase.name == following.name)
    past = measured.get(following.name, Spent())
    least = min(following.trials, _least(plan, following, reserve, costs))
    if not past.drawn and now.trials < least:
        kept = f" besides the {show_amount(reserve)} kept for the final runs" if reserve else ""
        why = (
            f"of the budget of {budget.show()}, {show_amount(max(0.0, left))} are left{kept}; "
            f"'{following.name}' needs {show_amount(least * costs[following.name])} at the least "
            f"({least} trials)"
        )
        if plan.auto and following != plan.stages[0] and plan.final is not None:
            # Its trials were the tool's own guess: the final runs are chosen from the stages before.
            left_out = _with(resized, _scaled(following, past, (0, 0), 0.0))
            return Repriced(plan=left_out, used=used, note=f"{why}, so it is left out")
        asked = Budget(amount=_up(used + reserve + ahead), unit=budget.unit)
        stop = f"{why}, and all that is planned {show_amount(ahead)}. {_allow_more(asked, where)}"
        return Repriced(plan=resized, used=used, stop=stop)
    note = ""
    if now.trials != following.trials:
        why = "costs more" if share < 1 else "costs less"
        note = (
            f"'{following.name}' has {now.trials} trials, not {following.trials}: what is ahead {why} than "
            f"planned, and {budget.show(max(0.0, left))} are left for it"
        )
    return Repriced(plan=resized, used=used, note=note)


def _reprice_final(
    plan: Plan, final: Phase, past: Spent, cost: float, used: float, budget: Budget, where: str
) -> Repriced:
    """Run as many of the final runs as are paid for: fewer seeds first, then fewer settings.

    Once a wave of them is drawn, every further setting has as many seeds as those have.
    """
    seeds = past.drawn // past.settings if past.settings else final.trials // final.survivors
    planned = final.survivors * seeds
    left = max(0.0, budget.amount - used)
    paid = planned
    if cost > 0:
        paid = past.drawn + math.floor((left + budget.amount * TOLERANCE) / cost + TOLERANCE)
    if paid >= planned and not past.waves:
        return Repriced(plan=plan, used=used)
    asked = Budget(amount=_up(used + (planned - past.drawn) * cost), unit=budget.unit)
    needs = f"of the budget of {budget.show()}, {show_amount(left)} are left; one final run needs "
    needs += f"{show_amount(cost)}. {_allow_more(asked, where)}"
    if paid < 1:
        return Repriced(plan=plan, used=used, stop=needs)
    if past.settings:
        top = min(final.survivors, max(past.settings, paid // seeds))
    else:
        top = min(final.survivors, paid)
        seeds = min(seeds, paid // top)
    trials = top * seeds
    # What is not paid for leaves the waves that are to come smaller, or empty.
    ahead = _even(top - past.settings, final.waves - past.waves)
    sizes = (*_even(past.drawn, past.waves), *(seeds * settings for settings in ahead))
    fitted = _with(plan, replace(final, trials=trials, survivors=top, sizes=sizes))
    note = f"{trials} of the {planned} final runs: {needs}" if trials < planned else ""
    return Repriced(plan=fitted, used=used, note=note)


def _allow_more(asked: Budget, where: str) -> str:
    return f'Allow more: orchestrate budget {where} "{asked.show().lower().replace(",", "")}"'


def _reserve(plan: Plan, costs: Mapping[str, float], budget: Budget) -> float:
    """Return what is kept for the final runs.

    Where their number came from a guess at what the budget pays, they get no more than their share of it.
    """
    final = plan.final
    if final is None:
        return 0.0
    cost = costs[final.name]
    if not plan.auto or not budget.in_hours:
        return final.trials * cost
    if cost <= 0:
        return 0.0
    share = final_share(budget.amount / cost)
    planned = sum((phase.share or 0.0) * phase.runs for phase in plan.phases if phase.trains)
    if final.share and planned and final.trials > math.ceil(final_share(planned) * planned):
        # A larger share was asked for.
        share = max(share, final.trials / planned)
    return min(final.trials, max(1, math.floor(share * budget.amount / cost))) * cost


def _growth(plan: Plan, budget: Budget) -> float:
    """Return how many times its planned trials a stage may have: those a person wrote down are a limit."""
    if not plan.auto:
        return 1.0
    return math.inf if budget.in_hours and plan.total.hours is None else MOST_GROWTH


def _least(plan: Plan, phase: Phase, reserve: float, costs: Mapping[str, float]) -> int:
    """Return the fewest trials worth beginning a stage for, with so much kept for the final runs."""
    least = LEAST_FIRST if phase == plan.stages[0] else LEAST_TRIALS
    final = plan.final
    if final is None or phase != plan.stages[-1]:
        return least
    # Later waves of the final runs have new settings too.
    settings = final.wave_sizes[0] * final.survivors // final.trials
    if plan.auto and costs[final.name] > 0:
        settings = min(settings, round(reserve / costs[final.name]))
    return max(least, settings)


def _to_come(plan: Plan, phase: Phase, measured: Mapping[str, Spent]) -> tuple[int, int]:
    """Return the trials, and the repeats, that a stage has not drawn yet by the plan."""
    past = measured.get(phase.name, Spent())
    repeats = phase.repeats if past.waves <= phase.waves else 0
    if past.waves >= phase.waves:
        return 0, repeats
    trials = max(0, phase.trials - past.drawn)
    # A stage that grew has drawn more than was planned, and its later waves are to grow as well.
    if plan.auto and past.waves:
        return sum(phase.wave_sizes[past.waves : phase.waves]), repeats
    return trials, repeats


def _scaled(phase: Phase, past: Spent, to_come: tuple[int, int], share: float) -> Phase:
    """Return a stage with so large a share of what is not drawn yet, in the waves that are left."""
    trials, repeats = (math.floor(count * share + TOLERANCE) for count in to_come)
    repeats = min(repeats, phase.repeats)
    trials = min(trials, max(0, max(MOST_TRIALS, phase.trials) - past.drawn))
    if past.waves:
        drawn = past.drawn - max(0, past.drawn - phase.trials if past.waves > phase.waves else 0)
        sizes = (
            *_even(drawn, min(past.waves, phase.waves)),
            *_even(trials, max(0, phase.waves - past.waves)),
            *((repeats,) if phase.repeats else ()),
        )
        return replace(phase, trials=drawn + trials, repeats=repeats, sizes=sizes)
    factor = trials / phase.trials
    sizes = ()
    # A small first wave that measures the price stays that small.
    if phase.sizes:
        first = min(phase.sizes[0], trials)
        sizes = (first, *_even(trials - first, phase.waves - 1), *((repeats,) if phase.repeats else ()))
    return replace(
        phase,
        trials=trials,
        repeats=repeats,
        sizes=sizes,
        survivors=min(trials, math.ceil(phase.survivors * factor - TOLERANCE)),
        controls=math.floor(phase.controls * factor + TOLERANCE),
    )


def _even(total: int, parts: int) -> tuple[int, ...]:
    return tuple(len(range(part, total, parts)) for part in range(parts))


def _with(plan: Plan, changed: Phase) -> Plan:
    return replace(
        plan, phases=tuple(changed if phase.name == changed.name else phase for phase in plan.phases)
    )


def _up(amount: float) -> float:
    """Round an amount up to two digits, so that what is asked for is enough."""
    if amount <= 0:
        return amount
    unit = 10.0 ** (math.floor(math.log10(amount)) - 1)
    return math.ceil(amount / unit - 1e-9) * unit
