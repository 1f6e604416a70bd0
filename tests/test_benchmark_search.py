"""The search benchmark's harness: what is counted, what is chosen, what the tables say."""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestrator.space import parse_space

SEARCH = Path(__file__).parent.parent / "benchmarks" / "search"
SPACE = {"x": "interval(0.0, 1.0)", "rate": "tag(log, interval(1e-3, 1.0))", "kind": "choice(good, bad)"}
SETTING = {"x": 0.5, "rate": 0.1, "kind": "good"}
WITHOUT_PACKAGES = ("random", "sobol-2x", "one-epoch", "optuna-tpe", "optuna-hyperband")


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """benchmarks/ is no package: its modules are found as when run.py is started."""
    monkeypatch.syspath_prepend(str(SEARCH))


def module(name: str) -> Any:
    return importlib.import_module(name)


def made_up(*, resumable: bool) -> Any:
    """Return a task whose errors are known: lower nearer to x = 0.3, and higher at a small scale."""
    task = module("task")

    def score(settings: Sequence[Any], fidelities: Sequence[float], seed: int) -> list[Any]:
        errors = [
            abs(setting["x"] - 0.3) + 0.1 * (setting["kind"] == "bad") + 0.2 * (1 - fidelity)
            for setting, fidelity in zip(settings, fidelities, strict=True)
        ]
        return [task.Result(error, error + 1) for error in errors]

    return task.Task(
        name="made/up", family="made", half="tuning", space=parse_space(SPACE, {}, "made-up"),
        lowest=1 / 27, levels=tuple(step / 27 for step in range(1, 28)), resumable=resumable, score=score,
    )  # fmt: skip


def test_going_on_costs_only_the_rest_where_a_task_is_resumable() -> None:
    meter = module("meter").Meter(made_up(resumable=True), budget=2.0)
    for fidelity in (1 / 27, 9 / 27, 1.0):
        meter.evaluate(SETTING, fidelity)
    assert meter.spent == pytest.approx(1.0)


def test_every_scale_is_paid_in_full_where_a_task_is_not_resumable() -> None:
    meter = module("meter").Meter(made_up(resumable=False), budget=2.0)
    for fidelity in (1 / 27, 9 / 27, 1.0):
        meter.evaluate(SETTING, fidelity)
    assert meter.spent == pytest.approx(37 / 27)


def test_what_is_known_already_costs_nothing_but_not_for_ever() -> None:
    meter = module("meter").Meter(made_up(resumable=False), budget=2.0)
    values = {meter.evaluate(SETTING) for _ in range(3)}
    assert (meter.spent, len(values)) == (1.0, 1)
    with pytest.raises(module("meter").Spent):
        for _ in range(10_000):
            meter.evaluate(SETTING)


def test_a_training_that_the_budget_does_not_allow_is_not_run() -> None:
    meter = module("meter").Meter(made_up(resumable=False), budget=1.5)
    meter.evaluate(SETTING)
    with pytest.raises(module("meter").Spent):
        meter.evaluate({**SETTING, "x": 0.3})
    assert [point.setting["x"] for point in meter.trace] == [0.5]
    assert meter.left == 0.5


@pytest.mark.parametrize(("resumable", "rest"), [(True, 18 / 27), (False, 1.0)])
def test_a_choice_is_trained_in_full_within_the_budget(resumable: bool, rest: float) -> None:
    meters = module("meter")
    meter = meters.Meter(made_up(resumable=resumable), budget=3.0)
    meter.evaluate(SETTING, 9 / 27)
    assert meters.choice_at(meter.trace, 9 / 27 + rest - 0.01) is None
    chosen = meters.choice_at(meter.trace, 9 / 27 + rest)
    assert chosen.cost == pytest.approx(9 / 27 + rest)


def test_the_choice_is_the_best_at_the_highest_fidelity_seen() -> None:
    meters = module("meter")
    meter = meters.Meter(made_up(resumable=False), budget=9.0)
    for x, fidelity in ((0.9, 1.0), (0.3, 1 / 27), (0.6, 1.0), (0.7, 1.0)):
        meter.evaluate({**SETTING, "x": x}, fidelity)
    assert [point.setting["x"] for point in meter.trace] == [0.9, 0.6]


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("method", WITHOUT_PACKAGES)
def test_an_opponent_stays_within_its_budget_and_repeats_itself(method: str, resumable: bool) -> None:
    methods, task = module("methods"), made_up(resumable=resumable)
    outcomes = methods.outcomes(method, task, (2.0, 6.0), seed=3)
    factor = methods.OPPONENTS[method].factor
    assert set(outcomes) == {2.0, 6.0}
    for budget, outcome in outcomes.items():
        assert 1.0 <= outcome.cost <= budget * factor + 1e-6
        assert all(parameter.contains(outcome.setting[parameter.name]) for parameter in task.space)
    assert outcomes == methods.outcomes(method, task, (2.0, 6.0), seed=3)
    errors = [task.evaluate(outcomes[budget].setting).validation for budget in (2.0, 6.0)]
    assert errors[1] <= errors[0]


def test_narrowing_alone_leaves_a_range_that_was_declared_wrong() -> None:
    sweep, task = module("sweep"), made_up(resumable=False)
    walled = tuple(p if p.kind == "choice" else replace(p, limits=(p.low, p.high)) for p in task.space)
    found: dict[str, list[float]] = {}
    for name in ("sweep-half-ranges", "sweep-half-ranges-no-narrowing"):
        # Seeds whose half is the upper one, without the best place.
        seeds = [seed for seed in range(8) if sweep._halved(walled, seed)[0].low == 0.5][:3]
        found[name] = [
            sweep.VARIANTS[name](replace(task, space=walled), 8.0, seed).setting["x"] for seed in seeds
        ]
    assert max(found["sweep-half-ranges"]) < 0.45
    assert min(found["sweep-half-ranges-no-narrowing"]) >= 0.5


def test_random_trains_as_many_settings_as_the_budget_holds() -> None:
    meter = module("methods").spend(module("opponents.draw").random, made_up(resumable=False), 5.0, 0)
    assert meter.spent == 5.0


def test_one_epoch_looks_at_many_and_trains_three() -> None:
    trained: list[float] = []
    task = made_up(resumable=True)

    def counted(settings: Sequence[Any], fidelities: Sequence[float], seed: int) -> Any:
        trained.extend(fidelities)
        return task.score(settings, fidelities, seed)

    counting = replace(task, score=counted)
    module("methods").spend(module("opponents.one_epoch").run, counting, 6.0, 0)
    assert trained.count(1.0) == 3
    assert trained.count(1 / 27) == len(trained) - 3
    assert len(trained) - 3 == int((6.0 - 3 * 26 / 27) * 27 + 1e-6)


def test_halves_are_equal_and_disjoint() -> None:
    tasks = module("tasks")
    for family, count in (("rpart", 24), ("lcbench", 12), ("taskset", 6), ("live", 2)):
        halves = [half for name, half in tasks.HALVES.items() if name.startswith(f"{family}/")]
        assert (halves.count("tuning"), halves.count("held-out")) == (count / 2, count / 2)


def test_families_without_data_are_named() -> None:
    names, missing = module("tasks").available(None)
    assert {name.split("/")[0] for name in names} <= {"table", "live"}
    assert len(missing) == 3
    assert all("--data FOLDER" in sentence for sentence in missing)


def test_what_is_there_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, shards = module("run"), module("shards")
    monkeypatch.setattr(run.tasks, "load", lambda name, data: made_up(resumable=False))
    run.run_pair(("made/up", "random"), None, tmp_path, 2, (2.0, 3.0))
    file = shards.shard(tmp_path, "made/up", "random")
    assert shards.present(file) == {(0, 2.0), (0, 3.0), (1, 2.0), (1, 3.0)}
    ran: list[tuple[int, tuple[float, ...]]] = []
    original = run.methods.outcomes

    def noted(method: str, task: Any, budgets: Sequence[float], seed: int) -> Any:
        ran.append((seed, tuple(budgets)))
        return original(method, task, budgets, seed)

    monkeypatch.setattr(run.methods, "outcomes", noted)
    run.run_pair(("made/up", "random"), None, tmp_path, 3, (2.0, 3.0))
    assert ran == [(2, (2.0, 3.0))]
    assert len(shards.present(file)) == 6


def results() -> tuple[Any, Any]:
    """Two tasks with best 0 and median 1, and one that tells nothing apart."""
    import pandas as pd

    tests: dict[tuple[str, str], dict[int, float | None]] = {
        ("a", "random"): {2: 0.9, 20: 0.5}, ("a", "other"): {2: 0.7, 20: 0.1},
        ("b", "random"): {2: 0.7, 20: 0.3}, ("b", "other"): {2: 0.7, 20: None},
        ("flat", "random"): {2: 0.2, 20: 0.2}, ("flat", "other"): {2: 0.2, 20: 0.2},
    }  # fmt: skip
    rows = [
        {"task": task, "family": "made", "half": "tuning", "method": method, "seed": seed,
         "budget": float(budget), "test": test, "seconds": 1.0}
        for (task, method), values in tests.items() for budget, test in values.items() for seed in (0, 1)
    ]  # fmt: skip
    references = [
        {"task": task, "best": best, "median": median}
        for task, best, median in (("a", 0.0, 1.0), ("b", 0.0, 1.0), ("flat", 0.2, 0.2))
    ]
    return pd.DataFrame(rows), pd.DataFrame(references)


def test_regret_and_ranks_by_hand() -> None:
    summarise = module("summarise")
    rows = summarise.with_regret(*results())
    assert set(rows.task) == {"a", "b"}
    means = summarise.curves(rows).set_index(["method", "budget"])
    assert means.regret.to_dict() == pytest.approx(
        {("random", 2.0): 0.8, ("random", 20.0): 0.4, ("other", 2.0): 0.7, ("other", 20.0): 0.55}
    )
    assert means["rank"].to_dict() == {
        ("random", 2.0): 1.75, ("random", 20.0): 1.5, ("other", 2.0): 1.25, ("other", 20.0): 1.5,
    }  # fmt: skip


def test_a_better_choice_than_any_reference_is_the_best_known() -> None:
    rows, references = results()
    rows.loc[(rows.task == "a") & (rows.method == "other") & (rows.budget == 20), "test"] = -1.0
    rows = module("summarise").with_regret(rows, references)
    assert rows[rows.task == "a"].regret.min() == 0.0
    assert rows[(rows.task == "a") & (rows.method == "random")].regret.max() == pytest.approx(1.9 / 2)


def test_the_cost_to_reach_a_goal_lies_between_two_budgets() -> None:
    summarise = module("summarise")
    means = summarise.curves(summarise.with_regret(*results()))
    reached = summarise.cost_to_reach(means, 0.6)
    assert reached["random"] == pytest.approx(math.exp((math.log(2) + math.log(20)) / 2))
    assert summarise.cost_to_reach(means, 0.9) == {"random": 2.0, "other": 2.0}
    assert summarise.cost_to_reach(means, 0.5)["other"] == math.inf


def test_a_task_that_a_method_did_not_run_is_left_out_and_named() -> None:
    summarise = module("summarise")
    rows = summarise.with_regret(*results())
    kept, left_out = summarise.complete(rows[(rows.task != "b") | (rows.method != "other")])
    assert set(kept.task) == {"a"}
    assert left_out == ["b is left out: not every method ran on it"]


def test_the_summary_names_every_method(tmp_path: Path) -> None:
    rows, references = results()
    for folder, table in (("random", rows), ("reference", references)):
        file = tmp_path / "shards" / folder / "all.parquet"
        file.parent.mkdir(parents=True)
        table.to_parquet(file)
    module("summarise").summarise(tmp_path, tmp_path / "docs")
    text = (tmp_path / "docs" / "search-benchmark.md").read_text()
    assert "| random | 0.800 | 0.400 | 1.75 | 1.50 | 20.0 | 1.0 |" in text
    assert "- flat is left out: its median setting is as good as its best" in text
    assert "| other | 0.700 | 0.550 | 1.25 | 1.50 | > 20 | 1.0 |" in text
    assert (tmp_path / "docs" / "search-benchmark-tuning-half.svg").stat().st_size > 1000


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_the_best_of_some_settings_is_worth_is_the_mean_over_all_draws(count: int) -> None:
    seen, worth = [3.0, 1.0, 2.0, 5.0, 4.0], [0.1, 0.9, 0.2, 0.0, 0.5]
    draws = list(itertools.combinations(range(5), count))
    expected = statistics.mean(worth[min(draw, key=seen.__getitem__)] for draw in draws)
    best_of = module("carrying").best_of
    assert best_of(count, np.array(seen), np.array(worth)) == pytest.approx(expected)


def test_rankings_that_carry_over_in_full_lose_nothing() -> None:
    row = module("carrying").look(made_up(resumable=False))
    assert row["correlation at 1/27"] == pytest.approx(1.0)
    assert row["27 at 1/27, best in full"] == pytest.approx(row["27 ranked without error"])
    assert row["27 ranked without error"] < row["20 in full"] < row["4 in full"] < 1


def test_opponents_know_a_choice_with_an_order_by_its_place() -> None:
    encode = module("opponents.encode")
    space = parse_space({"width": "choice(16, 32, 64)", "kind": "choice(good, bad)"}, {}, "made-up")
    assert [encode.by_place(parameter) for parameter in space] == [True, False]
    assert encode.decode(space, {"width": 2, "kind": "1"}) == {"width": 64, "kind": "bad"}
