"""Groups, conditions and ties: which parameters a setting has, and the config that a trial gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from orchestrator.config import freeze, load_frozen
from orchestrator.errors import UserError
from orchestrator.planning.plan import Phase, Scale
from orchestrator.planning.validate_space import validate_space
from orchestrator.schema import JobConfig, MetricConfig, SweepConfig
from orchestrator.space import CHOICE, FLOAT, INT, Parameter, active, from_json, to_json
from orchestrator.space.conditions import completed, declared_space
from orchestrator.space.corners import corners
from orchestrator.sweep.directory import TrialSpec
from orchestrator.worker.job import trial_config

FILE = "sweep.yaml"
JOB: dict[str, Any] = {
    "optimizer": {"name": "adam", "lr": 1e-3},
    "model": {"depth": 2, "dropout": 0.0, "width": 64, "half": "${model.width}", "kind": "mlp"},
    "batch_size": 64,
    "epochs": 10,
}
OPTIONS: dict[str, Any] = {
    "sgd": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "schedule": {"name": "none"}},
    "adam": {"name": "adam", "lr": 1e-3, "beta": 0.9},
    "rmsprop": {"name": "rmsprop", "lr": 1e-3, "momentum": 0.0},
}
SPACE: dict[str, Any] = {
    "optimizer": "choice(sgd, adam)",
    "optimizer.momentum": "interval(0.5, 0.99)",
    "base_lr": "tag(log, interval(1e-3, 1))",
    "model.depth": "int(interval(1, 4))",
    "model.dropout": "interval(0, 0.5)",
    "batch_size": "choice(32, 64, 128)",
}
WHEN = {"model.dropout": "model.depth > 1"}
TIED = {"optimizer.lr": "base_lr * batch_size / 256"}


def sweep(
    space: dict[str, Any] | None = None,
    when: dict[str, Any] | None = None,
    tied: dict[str, Any] | None = None,
    groups: dict[str, Any] | None = None,
    **job: Any,
) -> SweepConfig:
    return SweepConfig(
        name="s",
        metric=MetricConfig(name="score"),
        space=SPACE if space is None else space,
        when=WHEN if when is None else when,
        tied=TIED if tied is None else tied,
        jobs=JobConfig(
            _target_="my_train.train", config=JOB, scale={"epochs": "epochs"},
            groups={"optimizer": OPTIONS} if groups is None else groups, **job,
        ),
    )  # fmt: skip


def checked(config: SweepConfig, folder: Path = Path("nowhere")) -> tuple[SweepConfig, tuple[Parameter, ...]]:
    """Do what planning does with the space."""
    config = completed(config, folder, FILE)
    space = declared_space(config, FILE)
    validate_space(config, space, FILE)
    return config, space


def conditions(config: SweepConfig) -> dict[str, str]:
    return {parameter.name: parameter.when for parameter in checked(config)[1] if parameter.when}


def refusal(config: SweepConfig, folder: Path = Path("nowhere")) -> str:
    with pytest.raises(UserError) as caught:
        checked(config, folder)
    assert caught.value.file is not None
    return str(caught.value)


def config_of(config: SweepConfig, **params: Any) -> dict[str, Any]:
    """Return what the training function of one trial is given."""
    config, space = checked(config)
    setting = active(space, {name.replace("__", "."): value for name, value in params.items()})
    spec = TrialSpec(trial_id="t", setting_id="s", params=setting, seed=0)
    phase = Phase(kind="stage", name="coarse", trials=1, scale=Scale(data=1.0, epochs=3))
    content = OmegaConf.to_container(trial_config(config, phase, spec))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def test_a_parameter_of_one_option_exists_under_that_option() -> None:
    assert conditions(sweep()) == {
        "optimizer.momentum": "optimizer == 'sgd'",
        "model.dropout": "model.depth > 1",
    }
    three = {**SPACE, "optimizer": "choice(sgd, adam, rmsprop)"}
    assert conditions(sweep(three))["optimizer.momentum"] == "optimizer in ('sgd', 'rmsprop')"
    both = {**SPACE, "optimizer": "choice(sgd, rmsprop)"}
    assert "optimizer.momentum" not in conditions(sweep(both))


def test_a_condition_joins_that_of_the_group() -> None:
    when = {"optimizer.momentum": "batch_size > 32"}
    assert conditions(sweep(when=when)) == {"optimizer.momentum": "optimizer == 'sgd' and batch_size > 32"}


@pytest.mark.parametrize(
    ("condition", "resolved"),
    [
        ("optimizer == sgd", "optimizer == 'sgd'"),
        ("optimizer.name == sgd", "('sgd' if optimizer == 'sgd' else 'adam') == 'sgd'"),
        ("optimizer.lr > 0.01", "base_lr * batch_size / 256 > 0.01"),
        ("model.width > model.depth", "64 > model.depth"),
        ("model.half / 16 > model.depth", "64 / 16 > model.depth"),
        ("optimizer.beta > 0.5", "(0.9 if optimizer == 'adam' else optimizer.beta) > 0.5"),
        ("model.kind == mlp", ""),
        (True, ""),
    ],
)
def test_conditions_are_put_in_terms_of_parameters(condition: Any, resolved: str) -> None:
    assert conditions(sweep(when={"model.dropout": condition})).get("model.dropout", "") == resolved


def test_what_an_option_does_not_have_fulfils_no_condition() -> None:
    _, space = checked(sweep(when={"model.dropout": "optimizer.beta > 0.5"}))
    setting = dict(next(corners(space, 10_000)))
    assert "model.dropout" in active(space, {**setting, "optimizer": "adam"})
    assert "model.dropout" not in active(space, {**setting, "optimizer": "sgd"})


def test_the_config_of_a_trial() -> None:
    params = {
        "optimizer": "sgd", "optimizer__momentum": 0.75, "base_lr": 0.5, "model__depth": 1,
        "model__dropout": 0.25, "batch_size": 128,
    }  # fmt: skip
    sgd = config_of(sweep(), **params)
    assert sgd["optimizer"] == {"name": "sgd", "lr": 0.25, "momentum": 0.75, "schedule": {"name": "none"}}
    assert sgd["model"]["dropout"] == 0.0
    assert (sgd["epochs"], sgd["batch_size"]) == (3, 128)
    assert "base_lr" not in sgd
    adam = config_of(sweep(), **{**params, "optimizer": "adam", "model__depth": 3})
    assert adam["optimizer"] == {"name": "adam", "lr": 0.25, "beta": 0.9}
    assert adam["model"]["dropout"] == 0.25


def test_ties_depend_on_ties_and_on_the_config() -> None:
    space = {"factor": "int(interval(1, 4))", "optimizer": "choice(sgd, adam)"}
    tied = {
        "optimizer.lr": "0.1 / model.width if optimizer == sgd else epochs",
        "model.width": "factor * batch_size / 2",
        "model.dropout": "factor / 10",
    }
    made = config_of(sweep(space, {}, tied), factor=2, optimizer="sgd")
    assert made["model"]["width"] == 64
    assert type(made["model"]["width"]) is int
    assert made["model"]["half"] == 64
    assert made["model"]["dropout"] == 0.2
    assert made["optimizer"]["lr"] == 0.1 / 64
    # The stage's epochs, not the job's own.
    assert config_of(sweep(space, {}, tied), factor=2, optimizer="adam")["optimizer"]["lr"] == 3


def test_a_tie_of_one_option_is_left_out_under_the_others() -> None:
    space = {"optimizer": "choice(sgd, adam)", "x": "interval(0.5, 0.9)"}
    config = sweep(space, {}, {"optimizer.momentum": "x"})
    assert config_of(config, optimizer="sgd", x=0.6)["optimizer"]["momentum"] == 0.6
    assert "momentum" not in config_of(config, optimizer="adam", x=0.6)["optimizer"]


def test_a_tie_falls_back_on_the_config_where_its_parameter_is_not_there() -> None:
    tied = {"optimizer.lr": "model.dropout + 1"}
    space = {"model.depth": "int(interval(1, 2))", "model.dropout": "interval(0.25, 0.5)"}
    config = sweep(space, WHEN, tied, {})
    assert config_of(config, model__depth=2, model__dropout=0.5)["optimizer"]["lr"] == 1.5
    assert config_of(config, model__depth=1, model__dropout=0.5)["optimizer"]["lr"] == 1.0


def test_ties_see_what_the_setting_made_of_the_config() -> None:
    config = sweep({"model.width": "choice(8, 16)"}, {}, {"model.dropout": "model.half / 100"}, {})
    assert config_of(config, model__width=16)["model"]["dropout"] == 0.16


def test_lists_are_choices_too() -> None:
    config = sweep({"model.width": "choice([32, 32], [64])", "batch_size": [[1, 2], 3]}, {}, {}, {})
    completed_config, space = checked(config)
    assert [parameter.values for parameter in space] == [("[32, 32]", "[64]"), ("[1, 2]", 3)]
    made = config_of(config, model__width="[32, 32]", batch_size="[1, 2]")
    assert (made["model"]["width"], made["batch_size"]) == ([32, 32], [1, 2])
    assert completed_config.jobs.groups["model.width"] == {"[32, 32]": [32, 32], "[64]": [64]}
    assert config_of(config, model__width="[64]", batch_size=3)["batch_size"] == 3


def test_groups_in_groups() -> None:
    groups = {
        "model": {"mlp": {"kind": "mlp", "width": 8}, "cnn": {"kind": "cnn", "head": {}, "width": 4}},
        "model.head": {"pool": {"size": 2}, "flat": {}},
    }
    space = {
        "model": "choice(mlp, cnn)", "model.head": "choice(pool, flat)",
        "model.head.size": "int(interval(1, 3))", "model.width": "choice(4, 8)",
    }  # fmt: skip
    config = sweep(space, {}, {}, groups)
    assert conditions(config) == {"model.head": "model == 'cnn'", "model.head.size": "model.head == 'pool'"}
    setting = {"model__head": "pool", "model__head__size": 3, "model__width": 8}
    assert config_of(config, model="cnn", **setting)["model"] == {
        "kind": "cnn", "head": {"size": 3}, "width": 8,
    }  # fmt: skip
    assert config_of(config, model="mlp", **setting)["model"] == {"kind": "mlp", "width": 8}


def test_options_are_read_from_files_and_frozen(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "adam.yaml").write_text("{name: adam, lr: '${base}', extra: 1}")
    (tmp_path / "optimizer" / "sgd.yaml").write_text("{name: not read}")
    (tmp_path / "optimizer" / "unused.yaml").write_text("not: [readable")
    config, _ = checked(sweep(groups={"optimizer": {"sgd": OPTIONS["sgd"]}}), tmp_path)
    assert config.jobs.groups["optimizer"] == {
        "sgd": OPTIONS["sgd"],
        "adam": {"name": "adam", "lr": "${base}", "extra": 1},
    }
    frozen = tmp_path / "frozen.yaml"
    frozen.write_text(freeze(config))
    back = load_frozen(frozen)
    assert (back.jobs.groups, back.when, back.tied) == (config.jobs.groups, config.when, config.tied)
    assert completed(back, Path("elsewhere"), FILE) == back


def test_bare_words_of_ties_are_frozen_as_text() -> None:
    tied = {"optimizer.lr": "0.1 if optimizer == sgd else 0.01"}
    config, _ = checked(sweep({"optimizer": "choice(sgd, adam)"}, {}, tied))
    assert config.tied == {"optimizer.lr": "0.1 if optimizer == 'sgd' else 0.01"}


def with_space(**changes: Any) -> dict[str, Any]:
    return {**SPACE, **{name.replace("__", "."): value for name, value in changes.items()}}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            sweep(when={"model.dropuot": "true"}),
            "when.model.dropuot: is not in the space, so nothing depends on the condition. "
            "Did you mean 'model.dropout'?",
        ),
        (
            sweep(when={"model.dropout": "model.dpeth > 1"}),
            "when.model.dropout: there is no 'model.dpeth'. Did you mean 'model.depth'?",
        ),
        (sweep(when={"model.dropout": "model > 1"}), "when.model.dropout: 'model' is a group of the job's"),
        (sweep(when={"model.dropout": "epochs > 1"}), "when.model.dropout: 'epochs' differs from stage to"),
        (sweep(when={"model.dropout": "qqq > 1"}), "there is no 'qqq'. It is neither a parameter nor a key"),
        (
            sweep(when={"model.dropout": "optimizer == sdg"}),
            "when.model.dropout: optimizer is never 'sdg'. Did you mean 'sgd'?",
        ),
        (sweep(when={"model.dropout": None}), "when.model.dropout: nothing where an expression belongs"),
        (sweep(when={"model.dropout": "'model.depth > 1'"}), "'model.depth > 1' is a text, not a condition"),
        (sweep(when={"model.dropout": "a ="}), "when.model.dropout: 'a =' is no expression"),
        (
            sweep(when={"model.dropout": "model.depth > 4"}),
            "when.model.dropout: 'model.depth > 4' never holds in the declared ranges",
        ),
        (
            sweep(when={"model.dropout": "model.width > 64"}),
            "when.model.dropout: 'model.width > 64' never holds: in the job's config it reads 64 > 64",
        ),
        (
            sweep(when={"model.dropout": "1 / (model.depth - 3) > 0"}),
            "when.model.dropout: '1 / (model.depth - 3) > 0' has no value at model.depth 3: a division by",
        ),
        (
            sweep(when={"optimizer.momentum": "optimizer == adam"}),
            "when.optimizer.momentum: 'optimizer == 'sgd'' and 'optimizer == 'adam'' exclude each other",
        ),
        (
            sweep(when={"model.dropout": "model.depth > 2", "batch_size": "model.dropout > model.depth - 2"}),
            "when.batch_size: 'model.depth > 2' and 'model.dropout > model.depth - 2' exclude each other",
        ),
        (
            sweep(when={"model.dropout": "batch_size > 32", "batch_size": "model.dropout > 0.1"}, tied={}),
            "when.model.dropout: model.dropout → batch_size → model.dropout goes round in a circle",
        ),
        (
            sweep(when={"base_lr": "optimizer.lr > 0.1"}),
            "when.base_lr: base_lr → base_lr goes round in a circle",
        ),
        (
            sweep(tied={"optimizer.lr": "optimizer.lr * 2"}),
            "tied.optimizer.lr: optimizer.lr → optimizer.lr goes round in a circle",
        ),
        (
            sweep(tied={"optimizer.lr": "model.width * base_lr", "model.width": "optimizer.lr + 1"}),
            "tied.optimizer.lr: optimizer.lr → model.width → optimizer.lr goes round in a circle",
        ),
        (
            sweep(tied={"optimizer.lr": "model.width * base_lr", "model.width": "optimizer.lr + 1"},
                  when={"model.dropout": "optimizer.lr > 1"}),
            "when.model.dropout: optimizer.lr → model.width → optimizer.lr goes round in a circle",
        ),
        (
            sweep(tied={**TIED, "batch_size": "32"}),
            "tied.batch_size: is in the space too, and can't be both searched and computed",
        ),
        (sweep(tied={**TIED, "epochs": "3"}), "tied.epochs: is what each stage sets"),
        (sweep(tied={**TIED, "model": "3"}), "tied.model: is a group of the job's config, not one value"),
        (
            sweep(tied={**TIED, "model.widht": "3"}),
            "tied.model.widht: is not in the job's config. Did you mean 'model.width'?",
        ),
        (sweep(tied={"optimizer.lr": "base_rl * 2"}), "there is no 'base_rl'. Did you mean 'base_lr'?"),
        (sweep(tied={"optimizer.lr": [1]}), "tied.optimizer.lr: [1] where an expression belongs"),
        (sweep(tied={"optimizer.lr": "base_lr / (batch_size - 64)"}), "base_lr 0.001, batch_size 64: a div"),
        (sweep(tied={"optimizer.lr": "log(base_lr - 1) * batch_size"}), "there is no value for -0.999"),
        (sweep(tied={"optimizer.lr": "(base_lr, 1)"}), "a list or a mapping, where one value belongs"),
        (
            sweep(tied={"model.width": "optimizer.momentum * 2", **TIED}),
            "tied.model.width: 'optimizer.momentum * 2' refers to 'optimizer.momentum', which this setting",
        ),
        (
            sweep(limits={"optimizer.lr": [0, 0.4]}),
            "tied.optimizer.lr: is 0.5 at optimizer sgd, base_lr 1, batch_size 128, past its",
        ),
        (sweep(limits={"optimizer.rl": [0, 1]}), "jobs.limits.optimizer.rl: is not in the job's config. Did"),
        (sweep(limits={"model.width": [2, 1]}), "jobs.limits.model.width: [2, 1] is reversed"),
        (
            sweep(with_space(optimizer="choice(sgd, adma)")),
            "space.optimizer: there is no option 'adma'. Did you mean 'adam'? Options stand under "
            "jobs.groups.optimizer or in optimizer/adma.yaml",
        ),
        (
            sweep(with_space(optimizer="interval(0, 1)")),
            "space.optimizer: chooses a config group, so it is a choice, not a range. Write choice(sgd, adam",
        ),
        (
            sweep(with_space(optimizer__momentun="interval(0, 1)")),
            "space.optimizer.momentun: exists under no option of optimizer. Did you mean 'optimizer.mom",
        ),
        (
            sweep(with_space(optimizer="choice(adam)")),
            "space.optimizer.momentum: exists under no option of optimizer",
        ),
        (sweep(with_space(optimizer__schedule="choice(a, b)")), "In it: optimizer.schedule.name"),
        (
            sweep(with_space(model="choice(a, b)")),
            "space.model: is a group of the job's config, not one value. In it: model.depth",
        ),
        (sweep(groups={"optimizer": ["sgd"]}), "jobs.groups.optimizer: the options of a group are a mapping"),
        (sweep(tied={}), "space.base_lr: is not in the job's config"),
        (sweep({"batch_size": 3}, {}, {}), "space: nothing varies: every parameter has one value"),
        (sweep({}, {}, {}), "space: nothing varies. Give at least one parameter a range"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(config: SweepConfig, message: str) -> None:
    refused = refusal(config)
    assert refused.startswith("sweep.yaml: ")
    assert message in refused


def test_an_option_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    file = tmp_path / "optimizer" / "adam.yaml"
    only_sgd = sweep(groups={"optimizer": {"sgd": OPTIONS["sgd"]}})
    file.write_text("{name: [adam")
    assert refusal(only_sgd, tmp_path).startswith(f"{file}: not readable as YAML (")
    file.write_text("{defaults: [sgd], name: adam}")
    assert refusal(only_sgd, tmp_path).startswith(f"{file}: defaults: a defaults list is not followed")
    # An option is a file of the group's folder, and no way out of it.
    (tmp_path / "secret.yaml").write_text("{name: adam, momentum: 0.9}")
    outside = sweep(with_space(optimizer="choice(sgd, '../secret')"))
    assert "there is no option '../secret'" in refusal(outside, tmp_path)


def test_the_first_corners_are_the_ends_and_many_are_drawn_the_same_each_time() -> None:
    space = (
        Parameter(name="x", kind=FLOAT, low=0.0, high=1.0),
        Parameter(name="n", kind=INT, low=1, high=9),
        Parameter(name="c", kind=CHOICE, values=("a", None)),
    )
    found = list(corners(space, 1000, [0.3, 5.5, 77]))
    assert {"x": 0.0, "n": 1, "c": "a"} in found
    assert {"x": 1.0, "n": 9, "c": None} in found
    assert {0.3, 0.5} <= {point["x"] for point in found}
    assert {4, 5, 6} <= {point["n"] for point in found}
    some = list(corners(space, 10, [0.3, 5.5]))
    assert len(some) == 10
    assert any(point["x"] not in {each["x"] for each in found} for point in some)
    assert some == list(corners(space, 10, [0.3, 5.5]))
    assert list(corners((), 10)) == [{}]


@given(st.data())
def test_every_setting_gives_a_config_that_fits(data: st.DataObject) -> None:
    config, space = PREPARED
    params = active(space, {p.name: p.from_unit(data.draw(st.floats(0, 1), p.name)) for p in space})
    assert ("optimizer.momentum" in params) == (params["optimizer"] == "sgd")
    phase = Phase(kind="stage", name="coarse", trials=1, scale=Scale(data=1.0))
    made = trial_config(config, phase, TrialSpec(trial_id="t", setting_id="s", params=params, seed=0))
    lr, size = params["base_lr"], params["batch_size"]
    assert isinstance(lr, float)
    assert isinstance(size, int)
    assert made.optimizer.lr == pytest.approx(lr * size / 256)
    assert made.optimizer.get("momentum") == params.get("optimizer.momentum")
    assert made.model.dropout == params.get("model.dropout", 0.0)
    assert from_json(to_json(space, "coarse")) == space


PREPARED = checked(sweep())
