"""`orchestrate check`, called as a person calls it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from orchestrator.commands.checking import check as command
from orchestrator.exits import Commands

TRAIN = """
import torch
from torch import nn

def setup(config):
    if config.width < 1:
        from orchestrator.errors import UserError
        raise UserError("is below 1", key="width")
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(200, 4, generator=generator)
    targets = (inputs[:, 0] > 0).long()[:int(200 * config.fraction)]
    torch.manual_seed(config.seed)
    model = nn.Sequential(nn.Linear(4, config.width), nn.ReLU(), nn.Linear(config.width, 2))
    if config.twice:
        model.append(nn.Softmax(1))
    inputs = inputs[:len(targets)]
    return {"model": model, "loss": nn.CrossEntropyLoss(), "inputs": inputs, "targets": targets}

def train(config, trial):
    start = torch.rand(()).item() if config.unseeded else config.fraction
    trial.report(1, {"loss": start})
    return {"loss": start, "seconds": torch.rand(()).item()}
"""
SWEEP = """
name: mine
metric: {name: loss, mode: min}
space: {lr: "tag(log, interval(1e-5, 1.0))"}
stages: {coarse: {trials: 4, data: 0.5}}
final: {top: 0}
jobs:
  _target_: my_train.train
  setup: my_train.setup
  config: {lr: 0.1, fraction: 1.0, width: 16, seed: 0, twice: false, unseeded: false}
  scale: {data: fraction, seed: seed}
"""


main = Commands("orchestrate")
main.add_command(command)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "my_train.py").write_text(TRAIN)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    # The command enters the sweep's folder, and imports from it.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "120")
    yield tmp_path
    sys.modules.pop("my_train", None)


def check(*arguments: str, status: int) -> Result:
    done = CliRunner().invoke(main, ["check", *arguments])
    assert done.exit_code == status, f"{done.output}\n{done.exception!r}"
    return done


def test_a_sound_job_with_its_range_of_rates(folder: Path) -> None:
    done = check("sweep.yaml", "--json", "--range-test", "--skip", "D7", status=0)
    told = json.loads(done.stdout)
    results = {one["id"]: one for one in told["checks"]}
    assert [name for name, one in results.items() if one["passed"] is False] == []
    # The first stage's scale; a metric that differs, but is not the sweep's, does not count.
    assert results["D6"]["details"]["shape"] == [100, 4]
    assert "trained twice: loss 0.5" in results["D5"]["saw"]
    assert 0 < told["range_test"]["low"] < told["range_test"]["high"]
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == [
        "my_train.py",
        "sweep.yaml",
    ]


@pytest.mark.usefixtures("folder")
def test_a_failed_check_is_told_with_cause_and_advice() -> None:
    done = check("sweep.yaml", "jobs.config.twice=true", "--skip", "D3", "--skip", "D10", status=1)
    assert "likely cause: a softmax at the end of the model" in " ".join(done.stdout.split())
    assert "1 failed check\n" in done.stdout


@pytest.mark.usefixtures("folder")
def test_a_job_that_has_no_set_up_is_trained_twice() -> None:
    done = check("sweep.yaml", "jobs.setup=null", status=0)
    assert "trained twice: loss 0.5" in done.stdout and "jobs.setup=my_train.setup" in done.stdout
    done = check("sweep.yaml", "jobs.setup=null", "jobs.config.unseeded=true", status=1)
    assert "trained twice from one seed, loss is" in " ".join(done.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("sweep.yaml", "--skip", "D33"), "there is no check 'D33'. Did you mean 'D3'?"),
        (("sweep.yml",), "sweep.yml"),
        (("sweep.yaml", "jobs.config.width=0"), "width: is below 1"),
        (("sweep.yaml", "jobs.setup=null", "--range-test"), "jobs.setup"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_bad_input_is_refused(arguments: tuple[str, ...], told: str) -> None:
    assert told in check(*arguments, status=2).stderr
