"""Records: torn lines, numbers that are none, and one outcome for each trial."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.sweep.records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    PRUNED,
    STATES,
    Outcome,
    counted,
    encode,
    number,
    outcomes,
    read_directory,
    read_file,
)

HEADER = {
    "kind": "task",
    "submission": 3,
    "task": 0,
    "host": "n1",
    "slurm_job_id": "7_0",
    "gpus": 1,
    "cpus": 4,
}


def done(trial: str = "a", **more: Any) -> dict[str, Any]:
    return {
        "kind": "outcome",
        "trial": trial,
        "state": COMPLETED,
        "metrics": {"acc": 0.5},
        "seconds": 2,
    } | more


def written(folder: Path, *lines: dict[str, Any] | bytes, name: str = "0003-0000-01.jsonl") -> Path:
    path = folder / name
    path.write_bytes(b"".join(line if isinstance(line, bytes) else encode(line).encode() for line in lines))
    return path


def test_an_outcome_carries_where_it_ran(tmp_path: Path) -> None:
    record = read_file(written(tmp_path, HEADER, {"kind": "start", "trial": "a"}, done(time=9.0)))
    assert record.unreadable == 0
    assert [line["kind"] for line in record.lines] == ["start", "outcome"]
    assert list(outcomes(record)) == [
        Outcome(
            trial="a", state=COMPLETED, metrics={"acc": 0.5}, seconds=2.0, time=9.0, submission=3, host="n1",
            slurm_job_id="7_0", gpus=1.0, cpus=4.0,
        )
    ]  # fmt: skip


def test_every_prefix_of_a_file_can_be_read(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER, done("a"), done("ü", error="größer\n{"), done("c"))
    whole = path.read_bytes()
    ends = [index + 1 for index, byte in enumerate(whole) if byte == ord("\n")]
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        record = read_file(path)
        complete = sum(end <= length + 1 for end in ends)  # a line without its newline is whole, too
        assert len(list(outcomes(record))) == max(0, complete - 1)
        assert record.unreadable <= 1


def test_a_torn_or_foreign_line_in_the_middle_costs_that_line_alone(tmp_path: Path) -> None:
    torn = encode(done("torn"))[:20].encode() + b"\n"
    path = written(
        tmp_path, HEADER, done("a"), torn, b"\x00\x00\xff\n", b"[1, 2]\n", b"7\n", b'{"no": "kind"}\n', b"\n",
        {"kind": "novelty", "x": 1}, done("b"),
    )  # fmt: skip
    record = read_file(path)
    assert [outcome.trial for outcome in outcomes(record)] == ["a", "b"]
    assert record.unreadable == 5


def test_without_a_header_an_outcome_still_counts(tmp_path: Path) -> None:
    (outcome,) = outcomes(read_file(written(tmp_path, done("a"))))
    assert (outcome.submission, outcome.host, outcome.cpus) == (0, "", 1.0)


@pytest.mark.parametrize(
    "spoiled",
    [
        {"metrics": None},
        {"metrics": [1]},
        {"metrics": "acc"},
        {"seconds": None},
        {"seconds": "long"},
        {"time": "noon"},
        {"error": None},
        {"trial": 7},
    ],
)
def test_an_outcome_of_strange_types_does_not_stop_the_reader(
    tmp_path: Path, spoiled: dict[str, Any]
) -> None:
    found = list(outcomes(read_file(written(tmp_path, HEADER, done("a") | spoiled, done("b")))))
    assert found[-1].trial == "b"
    for outcome in found:
        assert isinstance(outcome.trial, str)
        assert isinstance(outcome.error, str)
        assert isinstance(outcome.seconds, float)


@pytest.mark.parametrize("state", [None, "", "done", 3, ["completed"], {"a": 1}])
def test_an_unknown_state_is_no_outcome(tmp_path: Path, state: Any) -> None:
    assert list(outcomes(read_file(written(tmp_path, HEADER, done("a", state=state))))) == []


@pytest.mark.parametrize(
    "spoiled", [{"submission": "x"}, {"submission": None}, {"gpus": "x"}, {"host": None}]
)
def test_a_strange_header_does_not_stop_the_reader(tmp_path: Path, spoiled: dict[str, Any]) -> None:
    assert [o.trial for o in outcomes(read_file(written(tmp_path, HEADER | spoiled, done("a"))))] == ["a"]


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    metrics = {
        "nan": math.nan,
        "up": math.inf,
        "down": -math.inf,
        "deep": [math.nan, {"x": -math.inf}],
        "one": 1.5,
    }
    line = encode(done(metrics=metrics))
    assert line.endswith("\n")
    assert line.count("\n") == 1

    def strict(constant: str) -> float:
        raise AssertionError(f"{constant} is no JSON")

    assert json.loads(line, parse_constant=strict)["metrics"] == {
        "nan": "NaN", "up": "Infinity", "down": "-Infinity", "deep": ["NaN", {"x": "-Infinity"}], "one": 1.5,
    }  # fmt: skip
    (outcome,) = outcomes(read_file(written(tmp_path, line.encode())))
    assert math.isnan(outcome.metrics["nan"])
    assert (outcome.metrics["up"], outcome.metrics["down"]) == (math.inf, -math.inf)
    assert math.isnan(outcome.metrics["deep"])
    # Another writer's NaN, as Python writes it, is read as well.
    assert math.isnan(
        next(outcomes(read_file(written(tmp_path, encode(done()).replace("0.5", "NaN").encode())))).metrics[
            "acc"
        ]
    )


@given(
    st.one_of(st.floats(), st.integers(-(10**300), 10**300), st.text(), st.none(), st.lists(st.integers()))
)
def test_number_gives_a_number(value: Any) -> None:
    assert isinstance(number(value), float)
    if isinstance(value, float):
        back = number(json.loads(encode({"x": value}))["x"])
        assert back == value or (math.isnan(back) and math.isnan(value))


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in (
        "0002-0000-01.jsonl",
        "0001-0001-01.jsonl",
        "0001-0000-01.jsonl",
        ".0001.jsonl.tmp",
        "x.jsonl",
    ):
        written(tmp_path, HEADER, name=name)
    assert [record.path.name for record in read_directory(tmp_path)] == [
        "0001-0000-01.jsonl", "0001-0001-01.jsonl", "0002-0000-01.jsonl",
    ]  # fmt: skip
    assert read_directory(tmp_path / "nowhere") == []


def outcome(
    state: str, submission: int = 1, time: float = 0.0, trial: str = "a", acc: float = 0.0
) -> Outcome:
    return Outcome(
        trial=trial, state=state, metrics={"acc": acc}, seconds=1.0, submission=submission, time=time
    )


def test_a_trial_that_ran_twice_counts_once_and_the_first_result_stands() -> None:
    first, second = outcome(COMPLETED, 1, 1.0, acc=0.1), outcome(COMPLETED, 2, 2.0, acc=0.9)
    assert counted([second, first]) == {"a": first}


@pytest.mark.parametrize("state", [COMPLETED, PRUNED, DIVERGED])
def test_a_failure_never_replaces_a_result(state: str) -> None:
    result = outcome(state, 1, 1.0)
    late, early = outcome(FAILED, 2, 2.0), outcome(FAILED, 0, 0.0)
    assert counted([result, late]) == {"a": result}
    assert counted([early, result, late]) == {"a": result}
    assert counted([early, late]) == {"a": late}


candidates = st.lists(
    st.builds(
        outcome,
        st.sampled_from(STATES),
        st.integers(0, 3),
        st.sampled_from((0.0, 1.0, 2.0, math.nan)),
        st.sampled_from("abc"),
        st.sampled_from((0.0, 1.0)),
    ),
    max_size=12,
)


@given(candidates, st.randoms(use_true_random=False))
def test_the_order_of_reading_does_not_matter(found: list[Outcome], shuffle: random.Random) -> None:
    expected = counted(found)
    assert set(expected) == {item.trial for item in found}
    mixed = list(found)
    shuffle.shuffle(mixed)
    # NaN is not equal to itself.
    assert repr(sorted(counted(mixed).items())) == repr(sorted(expected.items()))


@given(candidates, st.sampled_from(STATES), st.sampled_from("abc"))
def test_what_comes_later_never_changes_a_result(found: list[Outcome], state: str, trial: str) -> None:
    before = counted(found)
    after = counted([*found, replace(outcome(state, 9, math.inf, trial), host="zzz")])
    for name, result in before.items():
        if result.state != FAILED:
            assert after[name] is result
