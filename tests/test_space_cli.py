"""Groups, conditions and ties from the command line to the results, and what is wrong with them in words."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import orchestrator
from commands import assert_finished, orchestrate, write_user_sweep
from orchestrator import plots
from orchestrator.report.html import page

# The training function itself checks that its config is what the setting says.
TRAIN = """
def train(config, trial):
    params, optimizer = trial.params, config.optimizer
    assert optimizer.name == params["optimizer"]
    assert abs(optimizer.lr - params["base_lr"] * config.batch_size / 256) < 1e-12
    assert (optimizer.name == "sgd") == ("momentum" in optimizer) == ("optimizer.momentum" in params)
    assert optimizer.get("momentum") == params.get("optimizer.momentum")
    assert config.model.dropout == params.get("model.dropout", 0.0)
    assert (config.model.depth > 1) == ("model.dropout" in params)
    assert (config.model.widths == [32, 32]) == (params["model.widths"] == "[32, 32]")
    assert "base_lr" not in config
    score = optimizer.lr - 0.1 * config.model.depth + 0.001 * config.epochs
    trial.report(1, {"score": score})
    return {"score": score}
"""

SWEEP = """
name: mine
metric: {name: score, mode: max}
space:
  optimizer: choice(sgd, adam)
  optimizer.momentum: interval(0.5, 0.99)
  base_lr: tag(log, interval(1e-3, 1))
  model.depth: int(interval(1, 4))
  model.dropout: interval(0, 0.5)
  model.widths: choice([32, 32], [64])
  model.size: tag(ordered, choice(small, medium, large))
  batch_size: choice(32, 64, 128)
when:
  model.dropout: model.depth > 1
tied:
  optimizer.lr: base_lr * batch_size / 256
stages:
  coarse: {trials: 12, data: 0.1, epochs: 1}
  fine: {trials: 6, data: 1.0, epochs: 2}
final: {top: 2, seeds: 2, epochs: 3}
jobs:
  _target_: my_train.train
  config:
    optimizer: {name: none, lr: 1.0}
    model: {depth: 1, dropout: 0.0, widths: [8], size: small}
    batch_size: 8
    fraction: 1.0
    epochs: 1
  groups:
    optimizer:
      sgd: {name: sgd, lr: 0.1, momentum: 0.9}
  scale: {data: fraction, epochs: epochs}
slurm: {trials_at_once: 4}
"""


def write_sweep(folder: Path, train: str = TRAIN, sweep: str = SWEEP) -> None:
    write_user_sweep(folder, train, sweep)
    (folder / "optimizer").mkdir()
    (folder / "optimizer" / "adam.yaml").write_text("name: adam\nlr: 0.001\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a sweep that has run."""
    folder = tmp_path_factory.mktemp("space")
    write_sweep(folder)
    planned = orchestrate("plan", "sweep.yaml", cwd=folder).stdout
    # The plan is frozen, so tasks need none of the files beside it.
    (folder / "optimizer" / "adam.yaml").unlink()
    assert "= base_lr * batch_size / 256" in planned
    assert "optimizer == 'sgd'" in planned
    assert "small < medium < large" in planned
    orchestrate("run", "sweeps/mine", cwd=folder)
    return folder


def test_every_trial_has_the_config_of_its_setting(folder: Path) -> None:
    assert_finished(folder / "sweeps" / "mine", 12 + 6 + 4)
    assert "only when" in orchestrate("status", "sweeps/mine", "--why", cwd=folder).stdout


def test_what_a_setting_does_not_have_is_null(folder: Path) -> None:
    results = orchestrator.load_results(folder / "sweeps" / "mine")
    trials = results.trials
    assert set(trials["param.optimizer"]) == {"sgd", "adam"}
    assert (trials["param.optimizer.momentum"].isna() == (trials["param.optimizer"] == "adam")).all()
    assert (trials["param.model.dropout"].isna() == (trials["param.model.depth"] == 1)).all()
    assert trials["param.model.dropout"].isna().any()
    assert pd.api.types.is_float_dtype(trials["param.model.dropout"])


def test_the_report_draws_settings_that_lack_parameters(folder: Path) -> None:
    results = orchestrator.load_results(folder / "sweeps" / "mine")
    for figure in (plots.ranges(results), plots.slices(results)):
        drawn = [trace for trace in figure.data if trace.mode == "markers"]
        assert all(value == value for trace in drawn for value in [*trace.x, *trace.y])
    assert sum(len(t.x) for t in plots.slices(results, ["optimizer.momentum"]).data) == int(
        results.trials["param.optimizer.momentum"].notna().sum()
    )
    assert "only when optimizer == &#x27;sgd&#x27;" in page(results, 0.0)
    orchestrate("results", "sweeps/mine", cwd=folder)


def test_a_tie_without_a_value_fails_its_trial_alone(tmp_path: Path) -> None:
    # A trial's seed is not known before, so no look at the ranges can show what happens at every other one.
    sweep = SWEEP.replace("batch_size / 256", "batch_size / 256 + 0 / (seed % 2)")
    sweep = sweep.replace("epochs: 1\n  groups", "epochs: 1\n    seed: 1\n  groups")
    write_sweep(tmp_path, sweep=sweep.replace("epochs: epochs}", "epochs: epochs, seed: seed}"))
    orchestrate("run", "sweep.yaml", "~stages.fine", "final.top=0", cwd=tmp_path, status=None)
    coarse = orchestrator.load_results(tmp_path / "sweeps" / "mine").at("coarse")
    failed = coarse[coarse["state"] == "failed"]
    assert failed["trial_id"].tolist() == coarse[coarse["seed"] % 2 == 0]["trial_id"].tolist()
    assert 0 < len(failed) < len(coarse)
    assert failed["error"].str.contains("tied.optimizer.lr: .* has no value at .*: a division by zero").all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "model.depth > 1",
            "model.dpeth > 1",
            "sweep.yaml: when.model.dropout: there is no 'model.dpeth'. Did you mean 'model.depth'?",
        ),
        (
            "model.depth > 1",
            "model.depth > 9",
            "sweep.yaml: when.model.dropout: 'model.depth > 9' never holds in the declared ranges",
        ),
        (
            "  optimizer.lr: base_lr",
            "  model.dropout: 0.1\n  optimizer.lr: base_lr",
            "sweep.yaml: tied.model.dropout: is in the space too",
        ),
        (
            "base_lr * batch_size / 256",
            "base_lr * batch_size / (batch_size - 32)",
            "sweep.yaml: tied.optimizer.lr: 'base_lr * batch_size / (batch_size - 32)' has no value at "
            "base_lr 0.001, batch_size 32: a division by zero",
        ),
        (
            "choice(sgd, adam)",
            "choice(sgd, adma)",
            "sweep.yaml: space.optimizer: there is no option 'adma'. Did you mean 'adam'?",
        ),
        (
            "optimizer.momentum: interval",
            "optimizer.momentun: interval",
            "sweep.yaml: space.optimizer.momentun: exists under no option of optimizer. Did you mean",
        ),
        (
            "choice(32, 64, 128)",
            "range(128, 32)",
            "sweep.yaml: space.batch_size: range(128, 32) is reversed. Write range(32, 128)",
        ),
        (
            "  groups:\n",
            "  limits: {model.dropout: [0, 0.4]}\n  groups:\n",
            "sweep.yaml: space.model.dropout: 0 … 0.5 reaches past its hard limits 0 … 0.4",
        ),
        ("when:\n", "when: model.depth\nwhenn:\n", "sweep.yaml: when: 'model.depth' is not a mapping"),
    ],
)
def test_bad_input(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SWEEP
    write_sweep(tmp_path, sweep=SWEEP.replace(old, new))
    refused = orchestrate("plan", "sweep.yaml", cwd=tmp_path, status=2)
    assert refused.stdout == ""
    assert refused.stderr.startswith(f"error: {message}")
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "sweeps").exists()


def test_overrides_of_conditions_and_ties(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    changed = orchestrate(
        "plan", "sweep.yaml", "--dry-run", "when.model.dropout=model.depth > 2", "~tied.optimizer.lr",
        "tied.optimizer.lr=base_lr * 2", "~space.batch_size", cwd=tmp_path,
    )  # fmt: skip
    assert "model.depth > 2" in changed.stdout
    assert "= base_lr * 2" in changed.stdout
    for override, message in (
        ("when.model.dropout=model.dpeth > 2", "command line: when.model.dropout: there is no 'model.dpeth'"),
        ("~when.model.dropuot", "command line: when.model.dropuot: there is no such condition to leave out."),
        ("tied.optimizer.lr=base_lr *", "command line: tied.optimizer.lr: 'base_lr *' is no expression"),
    ):
        refused = orchestrate("plan", "sweep.yaml", override, cwd=tmp_path, status=2)
        assert refused.stderr.startswith(f"error: {message}")


def test_constants_are_held_with_a_warning(tmp_path: Path) -> None:
    write_sweep(tmp_path)
    shown = orchestrate("plan", "sweep.yaml", "--dry-run", "space.batch_size=64", cwd=tmp_path)
    assert "warning: batch_size: has one value and is held fixed at 64" in shown.stdout
