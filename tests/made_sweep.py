"""A sweep's directory as the orchestrator leaves it, made up: for tests of what reads one.

The pretended objective has its best learning rate near 10^-2, likes width and a little dropout, and the
ranks of settings mostly agree between scales. Everything follows from the seed.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from orchestrator.results.compact import compact
from orchestrator.results.load import load_results
from orchestrator.sweep.directory import STAGE, SweepDirectory, TrialSpec, write_trials
from orchestrator.sweep.files import write_json
from orchestrator.sweep.records import encode

START = 1_780_000_000.0
METRIC = "val/accuracy"
HOSTILE = ["sgd", "</script><script>alert('x')</script>", 'a "quoted" 🙂', "<b>%{x}</b> & $y$"]
SCALES: list[dict[str, Any]] = [
    {"data": 0.1, "classes": 2, "epochs": 3.0},
    {"data": 0.3, "classes": 5, "epochs": 6.0},
    {"data": 1.0, "classes": None, "epochs": 10.0},
]
NAMES = ["coarse", "medium", "fine"]


def make_sweep(
    path: Path,
    *,
    trials: Sequence[int] = (64, 24, 12),
    finals: int = 9,
    steps: int | None = None,
    done: float = 1.0,
    tasks: int = 4,
    hostile: bool = False,
    seed: int = 0,
) -> Path:
    """Write a sweep's directory, without its results.

    Args:
        path: where.
        trials: how many, for each of at most three stages.
        finals: final runs, in threes of one setting; the ensemble is there when there are any.
        steps: reports of each trial; otherwise as many as the stage has epochs.
        done: the part of all trials that have run; later stages are not planned before.
        tasks: record files of each stage.
        hostile: parameters, names and errors as a malicious or careless user has them.
        seed: of everything.
    """
    rng, directory = random.Random(seed), SweepDirectory(path)
    space = first_space(hostile)
    phases = [_phase(STAGE, NAMES[i], count, SCALES[i], tasks) for i, count in enumerate(trials)]
    if finals:
        phases.append(_phase("final", "final", finals, {**SCALES[-1], "epochs": 20.0}, tasks))
        phases.append(_phase("ensemble", "ensemble", 1, SCALES[-1], 1))
    write_plan(directory, phases, "<i>digits</i> & </title>🙂" if hostile else "digits")
    left = math.ceil(done * sum(phase["trials"] for phase in phases[: len(trials) + bool(finals)]))
    before: list[tuple[TrialSpec, float]] = []
    for phase in phases:
        if phase["kind"] == "ensemble" or (left <= 0 and phase is not phases[0]):
            break
        folder = directory.phase(phase["kind"], phase["name"])
        if phase["kind"] == STAGE:
            space = narrowed(space, before)
            write_json(folder.space, {"stage": phase["name"], "parameters": space})
        specs = specs_of(phase, space, before, rng)
        write_trials(folder.trials, specs)
        count = int(steps or phase["scale"]["epochs"])
        scored = write_records(folder.records, specs[:left], phase, count, tasks, rng, hostile)
        left -= len(specs)
        before = sorted(scored, key=lambda pair: -pair[1])
    if finals and left >= 0 and done >= 1:
        write_ensemble(directory, before)
    return path


def first_space(hostile: bool) -> dict[str, dict[str, Any]]:
    reason = "as <b>declared</b> & so on" if hostile else "as declared"
    space: dict[str, dict[str, Any]] = {
        "optimizer.lr": {"kind": "float", "low": 1e-4, "high": 1.0, "log": True, "reason": reason},
        "model.width": {"kind": "choice", "values": [16, 32, 64, 128], "reason": reason},
        "model.dropout": {"kind": "float", "low": 0.0, "high": 0.7, "log": False, "reason": reason},
        "model.layers": {"kind": "int", "low": 1, "high": 9, "log": False, "reason": reason},
    }
    if hostile:
        space["<img src=x onerror=alert(1)>"] = {"kind": "choice", "values": HOSTILE, "reason": reason}
        space["mixed"] = {"kind": "choice", "values": [True, None, 1.5, "é"], "reason": reason}
    return space


def _phase(kind: str, name: str, trials: int, scale: Mapping[str, Any], tasks: int) -> dict[str, Any]:
    samples = round(1437 * scale["data"] * (scale["classes"] or 10) / 10)
    cost = {"trained_samples": int(trials * samples * scale["epochs"]), "seconds": None}
    return {
        "kind": kind,
        "name": name,
        "trials": trials,
        "samples": samples,
        "scale": dict(scale),
        "tasks": tasks,
        "cost": cost,
    }


def write_plan(directory: SweepDirectory, phases: list[dict[str, Any]], name: str) -> None:
    plan = {
        "version": 1,
        "uid": "a1b2c3",
        "name": name,
        "created": START,
        "metric": {"name": METRIC, "mode": "max"},
        "phases": phases,
        "total": {"trained_samples": sum(phase["cost"]["trained_samples"] for phase in phases)},
    }
    write_json(directory.plan, plan)


def narrowed(
    space: dict[str, dict[str, Any]], before: list[tuple[TrialSpec, float]]
) -> dict[str, dict[str, Any]]:
    if not before:
        return space
    best = [spec for spec, _ in before[: max(3, len(before) // 4)]]
    after: dict[str, dict[str, Any]] = {}
    for name, spec in space.items():
        values = [trial.params[name] for trial in best]
        if spec["kind"] == "choice":
            kept = [value for value in spec["values"] if value in values]
            after[name] = {**spec, "values": kept, "reason": f"{len(kept)} of them among the best quarter"}
        else:
            reason = f"the best {len(best)} trials lie here"
            after[name] = {**spec, "low": min(values), "high": max(values) or 0.1, "reason": reason}
    return after


def specs_of(
    phase: Mapping[str, Any],
    space: Mapping[str, Mapping[str, Any]],
    before: list[tuple[TrialSpec, float]],
    rng: random.Random,
) -> list[TrialSpec]:
    specs = []
    for number in range(phase["trials"]):
        trial_id, origin, parent = f"{phase['name']}-{number:05d}", "sampled", ""
        params: Mapping[str, Any] = {name: sample(spec, rng) for name, spec in space.items()}
        if phase["kind"] == "final":
            chosen = before[number // 3][0]
            origin, parent, params = "survivor", chosen.trial_id, chosen.params
        elif before and number < phase["trials"] // 2:
            chosen = before[number if number % 4 else -1 - number][0]
            origin, parent, params = "survivor" if number % 4 else "control", chosen.trial_id, chosen.params
        setting = sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()[:8]
        specs.append(
            TrialSpec(
                trial_id=trial_id,
                setting_id=setting,
                params=params,
                seed=number % 3,
                origin=origin,
                parent=parent,
            )
        )
    return specs


def sample(spec: Mapping[str, Any], rng: random.Random) -> Any:
    if spec["kind"] == "choice":
        return rng.choice(spec["values"])
    if spec["kind"] == "int":
        return rng.randint(spec["low"], spec["high"])
    if spec["log"]:
        return 10 ** rng.uniform(math.log10(spec["low"]), math.log10(spec["high"]))
    return rng.uniform(spec["low"], spec["high"])


def quality(params: Mapping[str, Any]) -> float:
    """Between 0 and 1, the best learning rate being 10^-2."""
    lr, width, dropout = (params[key] for key in ("optimizer.lr", "model.width", "model.dropout"))
    return float(0.98 - 0.09 * (math.log10(lr) + 2) ** 2 - 0.3 / width**0.8 - 0.2 * (dropout - 0.15) ** 2)


def write_records(
    folder: Path,
    specs: Sequence[TrialSpec],
    phase: Mapping[str, Any],
    steps: int,
    tasks: int,
    rng: random.Random,
    hostile: bool,
) -> list[tuple[TrialSpec, float]]:
    folder.mkdir(parents=True, exist_ok=True)
    scored = []
    for task in range(tasks):
        clock = START + task
        lines = [
            {
                "kind": "task",
                "token": "t",
                "submission": 1,
                "task": task,
                "attempt": 1,
                "host": f"n{task}",
                "pid": 7,
                "slurm_job_id": f"{41 + task}",
                "gpus": 1,
                "cpus": 2,
                "time": clock,
            }
        ]
        for number, spec in list(enumerate(specs))[task::tasks]:
            more, score = trial_lines(spec, phase, steps, clock, number, rng, hostile)
            lines += more
            clock = float(str(lines[-1]["time"]))
            if not math.isnan(score):
                scored.append((spec, score))
        (folder / f"1-{task}-1.jsonl").write_text("".join(encode(line) for line in lines))
    return scored


def trial_lines(
    spec: TrialSpec,
    phase: Mapping[str, Any],
    steps: int,
    clock: float,
    number: int,
    rng: random.Random,
    hostile: bool,
) -> tuple[list[dict[str, Any]], float]:
    """The lines of one trial; every 17th fails, and a learning rate over 0.5 diverges."""
    trial, lines = spec.trial_id, [{"kind": "start", "trial": spec.trial_id, "time": clock}]
    top = max(0.05, quality(spec.params) + rng.gauss(0, 0.01) - 0.08 * (1 - phase["scale"]["data"]))
    if number % 17 == 11 and phase["kind"] == STAGE:
        error = "Traceback ...\nValueError: " + (f"{HOSTILE[1]} \ud800 🙂" if hostile else "bad")
        outcome = {"state": "failed", "metrics": {}, "error": error, "seconds": 0.4, "time": clock + 1}
        return [*lines, {"kind": "outcome", "trial": trial, **outcome}], math.nan
    diverged = spec.params["optimizer.lr"] > 0.5
    for step in range(1, steps + 1):
        value = math.nan if diverged and step > 1 else top * (1 - 0.6 * math.exp(-2.5 * step / steps))
        metrics = {METRIC: value, "train/loss": 2.3 * (1 - value) + 0.01}
        report = {"step": step, "metrics": metrics, "time": clock + step}
        lines.append({"kind": "report", "trial": trial, **report})
    outcome = {
        "state": "diverged" if diverged else "completed",
        "metrics": {METRIC: value, "val/loss": 1 - value},
        "seconds": 1.5 * steps,
        "time": clock + steps,
    }
    lines.append({"kind": "outcome", "trial": trial, **outcome})
    return lines, value


def write_ensemble(directory: SweepDirectory, finals: list[tuple[TrialSpec, float]]) -> None:
    members = [
        {
            "trial_id": spec.trial_id,
            "setting_id": spec.setting_id,
            "seed": spec.seed,
            "step": 18 - 2 * i,
            "checkpoint": f"final/checkpoints/{spec.trial_id}/{18 - 2 * i}.pt",
            "weight": weight,
        }
        for i, ((spec, _), weight) in enumerate(zip(finals, (0.5, 0.3, 0.2), strict=False))
    ]
    best = {key: members[0][key] for key in ("trial_id", "setting_id", "step", "checkpoint")}
    write_json(
        directory.ensemble_result,
        {
            "score": "accuracy",
            "mode": "max",
            "candidates": 9,
            "combine": "greedy",
            "members": members,
            "best_single": best,
            "validation": {"best_single": 0.97, "ensemble": 0.98, "average_member": 0.96},
            "test": {"best_single": 0.96, "ensemble": 0.97},
            "test_samples": 360,
        },
    )


def run_a_failed_one_again(sweep: Path) -> str:
    """Have a trial of `coarse` that failed end well, at an objective of 0.5; returns its id."""
    rows = load_results(sweep).at("coarse")
    name = str(rows[rows["state"] == "failed"]["trial_id"].iloc[0])
    lines = [
        {"kind": "task", "token": "t", "submission": 2, "task": 0, "attempt": 1, "host": "n"},
        {"kind": "start", "trial": name, "time": 1.9e9},
        {"kind": "outcome", "trial": name, "state": "completed", "metrics": {METRIC: 0.5}, "time": 1.9e9},
    ]
    (sweep / "stages/coarse/records/2-0-1.jsonl").write_text("".join(encode(line) for line in lines))
    compact(sweep)
    return name
