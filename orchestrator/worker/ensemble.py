"""The ensemble step: from the final runs' checkpoints to `ensemble/ensemble.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.ensemble.build import build_ensemble
from orchestrator.ensemble.members import Candidate
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.sweep import records
from orchestrator.sweep.directory import SweepDirectory
from orchestrator.sweep.facts import read_phase, read_plan
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import COMPLETED
from orchestrator.worker.job import load_function, trial_config


def combine(directory: SweepDirectory, config: SweepConfig) -> dict[str, float]:
    """Build the ensemble, write its result down, and return its figures as the step's metrics.

    Raises:
        UserError: no final run offered a checkpoint.
    """
    assert config.jobs.predict is not None, "a plan without `predict` has no ensemble step"
    predict = load_function(config.jobs.predict, "jobs.predict")
    candidates = read_candidates(directory, config)
    if not candidates:
        raise UserError(
            "no final run offered a checkpoint", hint="Call trial.keep(path, step) in the training function"
        )
    score = config.ensemble.score or ("log_loss" if config.metric.name.endswith("loss") else "accuracy")
    result = build_ensemble(
        candidates,
        predict,
        members=config.ensemble.members,
        combine=config.ensemble.combine,
        max_members=config.ensemble.max_members,
        score=score,
    )
    write_json(directory.ensemble_result, result)
    return _figures(result, config.metric.name)


def read_candidates(directory: SweepDirectory, config: SweepConfig) -> list[Candidate]:
    """Return the checkpoints that completed final runs kept, in the order of runs and steps."""
    plan = read_plan(directory)
    final = plan.final
    assert final is not None, "an ensemble follows final runs"
    facts = read_phase(directory, final)
    folder = directory.phase(final.kind, final.name)
    files = records.read_directory(folder.records)
    kept: dict[tuple[str, int], Path] = {
        (str(line["trial"]), int(line["step"])): folder.checkpoints(str(line["trial"])) / line["path"]
        for file in files
        for line in file.lines
        if line["kind"] == "checkpoint"
    }
    specs = {spec.trial_id: spec for spec in facts.trials}
    return [
        Candidate(
            trial_id=trial,
            setting_id=specs[trial].setting_id,
            seed=specs[trial].seed,
            step=step,
            checkpoint=path,
            config=trial_config(config, final, specs[trial]),
        )
        for (trial, step), path in sorted(kept.items())
        if trial in facts.outcomes and facts.outcomes[trial].state == COMPLETED
    ]


def _figures(result: dict[str, Any], metric: str) -> dict[str, float]:
    figures = {
        f"{part}/{kind}": float(value)
        for part in ("validation", "test")
        for kind, value in result[part].items()
        if value is not None
    }
    return {metric: float(result["validation"]["ensemble"]), **figures}
