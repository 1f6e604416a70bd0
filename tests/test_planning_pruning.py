"""Pruning: the rule by itself, in any order of arrival, and what trials read of each other's records."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.planning.pruning import rung_at, rungs, worth_going_on
from orchestrator.sweep.records import encode
from orchestrator.worker.rungs import Rungs

ETAS = st.sampled_from((1.5, 2.0, 3.0, 4.0))
NUMBERS = st.floats(-10, 10) | st.sampled_from((math.nan, math.inf, -math.inf))


@pytest.mark.parametrize(
    ("eta", "epochs", "expected"),
    [
        (3, 27, [1, 3, 9]),
        (3, 9, [1, 3]),
        (3, 10, [1, 3]),
        (3, 3, [1]),
        (3, 2, []),
        (3, 1, []),
        (2, 8, [1, 2, 4]),
        (4, 100, [2, 6, 25]),
        (1.5, 3, [1, 2]),
    ],
)
def test_rungs_of_so_many_epochs(eta: float, epochs: int, expected: list[int]) -> None:
    assert list(rungs(eta, epochs)) == expected


def test_rungs_without_known_epochs_go_on() -> None:
    assert list(itertools.islice(rungs(3, None), 4)) == [1, 3, 9, 27]
    assert list(itertools.islice(rungs(1.2, None), 5)) == [1, 2, 3, 4, 5], "each step once"


@given(ETAS, st.none() | st.integers(1, 200), st.integers(0, 300))
def test_a_step_has_the_highest_rung_that_it_has_reached(eta: float, epochs: int | None, step: int) -> None:
    known = list(itertools.takewhile(lambda rung: rung <= 300, rungs(eta, epochs)))
    assert known == sorted(set(known)) and all(rung >= 1 for rung in known)
    ended = epochs is not None and step >= epochs
    expected = None if ended else max((rung for rung in known if rung <= step), default=None)
    assert rung_at(step, eta, epochs) == expected


def test_a_third_goes_on() -> None:
    others = [0.1, 0.2, 0.3, 0.4, 0.5]
    assert worth_going_on(0.45, others, 3), "second of six"
    assert not worth_going_on(0.35, others, 3), "third of six"
    assert worth_going_on(0.4, others, 3), "as good as the second"
    assert worth_going_on(-9.0, [0.1], 3), "two tell nothing"
    assert not worth_going_on(-9.0, [0.1, 0.2], 3)


@given(NUMBERS, st.lists(NUMBERS), ETAS)
def test_the_best_goes_on_and_the_order_of_the_others_is_irrelevant(
    value: float, others: list[float], eta: float
) -> None:
    goes_on = worth_going_on(value, others, eta)
    assert worth_going_on(value, others[::-1], eta) == goes_on
    finite = [other for other in others if math.isfinite(other)]
    if math.isfinite(value) and all(value >= other for other in finite):
        assert goes_on
    if not math.isfinite(value) and finite and 1 + len(others) >= eta:
        assert not goes_on, "what diverged is worse than anything that did not"
    if not math.isfinite(value) and not finite:
        assert goes_on, "a metric that nobody has yet says nothing"


@given(st.permutations(range(18)), ETAS)
def test_whatever_the_order_of_arrival_the_best_is_never_stopped_and_about_a_share_goes_on(
    order: list[int], eta: float
) -> None:
    seen: list[float] = []
    passed = []
    for value in order:
        if worth_going_on(value, seen, eta):
            passed.append(value)
        seen.append(value)
    assert 17 in passed
    # One that went on was, when it came, among the best 1/eta of those before it.
    for value in passed:
        before = order[: order.index(value)]
        better = sum(other > value for other in before)
        assert 1 + len(before) < eta or better < max(1, (1 + len(before)) // eta)


@given(NUMBERS, st.lists(NUMBERS, min_size=3))
def test_a_better_value_is_never_stopped_where_a_worse_one_goes_on(value: float, others: list[float]) -> None:
    if math.isfinite(value) and worth_going_on(value, others, 3):
        assert worth_going_on(value + 1.0, others, 3)


def write(folder: Path, name: str, *reports: tuple[str, int, Mapping[str, float]]) -> None:
    lines: list[dict[str, Any]] = [{"kind": "task", "submission": 1, "task": 0}]
    lines += [
        {"kind": "report", "trial": trial, "step": step, "metrics": metrics, "time": 1.0}
        for trial, step, metrics in reports
    ]
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("".join(encode(line) for line in lines))


def judge(folder: Path, trial: str = "me", *, sign: int = 1, epochs: int | None = 9) -> Rungs:
    return Rungs(records=folder, trial=trial, metric="acc", sign=sign, eta=3, epochs=epochs)


def test_a_trial_is_compared_with_what_all_tasks_reported_at_its_rung(tmp_path: Path) -> None:
    # At the first rung b leads; at the second a does. c never came to the second.
    write(
        tmp_path, "0001-0000-0.jsonl", ("a", 1, {"acc": 0.1}), ("a", 3, {"acc": 0.8}), ("c", 1, {"acc": 0.2})
    )
    write(tmp_path, "0001-0001-0.jsonl", ("b", 1, {"acc": 0.7}), ("b", 4, {"acc": 0.5}))
    assert not judge(tmp_path).worth_going_on(1, {"acc": 0.6})
    assert judge(tmp_path).worth_going_on(1, {"acc": 0.7})
    # Those who report at 4 only are compared there; two others and it make three.
    assert not judge(tmp_path).worth_going_on(3, {"acc": 0.6})
    assert judge(tmp_path).worth_going_on(3, {"acc": 0.9})
    # Where less is better.
    assert judge(tmp_path, sign=-1).worth_going_on(1, {"acc": 0.05})
    assert not judge(tmp_path, sign=-1).worth_going_on(1, {"acc": 0.6})
    # Nothing is judged off the rungs, at the end, or without the metric.
    assert judge(tmp_path).worth_going_on(0, {"acc": -1.0})
    assert judge(tmp_path).worth_going_on(9, {"acc": -1.0})
    assert judge(tmp_path).worth_going_on(1, {"loss": 9.0})
    assert not judge(tmp_path).worth_going_on(2, {"acc": -1.0}), "its first report past a rung counts"


def test_records_are_read_at_rungs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "0001-0000-0.jsonl", ("a", 1, {"acc": 0.1}), ("b", 1, {"acc": 0.2}))
    reads: list[Path] = []
    whole = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: reads.append(path) or whole(path))  # type: ignore[func-returns-value]
    rungs_of_me = judge(tmp_path, epochs=27)
    for step in range(1, 28):
        assert rungs_of_me.worth_going_on(step, {"acc": 0.9})
    assert len(reads) == 3, "at 1, 3 and 9"


def test_a_trial_that_was_taken_up_again_is_judged_by_what_it_showed_before(tmp_path: Path) -> None:
    write(
        tmp_path, "0001-0000-0.jsonl",
        ("a", 3, {"acc": 0.5}), ("b", 3, {"acc": 0.4}), ("me", 3, {"acc": 0.1}),
    )  # fmt: skip
    # It goes on at step 5, where it is better than the others were at 3.
    assert not judge(tmp_path).worth_going_on(5, {"acc": 0.9})
    write(
        tmp_path, "0001-0000-0.jsonl",
        ("a", 3, {"acc": 0.5}), ("b", 3, {"acc": 0.4}), ("me", 3, {"acc": 0.6}),
    )  # fmt: skip
    assert judge(tmp_path).worth_going_on(5, {"acc": 0.1})


def test_of_a_trial_that_ran_twice_the_later_attempt_counts(tmp_path: Path) -> None:
    write(tmp_path, "0001-0000-0.jsonl", ("a", 1, {"acc": 0.9}), ("b", 3, {"acc": 0.9}))
    write(tmp_path, "0002-0000-0.jsonl", ("a", 1, {"acc": 0.1}), ("b", 1, {"acc": 0.1}))
    assert judge(tmp_path).worth_going_on(1, {"acc": 0.5})


def test_a_report_without_the_metric_hides_none_that_has_it(tmp_path: Path) -> None:
    write(
        tmp_path, "0001-0000-0.jsonl",
        ("a", 1, {"acc": 0.5}), ("a", 1, {"loss": 0.1}), ("b", 1, {"loss": 0.1}), ("b", 2, {"acc": 0.6}),
    )  # fmt: skip
    assert not judge(tmp_path).worth_going_on(1, {"acc": 0.4})


def test_lines_that_make_no_sense_and_torn_ones_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "0001-0000-0.jsonl", ("ä", 1, {"acc": 0.5}), ("b", 1, {"acc": math.nan}))
    with (tmp_path / "0001-0000-0.jsonl").open("a") as file:
        file.write('{"kind":"report","trial":"c","step":1,"metrics":7}\n')
        file.write('{"kind":"report","trial":"d","step":1,"metrics":{"acc":"high"}}\n')
        file.write('{"kind":"report","trial":"e","step":1,broken}\n{"kind":"report","trial":"f","st')
    assert not judge(tmp_path).worth_going_on(1, {"acc": 0.4}), "ä is better, b and d are not finite"
    assert judge(tmp_path, "ä").worth_going_on(1, {"acc": 0.4}), "its own line is no other trial's"
