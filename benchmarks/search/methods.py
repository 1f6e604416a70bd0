"""The methods that are compared: the opponents by name, and the sweep's variants from sweep.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from meter import Meter, Outcome, Spent, choice_at
from task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Opponent:
    """One opponent.

    Attributes:
        title: its name in tables.
        where: module:function in opponents/; the function spends a meter's budget.
        package: the distribution that it needs beyond this project's own ("": none).
        module: what that distribution is imported as.
        anytime: its choices up to a cost don't depend on the budget, so one run serves every budget.
        factor: how many times the budget it is given.
    """

    title: str
    where: str
    package: str = ""
    module: str = ""
    anytime: bool = True
    factor: float = 1.0


SYNE_TUNE = {"package": "syne-tune", "module": "syne_tune"}
OPPONENTS = {
    "random": Opponent(title="random", where="draw:random"),
    "sobol-2x": Opponent(title="Sobol, twice the budget", where="draw:sobol", factor=2),
    "one-epoch": Opponent(title="one epoch", where="one_epoch:run", anytime=False),
    "optuna-tpe": Opponent(title="Optuna TPE", where="optuna_tpe:tpe"),
    "optuna-hyperband": Opponent(title="Optuna TPE + Hyperband", where="optuna_tpe:hyperband"),
    "asha": Opponent(title="ASHA (Syne Tune)", where="syne_tune_asha:asha", **SYNE_TUNE),
    "bohb": Opponent(title="BOHB (Syne Tune)", where="syne_tune_asha:bohb", **SYNE_TUNE),
    "smac": Opponent(
        title="SMAC multi-fidelity", where="smac_hyperband:run", package="smac", module="smac", anytime=False
    ),
    "neps": Opponent(
        title="NePS (auto)", where="neps_auto:run", package="neural-pipeline-search", module="neps"
    ),
}


def installed() -> tuple[list[str], list[str]]:
    """Return the names of the methods that can run here, and a sentence for each one that can't."""
    names, missing = [], []
    for name, opponent in OPPONENTS.items():
        if opponent.module and find_spec(opponent.module) is None:
            missing.append(f"{name} is left out: {opponent.package} is not installed")
        else:
            names.append(name)
    if (Path(__file__).parent / "sweep.py").is_file():
        names += list(import_module("sweep").VARIANTS)
    return names, missing


def outcomes(method: str, task: Task, budgets: Sequence[float], seed: int) -> dict[float, Outcome]:
    """Run a method on a task with a seed, and return what it chose within each budget.

    A budget too small for one full-scale training of anything that the method looked at is left out.
    """
    opponent = OPPONENTS.get(method)
    if opponent is None:
        return _variant(import_module("sweep").VARIANTS[method], task, budgets, seed)
    module, name = opponent.where.split(":")
    run = getattr(import_module(f"opponents.{module}"), name)
    found: dict[float, Outcome | None] = {}
    if opponent.anytime:
        meter = spend(run, task, max(budgets) * opponent.factor, seed)
        found = {budget: choice_at(meter.trace, budget * opponent.factor) for budget in budgets}
    else:
        for budget in budgets:
            meter = spend(run, task, budget * opponent.factor, seed)
            found[budget] = choice_at(meter.trace, budget * opponent.factor)
    return {budget: outcome for budget, outcome in found.items() if outcome is not None}


def spend(run: Callable[[Meter, int], None], task: Task, budget: float, seed: int) -> Meter:
    """Let an opponent spend a budget, and return the meter that counted it."""
    meter = Meter(task, budget, seed)
    with suppress(Spent):
        run(meter, seed)
    return meter


def _variant(
    run: Callable[[Task, float, int], Outcome], task: Task, budgets: Sequence[float], seed: int
) -> dict[float, Outcome]:
    found = {budget: run(task, budget, seed) for budget in budgets}
    for budget, outcome in found.items():
        if outcome.cost > budget * (1 + 1e-6):
            raise ValueError(f"{task.name}: spent {outcome.cost:g} of a budget of {budget:g}")
    return found
