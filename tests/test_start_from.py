"""`start_from`: settings tried first, completed from the job's config, with readable errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UserError
from orchestrator.planning.sampling.start_from import read_start, starting_settings
from orchestrator.schema import JobConfig, SweepConfig
from orchestrator.space import CHOICE, FLOAT, INT, Parameter

SPACE = (
    Parameter(name="optimizer", kind=CHOICE, values=("sgd", "adam")),
    Parameter(name="lr", kind=FLOAT, low=1e-4, high=1, log=True, limits=(0.0, None)),
    Parameter(name="momentum", kind=FLOAT, low=0.5, high=0.9, limits=(0.0, 0.99), when="optimizer == 'sgd'"),
    Parameter(name="net.width", kind=INT, low=8, high=128, limits=(1, None)),
    Parameter(name="net.batch", kind=CHOICE, values=(16, 32, 64), ordered=True),
)


def config(*entries: Any) -> SweepConfig:
    own = {"optimizer": "adam", "lr": 0.01, "momentum": 0.99, "net": {"width": 64, "batch": 100}}
    return SweepConfig(
        name="s", jobs=JobConfig(_target_="a.b", config=own), start_from=list(entries)
    )  # fmt: skip


def start(*entries: Any, file: Path | str = "sweep.yaml") -> list[dict[str, Any]]:
    return starting_settings(config(*entries), SPACE, file)


def test_nothing_given_is_nothing_tried() -> None:
    assert start() == []


def test_the_rest_is_as_in_the_job_or_else_in_the_middle() -> None:
    (adam, sgd) = start({"lr": 0.1}, {"optimizer": "sgd"})
    # The job's batch size is none of the choices: the middle one.
    assert adam == {"optimizer": "adam", "lr": 0.1, "net.width": 64, "net.batch": 32}
    # Its momentum lies outside the range.
    assert sgd == {"optimizer": "sgd", "lr": 0.01, "momentum": 0.7, "net.width": 64, "net.batch": 32}


def test_outside_the_range_but_inside_the_limits_is_tried() -> None:
    (setting,) = start({"lr": 3, "optimizer": "sgd", "momentum": 0.95, "net": {"width": 512}})
    assert (setting["lr"], setting["momentum"], setting["net.width"]) == (3.0, 0.95, 512)
    assert type(setting["lr"]) is float


def test_the_same_setting_is_tried_once() -> None:
    assert len(start({"lr": 0.1}, {"lr": 0.1, "net.width": 64})) == 1


def test_a_file_holds_a_list(tmp_path: Path) -> None:
    (tmp_path / "paper.yaml").write_text("- {lr: 0.1}\n- {net: {width: 16}}\n")
    sweep = tmp_path / "sweep.yaml"
    assert read_start(["paper.yaml", {"lr": 1.0}], sweep) == [{"lr": 0.1}, {"net.width": 16}, {"lr": 1.0}]
    assert len(start("paper.yaml", {"lr": 1.0}, file=sweep)) == 3


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"learning": 0.1}, "start_from.0.learning: is not in the space"),
        ({"net.widht": 16}, "Did you mean 'net.width'?"),
        ({"lr": -1}, "start_from.0.lr: -1 lies past the hard limits 0"),
        ({"lr": 0}, "no place on a logarithmic scale"),
        (
            {"optimizer": "sgd", "momentum": 1.5},
            "limits 0 … 0.99. Limits are set in jobs.limits.momentum",
        ),
        ({"lr": "fast"}, "'fast' is not a number"),
        ({"lr": True}, "True is not a number"),
        ({"lr": float("nan")}, "nan is not a number"),
        ({"lr": None}, "None is not a number"),
        ({"net.width": 16.5}, "16.5 is not a whole number"),
        ({"optimizer": "adamw"}, "'adamw' is none of the choices. Did you mean 'adam'?"),
        ({"optimizer": "adam", "momentum": 0.9}, "is there only when optimizer == 'sgd'. Leave it out"),
        ({}, "{} is no setting. Write a mapping"),
        ([0.1], "[0.1] is no setting"),
        (None, "None is no setting"),
    ],
)
def test_what_is_wrong_is_said(entry: Any, words: str) -> None:
    with pytest.raises(UserError) as caught:
        start(entry)
    assert words in str(caught.value)


def test_what_is_wrong_with_a_file_is_said(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    (tmp_path / "paper.yaml").write_text("lr: 0.1\n")
    (tmp_path / "broken.yaml").write_text("- {lr: [\n")
    for entry, words in (
        ("papers.yaml", "start_from.0: there is no file 'papers.yaml'. Did you mean 'paper.yaml'?"),
        ("paper.yaml", "paper.yaml: is no list of settings"),
        ("broken.yaml", "broken.yaml: not readable as YAML"),
    ):
        with pytest.raises(UserError) as caught:
            start(entry, file=sweep)
        assert words in str(caught.value)
