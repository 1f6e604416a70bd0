"""Allowing: what a sweep may cost, changed by a person after it was planned."""

from __future__ import annotations

from orchestrator.control.opened import Sweep
from orchestrator.planning.budget import check_countable, check_unit, parse_budget, show_amount
from orchestrator.planning.cost import Price
from orchestrator.planning.spending import spent, used_so_far
from orchestrator.sweep.budgets import write_budget
from orchestrator.sweep.facts import read_facts


def allow(sweep: Sweep, amount: str) -> None:
    """Write down what a sweep may cost from now on; what drives it takes it up at its next look.

    Raises:
        UserError: it can't be read, is of hours that nothing spends, or can't be counted for this sweep.
    """
    budget = parse_budget(amount, file="command line", key=None)
    check_unit(budget, sweep.plan.unit, "command line", None)
    check_countable(sweep.plan, budget, "command line", None)
    write_budget(sweep.directory, amount)


def allowance(sweep: Sweep) -> str:
    """Say what a sweep may cost and what it has spent of that."""
    facts = read_facts(sweep.directory, sweep.plan)
    if not facts.budget:
        return "there is no budget: it runs what was planned"
    budget, price = parse_budget(facts.budget), Price.of(sweep.config)
    measured = {known.phase.name: spent(known, price) for known in facts.phases}
    used = used_so_far(sweep.plan, measured, budget, price)
    changed = ""
    if sweep.plan.budget != facts.budget:
        changed = f" (planned with {sweep.plan.budget or 'no budget'})"
    return f"spent {show_amount(used)} of a budget of {budget.show()}{changed}"
