"""The Hydra sweeper plugin: what its settings and overrides declare, and what its jobs return."""

from __future__ import annotations

import math
import pickle
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra_runs import LR, peak
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from hydra_plugins.coarse_to_fine_sweeper import CoarseToFineConf
from orchestrator.control.draw import freeze as draw
from orchestrator.errors import UserError
from orchestrator.multirun.declare import Settings, declare
from orchestrator.multirun.job import Assignment, Recorded, judged, record_return
from orchestrator.multirun.words import Word, as_text, job_overrides, read_words
from orchestrator.space import parse_parameter
from orchestrator.sweep.directory import SweepDirectory, read_trials
from orchestrator.sweep.records import COMPLETED, DIVERGED, FAILED, read_directory

# What goes wrong before any job.


@pytest.mark.parametrize(
    "text, settings, said",
    [
        (LR, {"mode": "maxx"}, "mode: 'maxx' is not known. Did you mean 'max'?"),
        (LR, {"stages": {"coarse": {"trails": 3}}}, "Did you mean 'trials'"),
        (LR, {"stages": {"coarse": {"trials": 0}}}, "stages.coarse.trials: 0 is too few"),
        (LR, {"stages": {"coarse": {"trials": "many"}}}, "stages.coarse"),
        (LR, {"stages": {"coarse": {}}}, "stages.coarse.trials: needs a value"),
        (LR, {"stages": [3]}, "stages"),
        (LR, {"stages": {}}, "there are no stages"),
        (LR, {"stages": {"a": {"trials": 3, "prune": 3}}}, "reports nothing on its way"),
        (LR, {"stages": {"a": {"trials": 3, "epochs": 3}}}, "no place for it"),
        (LR, {"sampler": "sobl"}, "Did you mean 'sobol'"),
        (LR, {"keep": math.nan}, "nan is not a share"),
        (LR, {"scale": {"epoch": "foo"}}, "scale.epoch: is no scale. Did you mean 'epochs'"),
        (LR, {"scale": {"epochs": "fooo"}}, "'fooo' is not in the application's config. Did you mean 'foo'"),
        (LR, {"scale": {"epochs": "act"}}, "'act' has no whole number"),
        ("foo=1,2", {"scale": {"epochs": "foo"}}, "'foo' is searched"),
        ("+lr=interval(1, 0)", {}, "is reversed"),
        ("+lr=interval(1, 1)", {"stages": {"a": {"trials": 1}, "b": {"trials": 1}}}, "nothing varies"),
        ("+lr=tag(log, interval(0, 1))", {}, "a logarithm over 0"),
        ("+lr=tag(ordered, interval(0, 1))", {}, "means nothing for an interval"),
        (LR, {"start_from": [{"lr": "fast"}]}, "start_from.0.lr: 'fast' is not a number"),
        (LR, {"start_from": 3}, "start_from: is no list"),
        (LR, {"limits": {"lr": [2, 1]}}, "limits"),
        (LR, {"limits": 3}, "limits: is no mapping"),
        (LR, {"when": {"lr": "foo =="}}, "when.lr"),
    ],
)
def test_bad_input_is_said_in_one_line(text: str, settings: dict[str, Any], said: str) -> None:
    application = OmegaConf.create({"foo": 3, "act": "relu"})
    with pytest.raises(UserError) as raised:
        declare(Settings(**settings), words(text), application, "app")
    assert said in str(raised.value) and "\n" not in str(raised.value)


def words(*texts: str) -> tuple[Word, ...]:
    return read_words(OverridesParser.create().parse_overrides(list(texts)))


def test_the_last_word_for_a_key_counts_and_a_stages_scale_comes_after_all() -> None:
    read = words("a=1", "+b=1,2", "~c", "epochs=5", "a=choice(3,4)", "d@e.f=2")
    texts = job_overrides(read, {"a": 3, "b": 2}, {"epochs": 1, "+classes": [0, 1]})
    assert texts == ["a=3", "+b=2", "~c", "d@e.f=2", "epochs=1", "+classes=[0,1]"]
    with pytest.raises(UserError, match="can't be searched"):
        words("~a=1,2")


PLAIN = st.one_of(
    st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(),
    st.text(st.characters(exclude_categories=["Cs", "Cc"])),
)  # fmt: skip


@given(st.one_of(PLAIN, st.lists(PLAIN, max_size=3)))
def test_every_value_comes_back_as_it_was(value: Any) -> None:
    (parsed,) = OverridesParser.create().parse_overrides([f"a={as_text(value)}"])
    assert repr(parsed.value()) == repr(value)


def test_choices_are_held_and_written_by_type() -> None:
    (word,) = words("a=choice('1', 1, 1.0, true, 'true', [1, '2'], {a: '3'})")
    values = parse_parameter("a", word.declared, None, "").values
    assert [word.override(value) for value in values] == [
        "a='1'", "a=1", "a=1.0", "a=True", "a='true'", "a=[1,'2']", "a={a:'3'}",
    ]  # fmt: skip
    assert [word.value(value) for value in values][-2:] == [[1, "2"], {"a": "3"}]


@pytest.mark.parametrize(
    "returned, state, metrics",
    [
        (np.float32(0.5), COMPLETED, {"m": 0.5}),
        (np.array([3]), COMPLETED, {"m": 3.0}),
        ({"m": -math.inf, "n": 1, "note": "x"}, DIVERGED, {"m": -math.inf, "n": 1.0}),
        ({"n": 1}, FAILED, {"n": 1.0}),
        (None, FAILED, {}),
        (True, FAILED, {}),
        ("1.0", FAILED, {}),
        (np.zeros(3), FAILED, {}),
        (10**400, FAILED, {}),
        (1j, FAILED, {}),
    ],
)
def test_what_a_job_returns_is_judged(returned: Any, state: str, metrics: dict[str, float]) -> None:
    found = judged(returned, "m", 1.0)
    assert found[:2] == (state, metrics) and bool(found[3]) == (state == FAILED)


def test_what_a_job_could_not_write_is_written_for_it(tmp_path: Path) -> None:
    def returned(status: JobStatus, value: Any) -> JobReturn:
        job = JobReturn(status=status)
        job.return_value = value
        return job

    def assignment(number: int) -> Assignment:
        return Assignment(trial=f"t{number}", number=number, records=str(tmp_path), metric="m")

    record_return(assignment(0), returned(JobStatus.COMPLETED, 1.5))
    record_return(assignment(1), returned(JobStatus.FAILED, KeyError("gone")))
    record_return(assignment(2), returned(JobStatus.UNKNOWN, None))
    lines = [line for record in read_directory(tmp_path) for line in record.lines]
    assert [line["state"] for line in lines] == [COMPLETED, FAILED, FAILED]
    assert lines[0]["metrics"] == {"m": 1.5} and "KeyError: 'gone'" in lines[1]["error"]
    with pytest.raises(OSError, match="can't be written to"):
        record_return(
            Assignment(trial="t", number=0, records=str(tmp_path / "gone"), metric="m"),
            returned(JobStatus.COMPLETED, 1.0),
        )


def test_the_recorded_function_travels_to_another_process() -> None:
    recorded = Recorded(peak)
    recorded.assignments = {3: Assignment(trial="t", number=3, records="r", metric="m")}
    again = pickle.loads(pickle.dumps(recorded))
    assert again.assignments == recorded.assignments and again.__name__ == "peak"


@pytest.mark.parametrize(
    "scale, expected", [({"data": "+fraction"}, "data"), ({"epochs": "epochs"}, "epochs")]
)
def test_without_stages_there_is_a_ladder_over_the_scale(scale: dict[str, str], expected: str) -> None:
    application = OmegaConf.create({"epochs": 27, "lr": 0.1})
    stages = declare(
        Settings(scale=scale), words("lr=interval(0, 1)"), application, "app"
    ).config.stages.values()
    assert [stage.trials for stage in stages] == [32, 16, 8]
    scales = [getattr(stage, expected) for stage in stages]
    assert scales == ([0.111, 0.333, 1.0] if expected == "data" else [3, 9, None])


def test_the_same_seed_draws_the_same_settings(tmp_path: Path) -> None:
    def drawn(seed: int, place: str) -> list[dict[str, Any]]:
        declared = declare(Settings(seed=seed), words(LR), OmegaConf.create({}), "app")
        directory = SweepDirectory(tmp_path / place)
        draw(directory, declared.plan, declared.config, declared.plan.stages[0], 0)
        return [dict(spec.params) for spec in read_trials(directory.phase("stage", "coarse").trials)]

    assert drawn(1, "a") == drawn(1, "b") != drawn(2, "c")


def test_the_page_names_every_key_and_its_example_is_planned() -> None:
    page = (Path(__file__).parent.parent / "docs" / "hydra.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE)
    keys = {field.name for field in fields(CoarseToFineConf)} - {"_target_"}
    assert {key for row in rows for key in re.findall(r"\w+", row)} == keys
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    hydra: Any = OmegaConf.to_container(OmegaConf.select(OmegaConf.create(example), "hydra.sweeper"))
    params = [f"{key}={value}" for key, value in hydra.pop("params").items()]
    application = OmegaConf.create(
        {"trainer": {"max_epochs": 30}, "data": {"fraction": 1.0}, "seed": 0, "optimizer": {"lr": 0.1}}
    )
    read = words("optimizer=sgd,adam", *params)
    declared = declare(Settings(**hydra), read, application, "app")
    assert [phase.share for phase in declared.plan.stages] == pytest.approx([0.01, 0.1, 1.0])
    assert set(hydra) <= keys
