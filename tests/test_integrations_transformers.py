"""Hugging Face's Trainer in a trial: what is reported, how it stops, and how it is taken up.

Skipped where the package is not installed: pip install -e '.[transformers]'.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from documented_jobs import run_with_a_kill, steps_of

from orchestrator.errors import StopTrial, UserError
from orchestrator.worker.catalogues import pass_over_catalogues
from orchestrator.worker.trial import Trial, always

NEEDED = "needs the extra transformers"
pytestmark = pytest.mark.filterwarnings("default")


def made_trial(folder: Path, **changes: Any) -> tuple[Trial, list[dict[str, Any]]]:
    """Return a trial, and the lines that it sends."""
    lines: list[dict[str, Any]] = []
    (folder / "trial").mkdir(exist_ok=True, parents=True)
    given: dict[str, Any] = {
        "id": "t", "stage": "coarse", "params": {}, "seed": 3, "checkpoint_dir": folder / "trial",
        "send": lines.append, "goes_on": always, "scale": {}, "kind": "stage", **changes,
    }  # fmt: skip
    return Trial(**given), lines


def reports(lines: list[dict[str, Any]]) -> list[tuple[int, set[str]]]:
    return [(line["step"], set(line["metrics"])) for line in lines if line["kind"] == "report"]


@pytest.fixture(scope="module")
def integration() -> Any:
    # As in every trial: an editable installation has this repository's own datasets/ on Python's path.
    pass_over_catalogues()
    pytest.importorskip("transformers", reason=NEEDED)
    pytest.importorskip("accelerate", reason=NEEDED)
    return importlib.import_module("orchestrator.integrations.transformers")


def train(
    integration: Any, trial: Trial, own: Mapping[str, Any] | None = None, *, more: Any = (), **report: Any
) -> tuple[Any, Any]:
    """Train a network of one weight on eight numbers; returns the callback and the Trainer."""
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, Trainer, TrainingArguments

    class Model(PreTrainedModel):  # type: ignore[misc]
        config_class = PretrainedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.weight = torch.nn.Parameter(torch.zeros(1))
            self.post_init()

        def forward(self, x: Any, labels: Any = None) -> dict[str, Any]:
            return {"loss": ((self.weight - labels) ** 2).mean(), "logits": x * self.weight}

    callback = integration.ReportCallback(trial, **report)
    given = {
        "num_train_epochs": 3, "learning_rate": 0.1, "per_device_train_batch_size": 2, "use_cpu": True,
        "dataloader_pin_memory": False, **(own or {}),
    }  # fmt: skip
    arguments = TrainingArguments(**integration.training_arguments(trial, **given))
    data = [{"x": float(i), "labels": float(i)} for i in range(8)]
    trainer = Trainer(
        Model(PretrainedConfig()), arguments, train_dataset=data, eval_dataset=data,
        callbacks=[callback, *more],
        compute_metrics=lambda out: {"mean": out.predictions.mean(), "text": "x"},
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=integration.resume_from(trial))
    return callback, trainer


def test_each_evaluation_is_reported(tmp_path: Path, integration: Any) -> None:
    trial, lines = made_trial(tmp_path)
    callback, trainer = train(integration, trial, {"eval_on_start": True}, names={"eval_mean": "mean"})
    # Not the evaluation before training; neither texts nor how long it took.
    assert reports(lines) == [(step, {"train/loss", "eval/loss", "mean"}) for step in (1, 2, 3)]
    assert callback.last == lines[-1]["metrics"]
    # What is evaluated after training is the caller's to return.
    assert callback.named(trainer.evaluate())["eval/loss"] == callback.last["eval/loss"]
    assert len(reports(lines)) == 3


def test_evaluations_within_an_epoch_count_steps(tmp_path: Path, integration: Any) -> None:
    trial, lines = made_trial(tmp_path)
    train(integration, trial, {"eval_strategy": "steps", "eval_steps": 5})
    assert [step for step, _ in reports(lines)][:2] == [5, 10]
    # Some versions evaluate at the end as well; no training loss was logged since step 10.
    assert [("train/loss" in names) for _, names in reports(lines)] in ([True, True], [True, True, False])
    assert {path.name for path in trial.checkpoint_dir.iterdir()} == {"checkpoint-12"}


def test_an_abandoned_trial_ends_and_writes_no_more(tmp_path: Path, integration: Any) -> None:
    trial, lines = made_trial(tmp_path, goes_on=lambda step, metrics: step < 2)
    from transformers import TrainerCallback

    begun = []

    class Epochs(TrainerCallback):  # type: ignore[misc]
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            begun.append(state.epoch)

    with pytest.raises(StopTrial):
        train(integration, trial, {"num_train_epochs": 9}, more=[Epochs()])
    assert len(begun) == 2
    assert [step for step, _ in reports(lines)] == [1, 2]
    assert [path.name for path in trial.checkpoint_dir.iterdir()] == ["checkpoint-4"]


def test_it_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, integration: Any) -> None:
    whole, _ = train(integration, made_trial(tmp_path / "whole")[0])
    trial, _ = made_trial(tmp_path / "parts")
    assert integration.resume_from(trial) is None

    def killed(line: Mapping[str, Any]) -> None:
        if line["kind"] == "report" and line["step"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(integration, made_trial(tmp_path / "parts", send=killed)[0])
    last = Path(integration.resume_from(trial))
    assert last.name == "checkpoint-8"
    for torn in ("checkpoint-11", "checkpoint-12"):
        (trial.checkpoint_dir / torn).mkdir()
        for path in last.iterdir():
            (trial.checkpoint_dir / torn / path.name).write_bytes(path.read_bytes())
    (trial.checkpoint_dir / "checkpoint-12" / "trainer_state.json").unlink()
    optimizer = trial.checkpoint_dir / "checkpoint-11" / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-100])
    assert integration.resume_from(trial) == str(last)
    trial, lines = made_trial(tmp_path / "parts")
    assert train(integration, trial)[0].last == whole.last
    assert [step for step, _ in reports(lines)] == [3]
    # After its last epoch, and before it could say so.
    trial, lines = made_trial(tmp_path / "parts")
    assert train(integration, trial)[0].last == whole.last
    assert not lines


def test_a_final_run_keeps_what_it_is_asked_for(tmp_path: Path, integration: Any) -> None:
    scale = {"checkpoints": ["best", "every 2"]}
    trial, lines = made_trial(tmp_path, kind="final", scale=scale)
    train(integration, trial, {"load_best_model_at_end": True})
    kept = [(line["step"], line["path"]) for line in lines if line["kind"] == "checkpoint"]
    assert kept == [(2, "members/000002.safetensors"), (3, "members/000003.safetensors")]
    assert all((trial.checkpoint_dir / path).is_file() for _, path in kept)


def test_the_callers_arguments_count(tmp_path: Path, integration: Any) -> None:
    trial, _ = made_trial(tmp_path)
    options = integration.training_arguments(trial)
    assert options["output_dir"] == str(trial.checkpoint_dir)
    assert (options["seed"], options["save_strategy"]) == (3, "epoch")
    options = integration.training_arguments(trial, output_dir="x", eval_strategy="steps", report_to="all")
    assert (options["output_dir"], options["save_strategy"], options["report_to"]) == ("x", "steps", "all")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.delitem(sys.modules, "orchestrator.integrations.transformers", raising=False)
    with pytest.raises(UserError, match=r"coarse-to-fine-orchestrator\[transformers\]"):
        importlib.import_module("orchestrator.integrations.transformers")


@pytest.mark.usefixtures("integration")
def test_the_documented_job_is_killed_and_goes_on(tmp_path: Path) -> None:
    trials = run_with_a_kill(tmp_path, "hf_train", "hf.yaml", 0.02)
    assert trials["state"].to_dict() == {"coarse-00000": "completed", "coarse-00001": "pruned"}
    sweep = tmp_path / "sweeps" / "hf"
    # Of two epochs one was over.
    assert steps_of(sweep, "coarse-00000") == [[1], [2, 3, 4]]
    assert steps_of(sweep, "coarse-00001") == [[1]]
