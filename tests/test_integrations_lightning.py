"""Lightning in a trial: what is reported, how it stops, and how it is taken up; a sweep of it end to end.

Skipped where neither of its packages is installed: pip install -e '.[lightning]'.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from documented_jobs import run_with_a_kill, steps_of

from orchestrator.errors import StopTrial, UserError
from orchestrator.worker.trial import Trial, always

NEEDED = "needs the extra lightning"
pytestmark = pytest.mark.filterwarnings("default")


def made_trial(folder: Path, **changes: Any) -> tuple[Trial, list[dict[str, Any]]]:
    """Return a trial, and the lines that it sends."""
    lines: list[dict[str, Any]] = []
    (folder / "trial").mkdir(exist_ok=True)
    given: dict[str, Any] = {
        "id": "t", "stage": "coarse", "params": {}, "seed": 3, "checkpoint_dir": folder / "trial",
        "send": lines.append, "goes_on": always, "scale": {}, "kind": "stage", **changes,
    }  # fmt: skip
    return Trial(**given), lines


def reports(lines: list[dict[str, Any]]) -> list[tuple[int, set[str]]]:
    return [(line["step"], set(line["metrics"])) for line in lines if line["kind"] == "report"]


def until(last: int) -> Any:
    """Return what abandons a trial at a step."""

    def goes_on(step: int, metrics: Mapping[str, float]) -> bool:
        return step < last

    return goes_on


@pytest.fixture(scope="module")
def light() -> Any:
    return pytest.importorskip("lightning.pytorch", reason=NEEDED)


@pytest.fixture
def integration(light: Any) -> Any:
    return importlib.import_module("orchestrator.integrations.lightning")


def network(family: Any, seen: list[Any] | None = None) -> Any:
    """Return a module of one weight; `seen` takes what signals do in it, and its order of hooks."""
    import torch

    class Network(family.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def training_step(self, batch: Any, index: int) -> Any:
            if seen is not None and not seen:
                seen.extend(signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1))
            loss = ((self.weight - batch[0]) ** 2).mean()
            self.log("train_loss", loss, on_step=True, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", ((self.weight - batch[0]) ** 2).mean())
            self.log("weight", self.weight.detach())

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=0.1)

        def on_train_end(self) -> None:
            if seen is not None:
                seen.append("end")

    return Network()


def loader() -> Any:
    import torch

    data = torch.utils.data.TensorDataset(torch.arange(8.0).reshape(8, 1))
    return torch.utils.data.DataLoader(data, batch_size=2)


def fit(
    family: Any,
    integration: Any,
    trial: Trial,
    own: Mapping[str, Any] | None = None,
    seen: Any = None,
    **report: Any,
) -> Any:
    """Train a little; returns the callback."""
    callback = integration.ReportCallback(trial, **report)
    given = {
        "max_epochs": 3,
        "logger": False,
        "enable_model_summary": False,
        "accelerator": "cpu",
        **(own or {}),
    }
    callbacks = [callback, *given.pop("callbacks", [])]
    trainer = family.Trainer(**integration.trainer_options(trial, callbacks=callbacks, **given))
    model = network(family, seen)
    trainer.fit(model, loader(), loader(), ckpt_path=integration.resume_from(trial))
    return callback


def test_each_validation_and_each_epoch_is_reported(tmp_path: Path, light: Any, integration: Any) -> None:
    trial, lines = made_trial(tmp_path)
    callback = fit(light, integration, trial, names={"val_loss": "val/loss"})
    # Not the check of the validation before training.
    assert reports(lines) == [(step, {"train_loss", "val/loss", "weight"}) for step in (1, 2, 3)]
    # And of each its own epoch's: of one weight the losses follow from it.
    told = [line["metrics"] for line in lines]
    assert told[0]["train_loss"] > told[0]["val/loss"] > told[1]["train_loss"] > told[1]["val/loss"]
    assert callback.last == told[-1]
    assert callback.last["weight"] > 0.5


def test_several_validations_of_an_epoch_count_steps(tmp_path: Path, light: Any, integration: Any) -> None:
    trial, lines = made_trial(tmp_path)
    fit(light, integration, trial, {"val_check_interval": 0.5, "max_epochs": 1})
    assert reports(lines) == [(2, {"val_loss", "weight"}), (4, {"train_loss", "val_loss", "weight"})]
    (tmp_path / "other").mkdir()
    trial, lines = made_trial(tmp_path / "other")
    fit(light, integration, trial, {"val_check_interval": 3, "max_epochs": 1})
    assert reports(lines) == [(3, {"val_loss", "weight"}), (4, {"train_loss"})], (
        "of the validation nothing again"
    )
    with pytest.raises(UserError, match="can't count 'weeks'"):
        integration.ReportCallback(trial, count="weeks")


def test_a_metric_that_is_nan_is_reported_as_it_is(tmp_path: Path, light: Any, integration: Any) -> None:
    trial, _ = made_trial(tmp_path)

    class Breaks(light.Callback):  # type: ignore[misc]
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            module.weight.data.fill_(float("nan"))

    callback = fit(light, integration, trial, {"callbacks": [Breaks()], "max_epochs": 1})
    assert callback.last["val_loss"] != callback.last["val_loss"]


@pytest.mark.parametrize("more", [{}, {"min_epochs": 9}], ids=["orderly", "min_epochs"])
def test_an_abandoned_trial_ends(tmp_path: Path, light: Any, integration: Any, more: Any) -> None:
    trial, lines = made_trial(tmp_path, goes_on=until(2))
    seen: list[Any] = []
    with pytest.raises(StopTrial):
        fit(light, integration, trial, {"max_epochs": 9, **more}, seen)
    assert [step for step, _ in reports(lines)] == [1, 2]
    # Lightning's own end comes first, where it is let.
    assert ("end" in seen) == (not more)


def test_it_goes_on_from_its_last_whole_checkpoint(tmp_path: Path, light: Any, integration: Any) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = fit(light, integration, made_trial(tmp_path / "whole")[0])
    trial, _ = made_trial(tmp_path / "parts")
    assert integration.resume_from(trial) is None
    fit(light, integration, trial, {"max_epochs": 2})
    last = Path(integration.resume_from(trial))
    assert last.parent == trial.checkpoint_dir / "lightning"
    # Cut short, and members, are nothing to go on from.
    (last.parent / "torn.ckpt").write_bytes(last.read_bytes()[:-100])
    (trial.checkpoint_dir / "members").mkdir()
    (trial.checkpoint_dir / "members" / "epoch-0009.ckpt").write_bytes(last.read_bytes())
    assert integration.resume_from(trial) == str(last)
    trial, lines = made_trial(tmp_path / "parts")
    assert fit(light, integration, trial).last == whole.last
    assert [step for step, _ in reports(lines)] == [3]
    # After its last epoch, and before it could say so.
    trial, lines = made_trial(tmp_path / "parts")
    assert fit(light, integration, trial).last == whole.last
    assert not lines


def test_checkpoints_lie_in_the_trials_folder(tmp_path: Path, light: Any, integration: Any) -> None:
    trial, _ = made_trial(tmp_path)
    best = light.callbacks.ModelCheckpoint(monitor="val_loss", filename="best")
    own = light.callbacks.ModelCheckpoint(dirpath=tmp_path / "own", save_last=True, save_weights_only=True)
    fit(light, integration, trial, {"callbacks": [best, own], "max_epochs": 2})
    names = sorted(path.name for path in (trial.checkpoint_dir / "lightning").iterdir())
    assert names == ["best.ckpt", "latest-epoch=1-step=8.ckpt"]
    assert (tmp_path / "own" / "last.ckpt").is_file()
    (tmp_path / "other").mkdir()
    trial, _ = made_trial(tmp_path / "other")
    fit(light, integration, trial, {"enable_checkpointing": False, "max_epochs": 1})
    assert integration.resume_from(trial) is None


def test_a_final_run_keeps_what_it_is_asked_for(tmp_path: Path, light: Any, integration: Any) -> None:
    scale = {"checkpoints": ["best", "every 2", "last"]}
    trial, lines = made_trial(tmp_path, kind="final", scale=scale)
    best = light.callbacks.ModelCheckpoint(monitor="val_loss", filename="best")
    fit(light, integration, trial, {"callbacks": [best]})
    kept = [(line["step"], line["path"]) for line in lines if line["kind"] == "checkpoint"]
    members = [(2, "members/epoch-0002.ckpt"), (3, "members/epoch-0003.ckpt")]
    assert kept == [*members, (3, "lightning/best.ckpt")]
    model = type(network(light)).load_from_checkpoint(trial.checkpoint_dir / "members" / "epoch-0002.ckpt")
    assert model.weight.item() > 0
    with pytest.raises(UserError, match="no moment 'cycles'"):
        integration.ReportCallback(made_trial(tmp_path, kind="final", scale={"checkpoints": ["cycles"]})[0])


@pytest.fixture
def on_slurm(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"NTASKS": "1", "JOB_NAME": "x", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_NODEID", "0")
    yield


@pytest.mark.usefixtures("on_slurm")
@pytest.mark.parametrize("options", [True, False], ids=["trainer_options", "plain"])
def test_on_slurm_no_handler_saves_or_requeues(
    tmp_path: Path, light: Any, integration: Any, options: bool
) -> None:
    trial, _ = made_trial(tmp_path)
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)]
    seen: list[Any] = []
    given = {
        "default_root_dir": tmp_path,
        "max_epochs": 1,
        "logger": False,
        "accelerator": "cpu",
        "devices": 1,
    }
    if options:
        given = integration.trainer_options(trial, **given)
    trainer = light.Trainer(callbacks=[integration.ReportCallback(trial)], **given)
    environment = trainer._accelerator_connector.cluster_environment
    assert (type(environment).__name__ == "SLURMEnvironment") == (not options)
    model = network(light, seen)
    trainer.fit(model, loader(), loader())
    assert seen[:2] == before
    during = []
    model.on_validation_epoch_end = lambda: during.append(signal.getsignal(signal.SIGTERM))
    trainer.validate(model, loader())
    assert during == before[:1]
    assert not getattr(environment, "auto_requeue", False)


def test_arguments_fit_into_a_trial(
    tmp_path: Path, light: Any, integration: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial, _ = made_trial(tmp_path)
    options = integration.trainer_options(trial, devices=4, plugins="async", max_epochs=2)
    assert options["default_root_dir"] == str(trial.checkpoint_dir)
    assert (options["devices"], options["max_epochs"], options["plugins"][0]) == (4, 2, "async")
    for name, value in {"WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "RANK": "3", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    options = integration.trainer_options(trial)
    assert (options["devices"], options["num_nodes"]) == (2, 2)
    assert options["plugins"][0].global_rank() == 3


def test_the_other_package_is_served_too(tmp_path: Path, light: Any, integration: Any) -> None:
    other = pytest.importorskip("pytorch_lightning", reason=NEEDED)
    trial, lines = made_trial(tmp_path, goes_on=until(2))
    with pytest.raises(StopTrial):
        fit(other, integration, trial, {"max_epochs": 9})
    assert reports(lines)[-1][0] == 2
    assert integration.resume_from(trial) is not None


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("lightning", "lightning.pytorch", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "orchestrator.integrations.lightning", raising=False)
    with pytest.raises(UserError, match=r"coarse-to-fine-orchestrator\[lightning\]"):
        importlib.import_module("orchestrator.integrations.lightning")


@pytest.mark.usefixtures("light")
def test_the_documented_job_is_killed_and_goes_on(tmp_path: Path) -> None:
    trials = run_with_a_kill(tmp_path, "light_train", "light.yaml", 0.5)
    assert trials["state"].to_dict() == {"coarse-00000": "completed", "coarse-00001": "pruned"}
    sweep = tmp_path / "sweeps" / "light"
    # Of two epochs one was over.
    assert steps_of(sweep, "coarse-00000") == [[1], [2, 3, 4]]
    assert steps_of(sweep, "coarse-00001") == [[1]]
