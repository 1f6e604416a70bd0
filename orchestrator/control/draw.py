"""Drawing: a phase's ranges and trials from what the trials before it found, frozen as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from orchestrator.control.finished import finished, has_result, observations
from orchestrator.control.rates import with_range_test
from orchestrator.diagnosis.collect import StageFinding, bounds, collect, read_stage
from orchestrator.planning.combining import ensemble_trials
from orchestrator.planning.narrowing.diagnosed import cut_diagnosed
from orchestrator.planning.narrowing.evidence import StageResults
from orchestrator.planning.narrowing.holding import free_to_json, searchable, with_held
from orchestrator.planning.narrowing.importance import importance
from orchestrator.planning.narrowing.narrow import narrow
from orchestrator.planning.narrowing.trust import Agreement, agreement
from orchestrator.planning.narrowing.trust import from_json as trust_from_json
from orchestrator.planning.narrowing.trust import to_json as trust_to_json
from orchestrator.planning.plan import Phase, Plan
from orchestrator.planning.promotion import Known, came_late, final_trials, wave_trials
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.prior_results import read_prior_results
from orchestrator.planning.sampling.start_from import own_values, starting_settings
from orchestrator.schema import SweepConfig
from orchestrator.space import Value, to_json
from orchestrator.space.conditions import declared_space
from orchestrator.sweep.directory import (
    CHECK_TRIALS,
    CHECKS,
    ENSEMBLE,
    STAGE,
    SweepDirectory,
    TrialSpec,
    read_waves,
    write_trials,
)
from orchestrator.sweep.facts import PhaseFacts, read_phase
from orchestrator.sweep.files import create_exclusive, read_as, read_json
from orchestrator.sweep.records import COMPLETED
from orchestrator.sweep.spaces import RANGES, read_space

# What one stage's training is of the next one's where the plan could not tell.
UNKNOWN_STEP = 1 / 3


def freeze(directory: SweepDirectory, plan: Plan, config: SweepConfig, phase: Phase, wave: int) -> None:
    """Write down the trials of a phase, or of one wave of it.

    Args:
        directory, plan, config: the sweep.
        phase: what begins, or goes on with its next wave.
        wave: counted from 0; with the first wave of a stage its ranges are drawn too.
    """
    before = plan.before(phase)
    if phase.kind == STAGE:
        trials = _draw(directory, plan, config, phase, wave)
    elif phase.kind == ENSEMBLE:
        trials = _ensemble(directory, plan, config, phase, wave)
    elif phase.kind == CHECKS:
        names = CHECK_TRIALS[: phase.trials]
        trials = [TrialSpec(trial_id=name, setting_id="", params={}, seed=config.seed) for name in names]
    else:
        assert before is not None, "final runs follow a stage"
        trials = _final(directory, plan, config, phase, before, wave)
    # An empty wave is written too: it was drawn, and there was nothing useful to add.
    write_trials(directory.phase(phase.kind, phase.name).wave(wave), trials)


def _ensemble(
    directory: SweepDirectory, plan: Plan, config: SweepConfig, phase: Phase, wave: int
) -> list[TrialSpec]:
    """Return one wave of the ensemble; no students where nothing was chosen."""
    assert plan.final is not None, "an ensemble follows final runs"
    known = read_phase(directory, plan.final)
    done = {trial for trial, outcome in known.outcomes.items() if outcome.state == COMPLETED}
    runs = [spec for spec in known.trials if spec.trial_id in done]
    students: list[TrialSpec] = []
    if config.ensemble.student.enabled and directory.choice.exists():
        from orchestrator.ensemble.students import student_specs

        students = read_as(
            directory.choice, lambda choice: student_specs(directory, config, choice), "an ensemble's choice"
        )
    return ensemble_trials(phase, wave, runs, students, config.seed)


def _draw(
    directory: SweepDirectory, plan: Plan, config: SweepConfig, phase: Phase, wave: int
) -> list[TrialSpec]:
    """Draw one wave of a stage; with the first one its ranges, which are written down before its trials."""
    path = directory.phase(phase.kind, phase.name).space
    earlier = plan.stages[: [stage.name for stage in plan.stages].index(phase.name)]
    behind = [read_phase(directory, stage) for stage in earlier]
    found = [finished(known, plan) for known in behind]
    own = finished(read_phase(directory, phase), plan)
    results = [
        StageResults(
            name=stage.name,
            scale=relative_scale(plan, stage),
            observations=observations(items, relative_scale(plan, stage)),
        )
        for stage, items in zip((*earlier, phase), (*found, own), strict=True)
    ]
    if wave == 0:
        content = _ranges(directory, config, phase, earlier, results[:-1])
        # Another process may have drawn them, and trials from them, while this one was stalled.
        create_exclusive(path, json.dumps(content, indent=1) + "\n")
    content, space = read_json(path), read_space(path)
    drawn = [{trial.setting_id for trial in stage.trials} for stage in behind]
    known = Known(
        before=found[_chosen_from(behind, plan.metric)] if found else [],
        late=came_late(found, drawn) if wave == 0 else (),
        own=own,
        history=_told(behind, [stage.observations for stage in results], plan.metric),
        prior=read_prior_results(directory.prior, relative_scale(plan, plan.stages[0])),
        trust=trust_from_json(content.get("agreement")),
        start=[] if earlier else _start(config, directory),
        scale=relative_scale(plan, phase),
        drawn=_so_far(directory, phase),
    )
    return wave_trials(phase, wave, space, config.seed, known)


def _chosen_from(stages: Sequence[PhaseFacts], metric: str) -> int:
    """Return the place of the last stage with a finite result, the last one where none has any.

    A stage all of whose trials diverged, or that the budget left out, says nothing of which settings to take.
    """
    sound = [place for place, known in enumerate(stages) if has_result(known, metric)]
    return sound[-1] if sound else len(stages) - 1


def _told(
    behind: Sequence[PhaseFacts], seen: Sequence[Sequence[Observation]], metric: str
) -> list[Observation]:
    """Return what samplers learn from: of the stages behind what told anything, and the phase's own results.

    Args:
        behind: the stages before the phase.
        seen: the results of each of them, and last the phase's own.
        metric: of the sweep.
    """
    *earlier, own = seen
    sound = [part for known, part in zip(behind, earlier, strict=True) if has_result(known, metric)]
    return [one for part in (*sound, own) for one in part]


def _so_far(directory: SweepDirectory, phase: Phase) -> list[TrialSpec]:
    """Return the trials of a phase's waves that are drawn."""
    return [spec for drawn in read_waves(directory.phase(phase.kind, phase.name)) for spec in drawn]


def _start(config: SweepConfig, directory: SweepDirectory) -> list[dict[str, Value]]:
    """Return the settings that the first stage begins with."""
    return starting_settings(config, declared_space(config, directory.config), directory.config)


def _final(
    directory: SweepDirectory, plan: Plan, config: SweepConfig, phase: Phase, before: Phase, wave: int
) -> list[TrialSpec]:
    phases = (*plan.stages, phase)
    read = [read_phase(directory, one) for one in phases]
    found = [finished(known, plan) for known in read]
    seen = [observations(items, relative_scale(plan, one)) for one, items in zip(phases, found, strict=True)]
    place = _chosen_from(read[:-1], plan.metric)
    known = Known(
        before=found[place],
        earlier=[item for items in found[:place] for item in items],
        own=found[-1],
        history=_told(read[:-1], seen, plan.metric),
        drawn=_so_far(directory, phase),
    )
    space = read_space(directory.phase(before.kind, before.name).space)
    seeds = phase.trials // phase.survivors
    return final_trials(phase, seeds, config.seed, space, before.sampler, known, wave, config.final.of_each)


def _ranges(
    directory: SweepDirectory,
    config: SweepConfig,
    phase: Phase,
    earlier: Sequence[Phase],
    results: Sequence[StageResults],
) -> dict[str, Any]:
    """Draw a stage's ranges: as declared for the first, narrowed from the stage before for the others.

    Returns:
        The content of its space.json: the ranges, those as they would be of parameters that it holds, how
        far rankings carried over between the last two stages, what mattered in the last one, and what the
        diagnoses of its trials have in common.
    """
    agreed: Agreement | None = None
    found: tuple[StageFinding, ...] = ()
    if results:
        before = earlier[-1]
        searched = read_as(directory.phase(before.kind, before.name).space, searchable, RANGES)
        agreed = agreement(*results[-2:]) if len(results) > 1 else None
        space = narrow(searched, results, keep=before.keep, margin=before.margin, trust=agreed)
        found = _diagnosed(directory, before)
        space = cut_diagnosed(space, bounds(found, searched), results[-1].observations)
    else:
        space = with_range_test(declared_space(config, directory.config), directory, config.checks.range_test)
    seen = [one for stage in results for one in stage.observations]
    held = with_held(phase.tune, space, seen, own_values(config, space))
    return {
        **to_json(held, phase.name),
        "free": free_to_json(space, held),
        "agreement": trust_to_json(agreed) if agreed else None,
        # of the stage before
        "importance": importance(space, results[-1].observations) if results else {},
        "diagnosis": [one.sentence for one in found],
    }


def _diagnosed(directory: SweepDirectory, stage: Phase) -> tuple[StageFinding, ...]:
    """Return what the diagnoses of a stage's trials have in common."""
    known = read_phase(directory, stage)
    params = {spec.trial_id: spec.params for spec in known.trials if spec.trial_id in known.outcomes}
    found = read_stage(directory.phase(stage.kind, stage.name).records, params)
    return collect(found)


def relative_scale(plan: Plan, phase: Phase) -> float:
    """Return how much a trial of a stage trains, as a share of a full-scale training, in (0, 1].

    Where the plan could not tell, each stage is taken to train three times what the one before does.
    """
    shares = {other.name: other.share for other in plan.phases if other.trains}
    if (share := shares[phase.name]) and all(shares.values()):
        return min(1.0, share)
    return UNKNOWN_STEP ** (len(shares) - 1 - list(shares).index(phase.name))
