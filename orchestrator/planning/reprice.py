"""Re-pricing: how many of the trials ahead a budget pays for, by what those behind have taken.

The budget is a hard cap. The final runs come first: what they cost is kept, and what is left over is shared
by the stages ahead in the proportions of the plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from orchestrator.planning.auto import LEAST_FIRST, LEAST_TRIALS, MOST_TRIALS, final_share
from orchestrator.planning.budget import (
    CALIBRATION_TRIALS,
    TOLERANCE,
    Budget,
    parse_budget,
    run_cost,
    show_amount,
)
from orchestrator.planning.cost import Price
from orchestrator.planning.plan import Phase, Plan
from orchestrator.sweep.directory import FINAL, STAGE
from orchestrator.sweep.facts import Facts, PhaseFacts
from orchestrator.sweep.records import COMPLETED

# Trials that turn out cheaper than declared allow more of them, up to so many times the plan's.
MOST_GROWTH = 4.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """What one phase has spent so far.

    `drawn` trials of so many `settings` are frozen, in `waves` waves. `whole` of them ran to their end in
    `whole_seconds` together; `partial` ended before (pruned, diverged, failed). The rest are taken to cost
    what a whole one does.
    """

    drawn: int = 0
    settings: int = 0
    waves: int = 0
    whole: int = 0
    whole_seconds: float = 0.0
    partial: int = 0
    partial_seconds: float = 0.0
    # of a trial, before its first epoch and after its last one; None where the reports don't tell
    startup_seconds: float | None = None

    @property
    def mean_seconds(self) -> float | None:
        """The seconds of a whole trial, None before the first one."""
        if self.whole and self.whole_seconds > 0:
            return self.whole_seconds / self.whole
        # None ran to its end: what those took that ended before is the least that one takes.
        return self.partial_seconds / self.partial if self.partial and self.partial_seconds > 0 else None

    @property
    def trials(self) -> float:
        """What was spent, in whole trials; of those that ended early the part that their seconds are."""
        pending = self.drawn - self.whole - self.partial
        if self.mean_seconds is None:
            return self.drawn
        return pending + self.whole + min(self.partial, self.partial_seconds / self.mean_seconds)


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


def spent(known: PhaseFacts, price: Price) -> Spent:
    """Add up what a phase has spent, from its records, in seconds of a stage's trials."""
    weight = price.weight(known.phase.kind)
    whole = [weight * o.seconds for o in known.outcomes.values() if o.state == COMPLETED]
    partial = [weight * o.seconds for o in known.outcomes.values() if o.state != COMPLETED]
    return Spent(
        drawn=len(known.trials),
        settings=len({trial.setting_id for trial in known.trials}),
        waves=known.waves,
        whole=len(whole),
        whole_seconds=_sum(whole),
        partial=len(partial),
        partial_seconds=_sum(partial),
        startup_seconds=None if known.startup_seconds is None else weight * known.startup_seconds,
    )


def _sum(seconds: list[float]) -> float:
    return sum(value for value in seconds if math.isfinite(value) and value > 0)


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


def run_costs(
    plan: Plan, measured: Mapping[str, Spent], budget: Budget, price: Price
) -> dict[str, float | None]:
    """Return what one trial of each phase costs, in the budget's unit; hours by what was measured."""
    if not budget.in_hours:
        return {phase.name: run_cost(phase, budget) for phase in plan.phases}
    seconds = {phase.name: _run_seconds(plan, phase, measured, price) for phase in plan.phases}
    return {name: None if s is None else s * price.share / 3600 for name, s in seconds.items()}


def used_so_far(plan: Plan, measured: Mapping[str, Spent], budget: Budget, price: Price) -> float:
    """Return what is spent, and what the trials that run now are taken to, in the budget's unit."""
    costs = run_costs(plan, measured, budget, price)
    used = 0.0
    for phase in plan.phases:
        past, cost = measured.get(phase.name, Spent()), costs[phase.name] or 0.0
        if budget.in_hours:
            pending = past.drawn - past.whole - past.partial
            used += (past.whole_seconds + past.partial_seconds) * price.share / 3600 + pending * cost
        else:
            used += past.trials * cost
    return used


def _run_seconds(plan: Plan, phase: Phase, measured: Mapping[str, Spent], price: Price) -> float | None:
    """Return the seconds of one trial, as if a stage's: its phase's mean, or a forecast.

    A forecast is made from the largest scale measured.
    The forecast is a startup and a rate: told apart by the trials' own reports, else by two scales, else as
    they were declared. Where nothing tells, all of it grows with the scale: rather too dear than too cheap.
    """
    if not phase.trains:
        return 0.0
    if (own := _mean(measured, phase)) is not None:
        return own
    timed = sorted(
        (p for p in plan.phases if p.share is not None and _mean(measured, p)), key=lambda p: p.share or 0.0
    )
    if not timed:
        return _declared(phase, price)
    last = timed[-1]
    mean, share = _mean(measured, last) or 0.0, last.share or 1.0
    startup = measured[last.name].startup_seconds
    smaller = next((p for p in reversed(timed) if (p.share or 0.0) < 0.99 * share), None)
    if startup is None and smaller is not None:
        rate = (mean - (_mean(measured, smaller) or 0.0)) / (share - (smaller.share or 0.0))
        startup = mean - max(0.0, rate) * share
    ahead, there = _declared(phase, price), _declared(last, price)
    if startup is None and ahead and there:
        return mean * ahead / there
    if phase.share is None:
        return None
    startup = min(max(0.0, startup or 0.0), mean)
    return startup + (mean - startup) * phase.share / share


def _mean(measured: Mapping[str, Spent], phase: Phase) -> float | None:
    return measured[phase.name].mean_seconds if phase.name in measured else None


def _declared(phase: Phase, price: Price) -> float | None:
    seconds = phase.cost.seconds
    return None if seconds is None else price.weight(phase.kind) * seconds / phase.runs


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
