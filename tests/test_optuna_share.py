"""Optuna both ways: a sweep's trials as studies, and past studies as settings to try first."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from click.testing import CliRunner

from commands import write_user_sweep
from made_sweep import METRIC, make_sweep, run_a_failed_one_again
from orchestrator.cli import main
from orchestrator.config import load_frozen
from orchestrator.control.create import freeze_plan, work_out
from orchestrator.control.draw import freeze
from orchestrator.errors import UserError
from orchestrator.integrations import alone, optuna_storage
from orchestrator.integrations.optuna_share import share_with_optuna
from orchestrator.integrations.optuna_storage import find_place, open_storage
from orchestrator.integrations.optuna_values import placed_value
from orchestrator.planning.sampling.prior_results import known_results
from orchestrator.results.compact import compact
from orchestrator.results.load import load_results
from orchestrator.space import CHOICE, FLOAT, Parameter
from orchestrator.sweep.directory import read_trials
from orchestrator.sweep.lease import hold
from orchestrator.sweep.records import encode

STATE = optuna.trial.TrialState


@pytest.fixture(autouse=True)
def quietly() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    yield


def made(path: Path, **changes: Any) -> Path:
    given: dict[str, Any] = {"trials": (24, 6), "finals": 3, "tasks": 2, **changes}
    sweep = make_sweep(path / "made", **given)
    compact(sweep)
    return sweep


def share(sweep: Path, out: Path | str, **options: Any) -> dict[str, tuple[int, int]]:
    shared = share_with_optuna(sweep, find_place(str(out)), **options)
    return {one.name: (one.trials, one.added) for one in shared}


def read(out: Path | str, study: str) -> optuna.Study:
    with open_storage(find_place(str(out)), write=False) as storage:
        loaded = optuna.load_study(study_name=study, storage=storage)
        loaded.get_trials(deepcopy=False)
        return loaded


@pytest.mark.parametrize("out", ["x.log", "x.db"])
def test_a_sweep_becomes_a_study_for_each_stage(tmp_path: Path, out: str) -> None:
    sweep = made(tmp_path, trials=(18,), finals=0)
    assert share(sweep, tmp_path / out) == {"digits/coarse": (18, 18)}
    study = read(tmp_path / out, "digits/coarse")
    assert study.direction.name == "MAXIMIZE"
    assert study.metric_names == [METRIC]
    assert study.user_attrs["scale"] == {"data": 0.1, "classes": 2, "epochs": 3.0}
    rows = load_results(sweep).at("coarse").set_index("trial_id")
    found = {trial.user_attrs["trial_id"]: trial for trial in study.trials}
    assert set(found) == set(rows.index)
    for name, row in rows.iterrows():
        trial = found[name]
        assert trial.user_attrs["state"] == row["state"]
        expected = STATE.COMPLETE if row["state"] == "completed" else STATE.FAIL
        assert trial.state == expected
        assert trial.params["optimizer.lr"] == row["param.optimizer.lr"]
        assert trial.user_attrs["setting_id"] == row["setting_id"]
        assert trial.user_attrs["scale.epochs"] == 3
        if expected == STATE.COMPLETE:
            assert trial.value == row["objective"]
            assert list(trial.intermediate_values) == [1, 2, 3]
            assert trial.duration is not None
            assert math.isclose(trial.duration.total_seconds(), row["seconds"], abs_tol=1e-3)
    assert {"failed", "diverged", "completed"} == set(rows["state"])
    failed = next(trial for trial in study.trials if trial.user_attrs["state"] == "failed")
    assert "ValueError" in failed.user_attrs["error"]
    ended = [trial.datetime_complete for trial in study.trials]
    assert ended == sorted(ended)  # type: ignore[type-var]


def test_again_adds_only_what_is_new(tmp_path: Path) -> None:
    out = tmp_path / "x.log"
    sweep = made(tmp_path, done=0.4)
    first = share(sweep, out)
    assert first["digits/coarse"][1] > 0
    before = [trial.user_attrs["trial_id"] for trial in read(out, "digits/coarse").trials]
    sweep = made(tmp_path)
    second = share(sweep, out)
    assert second["digits/coarse"] == (24, 24 - first["digits/coarse"][1])
    assert second["digits/medium"] == (6, 6)
    assert second["digits/final"] == (3, 3)
    assert {added for _, added in share(sweep, out).values()} == {0}
    after = [trial.user_attrs["trial_id"] for trial in read(out, "digits/coarse").trials]
    assert after[: len(before)] == before
    assert len(set(after)) == len(after)


def test_a_failed_trial_that_was_run_again_is_added_beside_its_failure(tmp_path: Path) -> None:
    out, sweep = tmp_path / "x.log", made(tmp_path, trials=(18,), finals=0)
    share(sweep, out)
    name = run_a_failed_one_again(sweep)
    assert share(sweep, out) == {"digits/coarse": (18, 1)}
    assert share(sweep, out) == {"digits/coarse": (18, 0)}
    both = [one for one in read(out, "digits/coarse").trials if one.user_attrs["trial_id"] == name]
    assert [one.state for one in both] == [STATE.FAIL, STATE.COMPLETE]


def test_what_dies_half_way_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, sweep = tmp_path / "x.log", made(tmp_path, trials=(18,), finals=0)
    add, left = optuna.Study.add_trial, iter(range(5))

    def dying(self: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        add(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "add_trial", dying)
        with pytest.raises(KeyboardInterrupt):
            share(sweep, out)
    assert share(sweep, out) == {"digits/coarse": (18, 13)}
    # Of one that died right after it made the study.
    with open_storage(find_place(str(out)), write=True) as storage:
        optuna.create_study(storage=storage, study_name="b/coarse", direction="maximize")
    assert share(sweep, out, study="b") == {"b/coarse": (18, 18)}


def test_hostile_names_and_mixed_choices_are_kept(tmp_path: Path) -> None:
    sweep, out = made(tmp_path, trials=(18,), finals=0, hostile=True), tmp_path / "x.log"
    (name,) = share(sweep, out)
    trial = read(out, name).trials[0]
    assert "<img src=x onerror=alert(1)>" in trial.params
    assert trial.params["mixed"] in (True, None, 1.5, "é")


def test_two_at_once_write_a_trial_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = made(tmp_path, trials=(4,), finals=0)
    monkeypatch.setattr(alone, "PATIENCE_SECONDS", 0.0)
    with (
        hold(sweep / "lease-share", "orchestrate share"),
        pytest.raises(UserError, match="is being shared by orchestrate share"),
    ):
        share(sweep, tmp_path / "x.log")


def test_another_sweeps_study_is_left_alone(tmp_path: Path) -> None:
    sweep, out = made(tmp_path, trials=(4,), finals=0), tmp_path / "x.log"
    with open_storage(find_place(str(out)), write=True) as storage:
        optuna.create_study(storage=storage, study_name="digits/coarse").optimize(
            lambda trial: 1.0, n_trials=1
        )
    with pytest.raises(UserError, match=r"holds other trials\. Choose another name: --study"):
        share(sweep, out)
    assert share(sweep, out, study="mine") == {"mine/coarse": (4, 4)}


@pytest.mark.parametrize(
    ("value", "specs", "expected", "ends"),
    [
        (0.5, [{"kind": "float", "low": 0.1, "high": 1, "log": True}], 0.5, (0.1, 1)),
        (3.0, [{"kind": "float", "low": 0.1, "high": 1, "log": True}], 3.0, (0.1, 3)),
        (7, [{"kind": "int", "low": 1, "high": 4, "log": False},
             {"kind": "int", "low": 2, "high": 6, "log": False}], 7, (1, 7)),
        ("a", [{"kind": "choice", "values": ["a", None]}], "a", ("a", None)),
        (1, [{"kind": "choice", "values": [1, True]}], "1", ("1", "true")),
        (True, [{"kind": "choice", "values": [1, True]}], "true", ("1", "true")),
        ([1], [{"kind": "choice", "values": [[1], "b"]}], "[1]", ("[1]", '"b"')),
        ("é\ud800", [{"kind": "choice", "values": ["é\ud800"]}], "é?", ("é?",)),
    ],
)  # fmt: skip
def test_values_get_a_distribution_that_holds_them(
    value: Any, specs: list[dict[str, Any]], expected: Any, ends: tuple[Any, ...]
) -> None:
    written, distribution = placed_value(value, specs)
    assert (written, type(written)) == (expected, type(expected))
    assert distribution._contains(distribution.to_internal_repr(written))
    shown = getattr(distribution, "choices", None) or (distribution.low, distribution.high)  # type: ignore[attr-defined]
    assert tuple(shown) == ends


def test_a_locked_database_is_said_after_a_bounded_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optuna_storage, "LOCK_SECONDS", 0.0)
    sweep, out = made(tmp_path, trials=(2,), finals=0), tmp_path / "x.db"
    share(sweep, out, study="first")
    other = sqlite3.connect(out)
    other.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(UserError, match="is locked by another program"):
            share(sweep, out)
    finally:
        other.close()
    assert share(sweep, out) == {"digits/coarse": (2, 2)}


def test_what_is_no_storage_is_said(tmp_path: Path) -> None:
    (tmp_path / "other.db").touch()
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    (tmp_path / "text.db").write_text("not a database, but long enough to be looked at as one\n" * 20)
    (tmp_path / "torn.log").write_text('{"op_code": 0')
    (tmp_path / "plain.log").write_text("hello\nworld\n")
    for name, write, words in (
        (f"sqlite:///{tmp_path}/none.db", False, "there is no Optuna storage"),
        (f"sqlite:///{tmp_path}/no/x.db", True, "there is no folder"),
        (f"{tmp_path}/none.log", False, "there is no Optuna storage"),
        (f"sqlite:///{tmp_path}/other.db", True, "holds something else"),
        (f"sqlite:///{tmp_path}/other.db", False, "it has no studies"),
        (f"sqlite:///{tmp_path}/text.db", True, "is no SQLite database"),
        (f"{tmp_path}/torn.log", True, "is torn"),
        (f"{tmp_path}/plain.log", False, "is no Optuna journal"),
        (str(tmp_path), True, "names no Optuna storage"),
        ("results.parquet", True, "names no Optuna storage"),
        ("sqlite://", True, "is gone when this command ends"),
        ("redis://localhost", True, "Redis are not supported"),
        ("nosuch://me:secret@host/db", True, "no driver for 'nosuch://me:***@host/db'"),
        ("://me:secret@host", True, "this is no URL of a database"),
    ):
        with pytest.raises(UserError) as caught, open_storage(find_place(name), write=write):
            pass
        assert words in str(caught.value)
        assert "secret" not in str(caught.value)
    assert not (tmp_path / "none.log").exists()
    assert not (tmp_path / "none.db").exists()


def past_study(out: Path, name: str = "past", direction: str = "maximize") -> None:
    """Ten trials: lr 10^-1 to 10^-10, the first the best; width 8 or 24, and what the sweep lacks."""
    with open_storage(find_place(str(out)), write=True) as storage:
        study = optuna.create_study(storage=storage, study_name=name, direction=direction)  # type: ignore[arg-type]

        def objective(trial: optuna.Trial) -> float:
            lr = trial.suggest_categorical("lr", [10.0**-power for power in range(1, 11)])
            trial.suggest_categorical("width", [8.0, 24.0])
            trial.suggest_float("extra", 0, 1)
            return float(lr)

        for power in range(1, 11):
            width = 8.0 if power % 2 else 24.0
            study.enqueue_trial({"lr": 10.0**-power, "width": width, "extra": 0.5})
        study.optimize(objective, n_trials=10)
        study.add_trial(optuna.trial.create_trial(state=STATE.FAIL))


def planned(folder: Path, start: str) -> Any:
    sweep = write_user_sweep(folder)
    sweep.write_text(sweep.read_text() + f"start_from: {start}\n")
    return work_out(sweep, [])


def test_the_best_of_a_past_study_are_tried_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "user").mkdir()
    past_study(tmp_path / "user" / "past.log")
    start = "[{lr: 0.5}, {optuna: past.log, study: past, best: 2}]"
    plan = planned(tmp_path / "user", start)
    assert plan.config.start_from == [{"lr": 0.5}, {"lr": 0.1, "width": 8}, {"lr": 0.01}]
    (note,) = plan.plan.notes
    assert "the best 2 of 10 finished trials of the Optuna study 'past' (0.1 to 0.01)" in note
    assert "left out, because there is no such value: width (1×)" in note
    assert "not searched here: extra" in note
    freeze_plan(plan)
    (tmp_path / "user" / "past.log").unlink()
    assert load_frozen(plan.directory.config).start_from == plan.config.start_from


def test_a_study_that_was_minimised_has_its_lowest_tried_inside_the_range(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    past_study(tmp_path / "past.db", direction="minimize")
    plan = planned(tmp_path, "[{optuna: 'sqlite:///past.db', best: 20}]")
    # 1e-10 to 1e-6 all go to the end of the range: one setting.
    assert [one["lr"] for one in plan.config.start_from] == [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]
    (note,) = plan.plan.notes
    assert "brought into the range: lr (1×)" in note
    assert "there the min is the best, and here the max" in note


def taught(folder: Path, learn: bool) -> list[float]:
    """The learning rates of a first stage that knows 30 past trials, the best near 10^-3."""
    folder.mkdir()
    with open_storage(find_place(str(folder / "past.log")), write=True) as storage:
        study = optuna.create_study(storage=storage, study_name="past", direction="minimize")
        ranges = {
            "rate": optuna.distributions.FloatDistribution(1e-7, 1, log=True),
            "width": optuna.distributions.IntDistribution(8, 64),
        }
        for number in range(30):
            params = {"rate": 10 ** (-number / 5), "width": (8, 16, 32)[number % 3]}
            value = abs(math.log10(params["rate"]) + 3) * 40
            study.add_trial(optuna.trial.create_trial(params=params, distributions=ranges, value=value))
    sweep = write_user_sweep(folder)
    entry = (
        f"start_from: [{{optuna: past.log, best: 1, rename: {{rate: lr}}, learn: {str(learn).lower()}}}]\n"
    )
    sweep.write_text(sweep.read_text() + entry)
    plan = work_out(sweep, ["stages.coarse.sampler=tpe", f"dir={folder}/out"])
    freeze_plan(plan)
    assert plan.directory.prior.exists() == learn
    said = "26 of them lie in the ranges and teach the sampler of coarse" in plan.plan.notes[0]
    assert said == learn
    freeze(plan.directory, plan.plan, plan.config, plan.plan.stages[0], 0)
    drawn = read_trials(plan.directory.phase("stage", "coarse").trials)
    assert drawn[0].params["lr"] == pytest.approx(1e-3)
    return [spec.params["lr"] for spec in drawn[1:]]


def test_a_sampler_learns_from_past_trials_where_that_is_wanted(tmp_path: Path) -> None:
    far = {
        learn: sum(abs(math.log10(lr) + 3) for lr in taught(tmp_path / str(learn), learn))
        for learn in (True, False)
    }
    assert far[True] < 0.7 * far[False]


def test_what_a_past_trial_must_be_to_be_learned_from() -> None:
    space = (
        Parameter(name="lr", kind=FLOAT, low=0.1, high=1.0),
        Parameter(name="depth", kind=CHOICE, values=(1, 2)),
        Parameter(name="drop", kind=FLOAT, low=0.0, high=0.5, when="depth > 1"),
    )
    trials: list[tuple[dict[str, Any], float]] = [
        ({"lr": 0.5, "depth": 1.0}, 1.0),
        ({"lr": 0.5, "depth": 1, "drop": 0.1, "other": 3}, 2.0),
        ({"lr": 0.5, "depth": 2, "drop": 0.1}, 3.0),
        ({"lr": 0.5, "depth": 2}, 4.0),
        ({"lr": 2.0, "depth": 1}, 5.0),
        ({"depth": 1}, 6.0),
        ({"lr": 0.5, "depth": 3}, 7.0),
    ]
    assert known_results(space, trials) == [
        {"params": {"lr": 0.5, "depth": 1}, "objective": 1.0},
        {"params": {"lr": 0.5, "depth": 1}, "objective": 2.0},
        {"params": {"lr": 0.5, "depth": 2, "drop": 0.1}, "objective": 3.0},
    ]


def test_names_that_differ_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    past_study(tmp_path / "past.log")
    plan = planned(tmp_path, "[{optuna: past.log, best: 1, rename: {extra: lr}}]")
    assert plan.config.start_from == [{"lr": 0.5, "width": 8}]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ("{optuna: pats.log}", "there is no Optuna storage 'pats.log'. Did you mean 'past.log'?"),
        ("{optuna: past.log}", "holds 2 studies. Give the key study, one of: other, past"),
        ("{optuna: past.log, study: pas}", "start_from.0.study: 'past.log' holds no study 'pas'. Did you"),
        ("{optuna: past.log, study: other}", "the study 'other' has no finished trial"),
        ("{optuna: past.log, study: past, best: 0}", "start_from.0.best: 0 is no number of trials"),
        ("{optuna: past.log, study: past, learn: 3}", "start_from.0.learn: 3 is neither true nor false"),
        ("{optuna: past.log, study: past, most: 3}", "start_from.0.most: is no key of an entry that names"),
        ("{optuna: past.log, study: past, rename: {lr: rate}}", "start_from.0.rename.lr: 'rate' is not in"),
        ("{optuna: past.log, study: past, best: 10}", "13 settings don't fit into the 12 trials of 'coarse'"),
        ("{optuna: past.log, study: foreign}", "no parameter in common. There: a, b. Say which is which"),
        ("{optuna: past.log, study: pair}", "the study 'pair' has 2 objectives, not one"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_past_study_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    past_study(tmp_path / "past.log")
    with open_storage(find_place("past.log"), write=True) as storage:
        if "past.log}" not in entry:
            for name, count in (("foreign", 1), ("pair", 2)):
                study = optuna.create_study(storage=storage, study_name=name, directions=["maximize"] * count)
                unit = optuna.distributions.FloatDistribution(0, 1)
                study.add_trial(
                    optuna.trial.create_trial(
                        params={"a": 0.1, "b": 0.2},
                        distributions={"a": unit, "b": unit},
                        values=[1.0] * count,
                    )
                )
        optuna.create_study(storage=storage, study_name="other")
    more = "".join(f", {{lr: 0.{n}}}" for n in range(2, 10)) if "best: 10" in entry else ""
    with pytest.raises(UserError) as caught:
        planned(tmp_path, f"[{entry}{more}]")
    assert words in str(caught.value)


def test_a_parameter_called_optuna_is_a_parameter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sweep = write_user_sweep(tmp_path)
    text = (
        sweep.read_text()
        .replace("width: choice(8, 16, 32)", "optuna: choice(a, b)")
        .replace("width: 8", "optuna: a")
    )
    sweep.write_text(text + "start_from: [{optuna: b}]\n")
    assert work_out(sweep, []).config.start_from == [{"optuna": "b"}]


def test_the_command_shares_and_what_it_shared_starts_the_next_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = work_out(write_user_sweep(tmp_path), [])
    freeze_plan(plan)
    folder = plan.directory.phase("stage", "coarse")
    freeze(plan.directory, plan.plan, plan.config, plan.plan.stages[0], 0)
    lines: list[dict[str, Any]] = [{"kind": "task", "token": "t", "submission": 1, "task": 0, "attempt": 1}]
    for number, spec in enumerate(read_trials(folder.trials)[:3]):
        end = {"state": "completed", "metrics": {"score": 0.1 * number}, "seconds": 1.0, "time": 2e9 + number}
        lines.append({"kind": "outcome", "trial": spec.trial_id, **end})
    folder.records.mkdir(parents=True, exist_ok=True)
    words = ["share", "sweeps/mine", "--to", "optuna", "--out", "sqlite:///mine.db"]
    assert "no trial has ended yet" in CliRunner().invoke(main, words).output
    (folder.records / "1-0-1.jsonl").write_text("".join(encode(line) for line in lines))
    shown = CliRunner().invoke(main, words)
    assert shown.exit_code == 0, shown.output
    assert "mine/coarse: 3 trials, 3 of them new" in shown.output
    assert "optuna-dashboard sqlite:///mine.db" in shown.output
    again = json.loads(CliRunner().invoke(main, [*words, "--json"]).stdout)
    assert again == [{"study": "mine/coarse", "stage": "coarse", "trials": 3, "added": 0}]
    (tmp_path / "next").mkdir()
    monkeypatch.chdir(tmp_path / "next")
    after = planned(tmp_path / "next", "[{optuna: '../mine.db', best: 1}]")
    assert after.config.start_from == [dict(read_trials(folder.trials)[2].params)]
    refused = CliRunner().invoke(main, ["share", "../sweeps/mine", "--to", "optuna", "--out", "mine.parquet"])
    assert refused.exit_code == 2
    assert "names no Optuna storage" in refused.output
