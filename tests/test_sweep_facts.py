"""Facts: what a directory says, with what retries forgive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.plan import Cost, Phase, Plan, Scale, plan_to_json
from orchestrator.sweep.directory import FINAL, STAGE, SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.facts import (
    checked_path,
    compacted_path,
    read_facts,
    read_phase,
    read_plan,
    retries_path,
)
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import encode
from orchestrator.sweep.submissions import Intent, Loss, Receipt, write_intent, write_loss, write_receipt

COARSE = Phase(kind=STAGE, name="coarse", trials=3, scale=Scale(), batch=2)
LAST = Phase(kind=FINAL, name=FINAL, trials=1, scale=Scale())
PLAN = Plan(
    uid="ab", name="tiny", metric="acc", mode="max", created=0.0, folder="/x", unit="core",
    phases=(COARSE, LAST), total=Cost(), full_scale_share=None,
)  # fmt: skip
TRIALS = ("a", "b", "c")


@pytest.fixture
def directory(tmp_path: Path) -> SweepDirectory:
    directory = SweepDirectory(tmp_path)
    write_json(directory.plan, plan_to_json(PLAN))
    return directory


@pytest.fixture
def frozen(directory: SweepDirectory) -> SweepDirectory:
    specs = [TrialSpec(trial_id=name, setting_id=name, params={"x": name}, seed=0) for name in TRIALS]
    write_trials(directory.phase(STAGE, "coarse").trials, specs)
    return directory


def submit(directory: SweepDirectory, number: int, *tasks: tuple[str, ...]) -> None:
    folder = directory.phase(STAGE, "coarse").submissions
    assert write_intent(folder, Intent(number=number, token=f"t{number}", tasks=tasks, created=0.0, host="h"))
    write_receipt(folder, number, Receipt(jobs=tuple(f"{number}_{i}" for i in range(len(tasks)))))


def record(directory: SweepDirectory, submission: int, task: int, *lines: dict[str, Any]) -> Path:
    path = directory.phase(STAGE, "coarse").records / f"{submission:04d}-{task:04d}-01.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {"kind": "task", "submission": submission, "task": task}
    path.write_text("".join(encode(line) for line in (header, *lines)))
    return path


def lose(directory: SweepDirectory, submission: int, task: int, reason: str, *blamed: str) -> None:
    folder = directory.phase(STAGE, "coarse").submissions
    write_loss(folder, submission, task, Loss(reason=reason, blamed=blamed))


def start(trial: str) -> dict[str, Any]:
    return {"kind": "start", "trial": trial, "time": 1.0}


def end(trial: str, state: str = "completed", time: float = 2.0) -> dict[str, Any]:
    return {
        "kind": "outcome", "trial": trial, "state": state, "metrics": {"acc": 0.5}, "seconds": 1.0,
        "error": "boom" if state == "failed" else "", "time": time,
    }  # fmt: skip


def retry(
    directory: SweepDirectory, number: int, submission: int, *trials: str, phase: str = "coarse"
) -> None:
    wish = {"phase": phase, "trials": list(trials), "submission": submission}
    write_json(retries_path(directory) / f"{number:04d}.json", [wish])


def test_a_fresh_sweep(directory: SweepDirectory) -> None:
    assert read_plan(directory) == PLAN
    facts = read_facts(directory, PLAN)
    assert [known.phase for known in facts.phases] == [COARSE, LAST]
    assert not any(known.frozen for known in facts.phases)
    assert (facts.cancelled, facts.checked, facts.compacted) == (False, False, 0)


def test_what_is_no_sweep(tmp_path: Path, directory: SweepDirectory) -> None:
    with pytest.raises(UserError, match="is no sweep's directory"):
        read_plan(SweepDirectory(tmp_path / "nowhere"))
    directory.plan.write_text('{"name": "tiny"}')
    with pytest.raises(UserError, match="not a plan of this version"):
        read_plan(directory)
    directory.plan.unlink()
    directory.config.write_text("name: tiny\n")
    with pytest.raises(UserError, match="has no plan yet"):
        read_plan(directory)


def test_marks(frozen: SweepDirectory) -> None:
    write_json(checked_path(frozen), {})
    write_json(compacted_path(frozen), {"rows": 7})
    write_json(frozen.cancelled, {})
    facts = read_facts(frozen, PLAN)
    assert (facts.cancelled, facts.checked, facts.compacted) == (True, True, 7)
    assert facts.phase("coarse").frozen
    assert not facts.phase(FINAL).frozen


def test_what_the_records_say(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a", "b"), ("c",))
    path = record(frozen, 1, 0, start("a"), end("a"), start("b"), end("nobody's"))
    record(frozen, 1, 1, start("c"), end("c", "failed"))
    path.write_text(path.read_text() + '{"kind": "outc')
    known = read_phase(frozen, COARSE)
    assert {name: outcome.state for name, outcome in known.outcomes.items()} == {
        "a": "completed",
        "c": "failed",
    }
    assert known.started == {(1, 0): frozenset("ab"), (1, 1): frozenset("c")}
    assert known.unreadable == 1
    assert [trial.trial_id for trial in known.trials] == list(TRIALS)
    assert [submission.number for submission in known.submissions] == [1]


def test_losses_count_against_a_trial_until_it_is_given_up(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a", "b"), ("c",))
    lose(frozen, 1, 0, "PREEMPTED", "b")
    submit(frozen, 2, ("a", "b"))
    lose(frozen, 2, 0, "TIMEOUT", "b")
    known = read_phase(frozen, COARSE)
    assert {t: [loss.reason for loss in losses] for t, losses in known.attempts().items()} == {
        "b": ["PREEMPTED", "TIMEOUT"]
    }
    assert known.given_up(3) == {}
    assert known.given_up(2) == {"b": "ended by the cluster 2 times, last: TIMEOUT"}
    record(frozen, 2, 0, end("b"))
    assert read_phase(frozen, COARSE).given_up(2) == {}, "it left a result after all"


def test_a_retry_forgives_what_came_before_it(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a", "b"), ("c",))
    record(frozen, 1, 0, end("a", "failed"), end("b"))
    lose(frozen, 1, 1, "TIMEOUT", "c")
    retry(frozen, 1, 1, "a", "c")
    known = read_phase(frozen, COARSE)
    assert set(known.outcomes) == {"b"}
    assert known.attempts() == {}
    assert known.given_up(1) == {}
    # What happens afterwards counts again.
    submit(frozen, 2, ("a", "c"))
    record(frozen, 2, 0, end("a", "failed"))
    lose(frozen, 2, 0, "NODE_FAIL", "c")
    known = read_phase(frozen, COARSE)
    assert known.outcomes["a"].submission == 2
    assert known.given_up(1) == {"c": "ended by the cluster 1 times, last: NODE_FAIL"}
    # And is forgiven by a second wish. What it did not name was with the cluster, and has a fresh start too.
    submit(frozen, 3, ("b",))
    lose(frozen, 3, 0, "CANCELLED", "b")
    assert set(known.attempts()) == {"c"} and set(read_phase(frozen, COARSE).attempts()) == {"b", "c"}
    retry(frozen, 2, 3, "a", "c")
    known = read_phase(frozen, COARSE)
    assert set(known.outcomes) == {"b"}
    assert known.attempts() == {}


def test_a_retry_never_takes_a_result_away(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a", "b"), ("c",))
    record(frozen, 1, 0, end("a"), end("b", "diverged"))
    record(frozen, 1, 1, end("c", "pruned"))
    retry(frozen, 1, 1, *TRIALS)
    assert set(read_phase(frozen, COARSE).outcomes) == set(TRIALS)


def test_a_retry_of_another_phase_or_trial_forgives_nothing(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a",))
    record(frozen, 1, 0, end("a", "failed"))
    retry(frozen, 1, 9, "a", phase=FINAL)
    retry(frozen, 2, 9, "b")
    assert set(read_phase(frozen, COARSE).outcomes) == {"a"}


def test_reading_changes_nothing(frozen: SweepDirectory) -> None:
    submit(frozen, 1, TRIALS)
    record(frozen, 1, 0, end("a"))
    before = {path: path.read_bytes() for path in frozen.path.rglob("*") if path.is_file()}
    assert read_facts(frozen, PLAN) == read_facts(frozen, read_plan(frozen))
    assert {path: path.read_bytes() for path in frozen.path.rglob("*") if path.is_file()} == before
    assert json.loads(frozen.plan.read_text())["version"] == 1


def test_trials_of_all_waves_count_in_their_order(frozen: SweepDirectory) -> None:
    folder = frozen.phase(STAGE, "coarse")
    assert read_phase(frozen, COARSE).waves == 1
    write_trials(folder.wave(1), [])
    write_trials(folder.wave(2), [TrialSpec(trial_id="d", setting_id="d", params={"x": "d"}, seed=0)])
    # A wave whose predecessor is missing has not been drawn.
    write_trials(folder.wave(4), [TrialSpec(trial_id="e", setting_id="e", params={}, seed=0)])
    record(frozen, 1, 0, end("d"), end("e"))
    known = read_phase(frozen, COARSE)
    assert known.waves == 3
    assert [trial.trial_id for trial in known.trials] == ["a", "b", "c", "d"]
    assert set(known.outcomes) == {"d"}


def test_a_phase_has_closed_when_the_next_has_begun(frozen: SweepDirectory) -> None:
    submit(frozen, 1, ("a", "b"), ("c",))
    lose(frozen, 1, 0, "TIMEOUT", "a")
    record(frozen, 1, 0, end("b"))
    assert read_facts(frozen, PLAN).phase("coarse").given_up(3) == {}
    write_trials(frozen.phase(FINAL, FINAL).trials, [])
    known = read_facts(frozen, PLAN).phase("coarse")
    assert known.closed and not read_facts(frozen, PLAN).phase(FINAL).closed
    # c still runs.
    assert known.given_up(3) == {"a": "its stage had closed"}
    assert known.exhausted(3) == {}
    # It was ended by the cluster too often all the same.
    assert known.given_up(1) == {"a": "ended by the cluster 1 times, last: TIMEOUT"}
    retry(frozen, 1, 1, "a")
    assert read_facts(frozen, PLAN).phase("coarse").given_up(3) == {}


def test_a_pruned_outcome_says_where_it_stopped(frozen: SweepDirectory) -> None:
    submit(frozen, 1, TRIALS)
    record(frozen, 1, 0, {**end("a", "pruned"), "step": 3}, {**end("b", "pruned"), "step": "x"}, end("c"))
    outcomes = read_phase(frozen, COARSE).outcomes
    assert {name: outcome.step for name, outcome in outcomes.items()} == {"a": 3, "b": 0, "c": 0}
