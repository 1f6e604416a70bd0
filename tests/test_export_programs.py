"""Networks as programs that are handed over: one's own jobs, and every network of the catalogue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from torch import Tensor, nn

from orchestrator.cli import main
from orchestrator.errors import UserError
from orchestrator.export.manifest import open_exported
from orchestrator.export.predict import predict
from orchestrator.export.program import Refused, export_program, program_bytes
from orchestrator.export.sequences import Unpacked, unpacked
from orchestrator.export.vetting import load_program
from orchestrator.export.write import export
from orchestrator.training.models import build_model
from orchestrator.training.settings import ModelSettings

OWN = """
import torch
from torch import nn

def data(seed):
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(seed))
    return x, (x.sum(1) > 0).long()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(6, 2)
    def forward(self, x):
        BODY

def setup(config):
    x, y = data(0)
    return {"model": Net(), "loss": nn.functional.cross_entropy, "inputs": x, "targets": y}

def train(config, trial):
    return {"val/accuracy": 0.5}

def predict(config, checkpoint, split):
    raise NotImplementedError
"""
OWN_SWEEP = """
name: own
metric: {name: val/accuracy, mode: max}
space: {lr: "interval(0.1, 1.0)"}
stages: {only: {trials: 2}}
final: {top: 1, seeds: 1}
jobs: {_target_: JOB.train, predict: JOB.predict, setup: JOB.setup, config: {lr: 0.1}, scale: {}}
checks: {enabled: false}
"""


def own_sweep(folder: Path, body: str) -> Path:
    """Make a finished sweep over a user's own job."""
    from orchestrator.control.create import freeze_plan, work_out
    from orchestrator.sweep.directory import TrialSpec, write_trials

    name = f"job_{folder.parent.name}_{folder.name}".replace("-", "_")
    folder.mkdir()
    (folder / f"{name}.py").write_text(OWN.replace("BODY", body))
    (folder / "sweep.yaml").write_text(OWN_SWEEP.replace("JOB", name))
    planned = work_out(folder / "sweep.yaml", [f"dir={folder / 'sweep'}"])
    freeze_plan(planned)
    directory = planned.directory
    where = directory.phase("final", "final")
    write_trials(
        where.trials, [TrialSpec(trial_id="final-00000", setting_id="s", params={"lr": 0.2}, seed=0)]
    )
    where.checkpoints("final-00000").mkdir(parents=True)
    checkpoint = where.checkpoints("final-00000") / "last.pt"
    torch.manual_seed(0)
    torch.save({"step": 1, "state_dict": nn.ModuleDict({"net": nn.Linear(6, 2)}).state_dict()}, checkpoint)
    described = {
        "trial_id": "final-00000",
        "setting_id": "s",
        "seed": 0,
        "step": 1,
        "checkpoint": str(checkpoint),
    }
    result = {
        "score": "accuracy",
        "mode": "max",
        "members": [described | {"weight": 1}],
        "best_single": described,
        "validation": {"best_single": 0.5, "ensemble": 0.5},
        "test": {"best_single": 0.5, "ensemble": 0.5},
    }
    directory.ensemble_result.parent.mkdir(parents=True)
    directory.ensemble_result.write_text(json.dumps(result))
    return directory.path


def test_a_job_of_ones_own(tmp_path: Path) -> None:
    sweep = own_sweep(tmp_path / "a", "return self.net(x)")
    export(sweep, tmp_path / "out")
    inputs = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    weights = torch.load(sweep / "final/checkpoints/final-00000/last.pt", weights_only=True)["state_dict"]
    wanted = torch.softmax(
        nn.functional.linear(torch.tensor(inputs), weights["net.weight"], weights["net.bias"]), 1
    )
    np.savez(tmp_path / "x.npz", x=inputs)
    arguments = [str(tmp_path / each) for each in ("out", "x.npz")]
    done = CliRunner().invoke(main, ["predict", *arguments, "--out", str(tmp_path / "said.parquet")])
    assert "30 samples, 0 with a right answer" in done.stdout
    said = pd.read_parquet(tmp_path / "said.parquet").filter(like="p(")
    np.testing.assert_allclose(said, wanted, atol=1e-6)
    with pytest.raises(UserError, match="prepared by its own code"):
        predict(open_exported(tmp_path / "out"), "test")


def test_what_torch_export_refuses_is_handed_over_as_weights_and_code(tmp_path: Path) -> None:
    sweep = own_sweep(tmp_path / "b", "return self.net(x) if x.sum() > 0 else self.net(-x)")
    manifest = export(sweep, tmp_path / "out")
    network = manifest["networks"]["single"]
    assert network["program"] is None
    assert "data-dependent" in network["why_no_program"]
    assert "data-dependent" in (tmp_path / "out" / "README.md").read_text()
    assert list((tmp_path / "out" / "code").glob("job_*.py"))
    np.savez(tmp_path / "x.npz", x=np.zeros((3, 6), np.float32))
    with pytest.raises(UserError, match=r"has weights alone.*Build the model with your own code.*setup"):
        predict(open_exported(tmp_path / "out"), str(tmp_path / "x.npz"))


def test_a_program_that_says_something_else_is_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs + torch.rand(1)

    with pytest.raises(Refused, match="other outputs"):
        export_program(Noisy(), torch.zeros(4, 3))


@pytest.mark.parametrize("name", ["lstm", "gru"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_networks_compute_the_same_without_packing(name: str, bidirectional: bool) -> None:
    torch.manual_seed(0)
    settings = ModelSettings(name=name, width=4, depth=2, bidirectional=bidirectional)
    model = build_model(settings, (5,), 3, vocabulary=9).eval()
    tokens = torch.randint(1, 9, (7, 5))
    tokens[torch.arange(5) >= torch.arange(7)[:, None]] = 0  # of all lengths, the first one empty
    with torch.no_grad():
        assert isinstance(unpacked(model), Unpacked)
        torch.testing.assert_close(unpacked(model)(tokens), model(tokens), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shape", "vocabulary"),
    [
        ({"name": "mlp"}, (6,), 9),
        ({"name": "residual", "batch_norm": True, "depth": 1}, (1, 8, 8), None),
        ({"name": "gru"}, (5, 3), None),
    ],
)
def test_every_network_becomes_a_program(
    settings: dict[str, Any], shape: tuple[int, ...], vocabulary: int | None
) -> None:
    torch.manual_seed(0)
    model = build_model(ModelSettings(width=4, **settings), shape, 3, vocabulary=vocabulary)
    inputs: NDArray[Any] = np.random.default_rng(0).normal(size=(9, *shape)).astype(np.float32)
    if vocabulary is not None:
        inputs = np.random.default_rng(0).integers(1, vocabulary, (9, *shape))
        inputs[np.arange(shape[0]) >= np.arange(9)[:, None]] = 0  # of all lengths, the first one empty
    example = torch.from_numpy(inputs)
    run = load_program(program_bytes(export_program(unpacked(model), example[:4])), "file")
    for count in (1, 9):
        torch.testing.assert_close(run(example[:count]), model.eval()(example[:count]), atol=1e-6, rtol=1e-5)
