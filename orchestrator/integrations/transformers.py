"""Hugging Face's Trainer in a trial: a callback that reports and stops, arguments, and taking up."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError, how_to_install
from orchestrator.integrations.reporting import EPOCHS, Members, Reporter, is_whole, numbers_of
from orchestrator.sweep.files import replace_atomic

try:
    from transformers import TrainerCallback as _Callback
except ModuleNotFoundError as _error:
    # What an installed package itself lacks is to be told.
    if _error.name != "transformers":
        raise
    raise UserError(
        "orchestrator.integrations.transformers needs the package transformers",
        hint=how_to_install("transformers"),
    ) from None

if TYPE_CHECKING:
    from orchestrator.worker.trial import Trial

# Below the checkpoint_dir: what is kept for the ensemble.
MEMBERS = "members"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
_WEIGHTS = "model.safetensors"
# How long an evaluation took is no metric of the model.
_NO_METRIC = ("_runtime", "_per_second", "_compilation_time")


class ReportCallback(_Callback):  # type: ignore[misc]
    """Reports what is evaluated, stops an abandoned trial, and offers checkpoints to the ensemble.

    The metrics of every evaluation during training are reported by the main process. Their names are as in
    the sweep file's `metric.name`: `eval_loss` is `eval/loss`, any other `eval_NAME` is `eval/NAME`, and the
    training loss that was logged since the last evaluation is `train/loss`. `names` says otherwise. A trial
    that is abandoned ends its training in an orderly way, and then `trainer.train` raises StopTrial: let it
    pass through. What is evaluated before or after training is the caller's: see `named`.

    In a final run the weights of a checkpoint are kept for the ensemble where one is saved at a moment of
    `final.checkpoints`, as `members/000042.safetensors`; `best` is the best with
    `load_best_model_at_end`.

    Args:
        trial: as the training function was given it.
        names: what a metric is called in the sweep, by the Trainer's name: `{"eval_loss": "val/loss"}`.
        count: what steps of the learning curve count: `epochs` that are over, or `steps` of the optimizer.
            None: epochs, where evaluation is at their ends. A stage that prunes counts in epochs.

    Raises:
        UserError: there is no such count, or `final.checkpoints` has a moment that the Trainer does not know.
    """

    def __init__(
        self, trial: Trial, names: Mapping[str, str] | None = None, *, count: str | None = None
    ) -> None:
        self._trial, self._told = trial, Reporter(trial, None, count)
        self._names = dict(names or {})
        self._members = Members(trial, "the Trainer")
        self._training = False
        self._logged = 0

    @property
    def last(self) -> dict[str, float]:
        """The latest value of every metric that was reported, also before the trial was taken up again."""
        return dict(self._told.last)

    def named(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the numbers that `trainer.evaluate` gave, by the names that they have in the sweep."""
        return {
            self._names.get(name, _plain(name)): value
            for name, value in numbers_of(metrics).items()
            if name != "epoch" and not name.endswith(_NO_METRIC)
        }

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take up what an earlier attempt has measured."""
        self._training = True
        for entry in state.log_history:
            told = self._evaluated(entry)
            if told:
                self._logged = entry.get("step", 0)
            elif "loss" in entry:
                told = self.named({"loss": entry["loss"]})
            self._told.last.update(told)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show that the trial is at work."""
        self._told.alive()

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show that the trial is at work."""
        self._told.alive()

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
        """Report an evaluation, and let training end where the trial is abandoned."""
        if not self._training or not state.global_step or not state.is_world_process_zero:
            return
        told = {**self._trained(state), **self._evaluated(metrics or {})}
        self._told.report(self._step(args, state), told)
        if self._told.stopped is not None:
            control.should_training_stop = True
            control.should_save = False

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the weights that were saved, where that is wanted."""
        epoch = round(state.epoch)
        if abs(state.epoch - epoch) < 1e-6 and self._members.due(epoch, round(args.num_train_epochs)):
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            self._keep(folder, self._step(args, state))

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the best weights, where that is wanted, and end the trial where it was abandoned.

        Raises:
            StopTrial: it was.
        """
        self._training = False
        self._told.raise_stop()
        if self._members.best and args.load_best_model_at_end and state.best_model_checkpoint:
            folder = Path(state.best_model_checkpoint)
            step = state.best_global_step
            if self._by_epochs(args):
                step = round(step / state.global_step * state.epoch)
            self._keep(folder, step, best=True)

    def _step(self, args: Any, state: Any) -> int:
        return round(state.epoch) if self._by_epochs(args) else int(state.global_step)

    def _by_epochs(self, args: Any) -> bool:
        """Say whether the learning curve counts epochs."""
        at_ends = getattr(args.eval_strategy, "value", "") == "epoch"
        return at_ends if self._told.count is None else self._told.count == EPOCHS

    def _evaluated(self, metrics: Mapping[str, Any]) -> dict[str, float]:
        return self.named({name: value for name, value in metrics.items() if name.startswith("eval_")})

    def _trained(self, state: Any) -> dict[str, float]:
        """Return the training loss that was logged since the last evaluation."""
        losses = [entry for entry in state.log_history if "loss" in entry and entry["step"] > self._logged]
        self._logged = state.global_step
        return self.named({"loss": losses[-1]["loss"]}) if losses else {}

    def _keep(self, folder: Path, step: int, *, best: bool = False) -> None:
        """Offer a checkpoint's weights by a name of their own: the Trainer deletes its folder before long."""
        weights = folder / _WEIGHTS
        if not self._trial.leads or not weights.is_file():
            return
        member = self._trial.checkpoint_dir / MEMBERS / f"{step:06d}.safetensors"
        member.parent.mkdir(exist_ok=True)
        replace_atomic(member, lambda temporary: shutil.copyfile(weights, temporary))
        self._trial.keep(member, step, best=best)


def resume_from(trial: Trial) -> str | None:
    """Return the newest whole checkpoint, for `trainer.train(resume_from_checkpoint=...)`; None at the start.

    The Trainer writes a checkpoint's folder file by file, its own state last. A folder that a killed process
    has not completed is passed over.
    """
    found = [
        (int(match[1]), folder)
        for folder in trial.checkpoint_dir.rglob("checkpoint-*")
        if (match := _CHECKPOINT.fullmatch(folder.name)) and folder.is_dir()
    ]
    return next((str(folder) for _, folder in sorted(found, reverse=True) if _is_complete(folder)), None)


def training_arguments(trial: Trial, **own: Any) -> dict[str, Any]:
    """Return arguments that fit into a trial: `TrainingArguments(**training_arguments(trial, ...))`.

    All that is written goes into the trial's folder, an epoch ends with an evaluation and a checkpoint, of
    which the newest is left, and no progress bar fills the log.

    Args:
        trial: as the training function was given it.
        own: the caller's own arguments, which count before these.
    """
    options: dict[str, Any] = {
        "output_dir": str(trial.checkpoint_dir),
        "seed": trial.seed,
        "eval_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "disable_tqdm": True,
        "report_to": "none",
        **own,
    }
    # What is saved has to suit what is evaluated where the best is loaded at the end.
    options.setdefault("save_strategy", options["eval_strategy"])
    return options


def _is_complete(folder: Path) -> bool:
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
        files = [path for path in folder.iterdir() if path.suffix in (".pt", ".pth", ".bin", ".safetensors")]
    except (OSError, ValueError):
        return False
    return isinstance(state, dict) and bool(files) and all(is_whole(path) for path in files)


def _plain(name: str) -> str:
    """Return eval/loss of eval_loss, and train/loss of loss."""
    return f"train/{name}" if name == "loss" else re.sub(r"^eval_", "eval/", name)
