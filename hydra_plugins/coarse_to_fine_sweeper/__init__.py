"""Hydra's sweeper plugin: `python app.py -m hydra/sweeper=coarse_to_fine 'lr=tag(log, interval(1e-5, 1))'`.

Hydra imports this module at the start of every application that it finds it beside, so what is heavy is
imported when a sweep begins. It does so before the module is in `sys.modules`, where dataclasses look for
annotations that are text, so there is no `from __future__ import annotations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import CompactHydraException
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict


@dataclass
class CoarseToFineConf:
    """The keys of `hydra.sweeper`; a mapping that is null can be given as a whole on the command line."""

    _target_: str = "hydra_plugins.coarse_to_fine_sweeper.CoarseToFineSweeper"
    # the name of what is optimized: of the number that the job returns, or a key of the mapping
    metric: str = "objective"
    # max or min
    mode: str = "max"
    # ranges in Hydra's grammar by key; those on the command line come on top
    params: Any = None
    # the ladder: {coarse: {trials: 32, epochs: 3}, fine: {trials: 8, epochs: 30}}; the keys are those of
    # `stages` in a sweep file. null: 32, 16 and 8 jobs, at 1/9, 1/3 and all of the scale
    stages: Any = None
    # the keys of the application to which a stage's scale is written: {epochs: trainer.max_epochs, data:
    # data.fraction}; `+key` adds one. seed: the seed of each job
    scale: Any = None
    # of stages that name none: sobol, random, grid, tpe, gp, cmaes, model
    sampler: str = "model"
    # of stages that say nothing else: the share of the jobs that counts as good when ranges are narrowed
    keep: float = 0.25
    # hard limits by key that a range never moves past: {lr: [0, 1]}
    limits: Any = None
    # conditions by key: {optimizer.momentum: optimizer == 'sgd'}; elsewhere a job does not get the key
    when: Any = None
    # settings tried first: [{lr: 0.1}]
    start_from: Any = None
    seed: int = 0
    # jobs that the launcher gets at once; null: all that are known
    max_batch_size: int | None = None
    # the sweep stops when a larger share of a stage's jobs fails
    max_failure_rate: float = 0.5
    # run again what failed, when a sweep is taken up again
    retry_failed: bool = False
    # how often a job is started whose process dies
    attempts: int = 3
    # gets the best parameters and their value
    results_file: str = "optimization_results.yaml"


ConfigStore.instance().store(
    group="hydra/sweeper", name="coarse_to_fine", node=CoarseToFineConf, provider="coarse_to_fine_sweeper"
)


class CoarseToFineSweeper(Sweeper):
    """Searches on small scales first, and narrows the ranges from stage to stage."""

    def __init__(self, **settings: Any) -> None:
        plain = {
            name: OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            for name, value in settings.items()
        }
        self._settings = {**vars(CoarseToFineConf()), **plain}
        # the keys of ranges of numbers
        self._ranges: set[str] = set()
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None
        self.hydra_context: HydraContext | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives a sweeper; the launcher gets the function with its records around it."""
        from hydra.core.plugins import Plugins

        from orchestrator.multirun.job import Recorded

        self.hydra_context, self.config = hydra_context, config
        self._recorded = Recorded(task_function)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=self._recorded, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run all jobs; returns what the launcher returned, batch by batch.

        Raises:
            CompactHydraException: something in the command line or the sweeper's settings is wrong, or too
                many jobs failed.
        """
        from orchestrator.errors import UserError

        try:
            return self._sweep(arguments)
        except UserError as error:
            # Hydra prints these without a traceback.
            raise CompactHydraException(str(error)) from None

    def _sweep(self, arguments: Sequence[str]) -> Any:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from orchestrator.multirun.words import job_overrides, read_words

        assert self.config is not None and self.hydra_context is not None
        params = [f"{key}={value}" for key, value in (self._settings["params"] or {}).items()]
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        words = read_words(parser.parse_overrides([*params, *arguments]))
        self._ranges = {word.key for word in words if word.searched and not word.written}
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        if not any(word.searched for word in words):
            returned = self._launch([job_overrides(words, {}, {})], 0)
            for job in returned:
                # Raises what the job raised.
                _ = job.return_value
            return [returned]
        return self._search(folder, words)

    def _search(self, folder: Path, words: Any) -> Any:
        from orchestrator.multirun.begin import conduct
        from orchestrator.multirun.declare import Settings, declare
        from orchestrator.multirun.drive import Conduct

        assert self.config is not None
        own = {name: self._settings[name] for name in Settings.__dataclass_fields__}
        declared = declare(Settings(**own), words, self._application(words), self.config.hydra.job.name)
        how = Conduct(
            batch=self._settings["max_batch_size"],
            attempts=self._settings["attempts"],
            failures=self._settings["max_failure_rate"],
            retry_failed=self._settings["retry_failed"],
        )
        best = self._settings["results_file"]
        return conduct(folder, declared, how, self._recorded, self._launch, best)

    def _launch(self, overrides: list[list[str]], first: int) -> Any:
        assert self.launcher is not None
        # What can't be composed is said before anything is launched. Composing takes Hydra long, and of jobs
        # that differ in numbers of a range one stands for all.
        kinds = {
            tuple(text for text in job if text.partition("=")[0] not in self._ranges): job
            for job in overrides
        }
        self.validate_batch_is_legal(list(kinds.values()))
        return self.launcher.launch(overrides, initial_job_idx=first)

    def _application(self, words: Any) -> DictConfig:
        """Return the application's config with fixed overrides, and each searched group's first option."""
        assert self.config is not None and self.hydra_context is not None
        loader = self.hydra_context.config_loader
        overrides = []
        for word in words:
            if not word.searched:
                overrides.append(word.override())
            elif word.written and loader.get_group_options(word.name.split("@")[0]):
                overrides.append(f"{word.key}={next(iter(word.written.values()))}")
        composed = loader.load_sweep_config(self.config, overrides)
        with open_dict(composed):
            composed.pop("hydra", None)
        return composed
