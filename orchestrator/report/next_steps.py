"""What is next: what a sweep still has to do, what it waits for, and what its results suggest after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.diagnosis import detail
from orchestrator.diagnosis.collect import StageFinding
from orchestrator.diagnosis.finding import ADVICE
from orchestrator.plots.ladder import scale_text
from orchestrator.report.ruled_out import at_an_edge
from orchestrator.report.units import counted
from orchestrator.results.analysis import planned_trials
from orchestrator.results.load import Results
from orchestrator.sweep.directory import ENSEMBLE, FINAL, STAGE, TRAINED, SweepDirectory

MOST_ADVICE, MOST_EDGES = 2, 4
MANY_FAILED = 0.5  # of a stage's trials: somebody should look before the rest runs


def next_steps(results: Results, findings: Mapping[str, Sequence[StageFinding]]) -> list[str]:
    """Say what is left to do; of a sweep that is finished, what its results suggest.

    Args:
        results: of the sweep.
        findings: by stage, what its trials' findings say together.
    """
    directory = SweepDirectory(results.path)
    if directory.cancelled.exists():
        return ["The sweep was cancelled: nothing more will run."]
    problems = [*failed_checks(results), *_failing(results)]
    left = _left(results)
    if left:
        return [*problems, *left]
    return [*problems, "All that was planned has run.", *_suggestions(results, findings)]


def failed_checks(results: Results) -> list[str]:
    """Say which checks before the first stage failed, and what to do; the sweep waits for that."""
    directory = SweepDirectory(results.path)
    found = detail.read(directory.checks_result).get("checks")
    failed = [one for one in found or [] if isinstance(one, Mapping) and one.get("passed") is False]
    if not failed:
        return []
    accepted = directory.accepted.exists() or len(results.trials) > 0
    said = [
        f"Check {one.get('id')} failed, {one.get('name')}: {one.get('saw')}."
        + (f" Likely: {one['cause']}." if one.get("cause") else "")
        + (f" {str(one['next']).rstrip('.')}." if one.get("next") else "")
        for one in failed
    ]
    return said if accepted else [*said, "The first stage waits until a person has looked at that."]


def _failing(results: Results) -> list[str]:
    """Say where so many trials fail that something must be wrong with the job."""
    said = []
    for stage in results.stages:
        rows = results.at(stage)
        failed = int((rows["state"] == "failed").sum())
        if len(rows) and failed > MANY_FAILED * len(rows):
            said.append(
                f"{failed:,} of {len(rows):,} trials of {stage} failed: see the failures; once their cause "
                "is mended, `orchestrate retry` runs them again."
            )
    return said


def _left(results: Results) -> list[str]:
    """Say what runs now and what comes after it."""
    planned, done = planned_trials(results), results.trials["stage"].value_counts()
    phases = [phase for phase in results.plan["phases"] if phase["kind"] in (*TRAINED, ENSEMBLE)]
    trained = [phase["name"] for phase in phases if phase["kind"] in TRAINED]
    # A stage that has closed may have trials left that nobody waits for.
    begun = max((place for place, name in enumerate(trained) if done[name]), default=0)
    over = begun + (done[trained[begun]] >= planned[trained[begun]]) if trained else 0
    said = []
    for place, name in enumerate(trained):
        if place == over and done[name]:
            said.append(f"{name} is running: {done[name]:,} of {planned[name]:,} trials have ended.")
        elif place >= over:
            phase = next(one for one in phases if one["name"] == name)
            said.append(_coming(phase, planned[name], word="Then" if said else "Next comes"))
            if phase["kind"] == STAGE and place:
                said[-1] += ", in ranges that the results before it set"
            said[-1] += "."
    wants_ensemble = any(phase["kind"] == ENSEMBLE for phase in phases)
    if wants_ensemble and results.ensemble is None:
        said.append(
            "Then the ensemble is chosen on validation data, and measured once on the held-out test data."
            if said
            else "The checkpoints of the final runs are being combined to an ensemble."
        )
    return said


def _coming(phase: Mapping[str, Any], trials: int, word: str) -> str:
    scale = scale_text(phase)
    on = f" on {scale}" if scale else ""
    if phase["kind"] == FINAL:
        top = phase.get("survivors")
        best = f" of the {top} best settings" if top else " of the best settings"
        return f"{word} the final runs: {counted(trials, 'training')}{best}{on}"
    return f"{word} {phase['name']}: {counted(trials, 'trial')}{on}"


def _suggestions(results: Results, findings: Mapping[str, Sequence[StageFinding]]) -> list[str]:
    """Say what the results suggest: wider ranges at an edge, and what the last stage's findings ask."""
    said = []
    stages = [stage for stage in results.stages if stage in results.spaces]
    best = results.best(1)
    if stages and len(best):
        row = best.iloc[0]
        params = {name: row[f"param.{name}"] for name in results.parameters}
        edges = list(at_an_edge(results.spaces[stages[-1]], params))[:MOST_EDGES]
        said += [f"{one[:1].upper()}{one[1:]}: a range that goes on there may do better." for one in edges]
    if len(results.trials):
        last = str(results.trials["stage"].max())
        for one in findings.get(last, ())[:MOST_ADVICE]:
            advice = ADVICE.get(one.code, "")
            said.append(f"At {last}, {one.sentence}" + (f": {advice}." if advice else "."))
    return said
