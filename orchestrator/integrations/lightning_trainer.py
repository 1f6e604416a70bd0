"""Lightning's Trainer as a trial needs it: its package, its arguments, its place for checkpoints."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.errors import UserError, how_to_install

if TYPE_CHECKING:
    from orchestrator.worker.trial import Trial

PACKAGES = ("lightning.pytorch", "pytorch_lightning")


def package() -> str:
    """Return which of Lightning's two packages is in use: the one that was imported, or else is installed.

    Raises:
        UserError: neither is installed; with the extra that brings it.
    """
    # What is imported may have been imported here, for want of the other one; that one has a reason.
    for name in reversed(PACKAGES):
        if sys.modules.get(name) is not None:
            return name
    for name in PACKAGES:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            # What an installed package itself lacks is to be told.
            if error.name is None or not name.startswith(error.name):
                raise
        else:
            return name
    raise UserError(
        "orchestrator.integrations.lightning needs the package lightning",
        hint=how_to_install("lightning"),
    )


def trainer_options(trial: Trial, **own: Any) -> dict[str, Any]:
    """Return arguments that fit into a trial: `Trainer(**trainer_options(trial, max_epochs=9))`.

    The folder for everything is the trial's, one process has one device, several are those that the task has
    started (`final.gpus_per_node`), SLURM's variables are left alone, and no progress bar fills the log.

    Args:
        trial: as the training function was given it.
        own: the caller's own arguments, which count before these; plugins are added to.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    environments = importlib.import_module(f"{package()}.plugins.environments")
    # torchrun's variables, by which the task tells its processes of each other.
    kind = environments.TorchElasticEnvironment if count > 1 else environments.LightningEnvironment
    plugins = own.pop("plugins", None) or []
    plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
    if not any(isinstance(each, environments.ClusterEnvironment) for each in plugins):
        plugins.append(kind())
    return {
        "default_root_dir": str(trial.checkpoint_dir),
        "devices": here,
        "num_nodes": count // here,
        "enable_progress_bar": False,
        "plugins": plugins,
        **own,
    }


def requeue_nothing(trainer: Any) -> None:
    """Keep Lightning from putting the job back into the queue; the sweep does that, for each trial."""
    connector = getattr(trainer, "_accelerator_connector", None)
    environment: Any = getattr(connector, "cluster_environment", None)
    if getattr(environment, "auto_requeue", False):
        environment.auto_requeue = False


def place_checkpoints(trainer: Any, folder: Path) -> None:
    """Point every ModelCheckpoint without a place to a folder, and add one where none keeps the latest."""
    bases = [base.__module__ for base in type(trainer).__mro__]
    own = next(name for name in PACKAGES if any(base.startswith(f"{name}.") for base in bases))
    kind = importlib.import_module(f"{own}.callbacks").ModelCheckpoint
    present = [each for each in trainer.checkpoint_callbacks if isinstance(each, kind)]
    for each in present:
        if each.dirpath is None:
            each.dirpath = str(folder.resolve())
    if present and not any(_keeps_latest(each) for each in present):
        # Of several with one monitor, mode and interval Lightning saves the state of one only.
        free = {"min", "max"} - {each.mode for each in present if each.monitor is None}
        trainer.callbacks.append(
            kind(dirpath=folder, filename="latest-{epoch}-{step}", mode=min(free, default="max"))
        )


def _keeps_latest(checkpoint: Any) -> bool:
    latest = checkpoint.save_last or (checkpoint.monitor is None and checkpoint.save_top_k != 0)
    return bool(latest) and not checkpoint.save_weights_only
