"""The story of the search in words: what was tried, found and ruled out, and what is next.

Plain sentences, with nothing of how they look, from what the tables and figures of the page are made of.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from orchestrator.planning.narrowing.trust import describe
from orchestrator.plots.ladder import scale_text
from orchestrator.report import ensemble_words
from orchestrator.report.markup import number
from orchestrator.report.measured import Measured
from orchestrator.report.next_steps import next_steps
from orchestrator.report.ruled_out import ruled_out
from orchestrator.report.units import counted, duration
from orchestrator.results.analysis import failures, final_settings, planned_trials
from orchestrator.results.load import Results
from orchestrator.space.parameter import show
from orchestrator.sweep.directory import FINAL, TRAINED

MOST_SHOWN = 12  # parameters of the best setting
MATTERS, MOST_MATTER = 0.1, 4
FAMILY = ("survivor", "control", "repeat")  # trials that have their setting from another one


Said: TypeAlias = tuple[str, tuple[str, ...]]  # a sentence, and the list that follows it, if any


@dataclass(frozen=True, slots=True)
class Chapter:
    """A part of the story."""

    title: str
    said: tuple[Said, ...]


def story(results: Results, measured: Measured) -> list[Chapter]:
    """Tell the search, which may still run, from its results and what was measured of them."""
    carried = [f"{text[:1].upper()}{text[1:]}." for text in map(describe, measured.agreements)]
    forecast = measured.forecast
    more = [forecast.sentence, *forecast.caveats] if forecast is not None else []
    out = ruled_out(results.spaces, results.stages)
    chapters = [
        Chapter("What was found", _alone(_found(results, measured.shares))),
        Chapter("What is next", _alone(next_steps(results, measured.findings))),
        Chapter("What was tried", (_tried(results),)),
        Chapter("What was ruled out, and why", tuple((lead, tuple(cuts)) for lead, cuts in out)),
        Chapter("How far rankings carry over", _alone(carried)),
        Chapter("How much more data would help", _alone(more)),
    ]
    return [chapter for chapter in chapters if chapter.said]


def _alone(sentences: Iterable[str]) -> tuple[Said, ...]:
    return tuple((one, ()) for one in sentences)


def _tried(results: Results) -> Said:
    """Say what ran at which scale, how it ended, and what it cost."""
    rows = results.trials
    planned = planned_trials(results)
    stages = []
    for phase in results.plan["phases"]:
        if phase["kind"] in TRAINED and (rows["stage"] == phase["name"]).any():
            stages.append(_tried_at(results, phase, planned[phase["name"]]))
    if not stages:
        return "Nothing has been tried yet.", ()
    settings = rows["setting_id"].nunique()
    lead = f"{counted(len(rows), 'trial')} of {counted(settings, 'setting')} ended, {_spent(results)}"
    return f"{lead}:", tuple(stages)


def _tried_at(results: Results, phase: Mapping[str, Any], planned: int) -> str:
    rows = results.at(phase["name"])
    origins = rows["origin"].value_counts()
    promoted = int(sum(origins.get(origin, 0) for origin in ("survivor", "control")))
    scale = [text for text in (scale_text(phase), _samples(phase)) if text]
    on = f" on {', '.join(scale)}" if scale else ""
    of = f" of {planned:,}" if planned != len(rows) else ""
    came = f", {promoted:,} promoted from the stage before" if promoted and phase["kind"] != FINAL else ""
    states = rows["state"].value_counts()
    ended = [f"{states[state]:,} {state}" for state in ("pruned", "diverged", "failed") if state in states]
    beside = f"; {', '.join(ended)}" if ended else ""
    return f"{phase['name']}: {len(rows):,}{of} trials{on}{came}{beside}"


def _samples(phase: Mapping[str, Any]) -> str:
    return f"{phase['samples']:,} training samples" if phase.get("samples") else ""


def _spent(results: Results) -> str:
    """Return what the trials took, and what share of full-scale trials that is."""
    held = results.trials["gpu_seconds"].sum()
    seconds = float(results.trials["seconds"].sum())
    took = f"{held / 3600:.3g} GPU-hours" if held else f"{duration(seconds)} of training"
    share = results.plan.get("full_scale_share")
    if not isinstance(share, int | float) or not math.isfinite(share):
        return f"in {took}"
    return f"in {took}; the plan costs {share:.2g} of what as many trials at full scale would"


def _found(results: Results, shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    said = [*_best(results), *_mattered(shares)]
    if results.ensemble:
        said += ensemble_words.gain_sentences(results.ensemble)
        said.append(ensemble_words.room_sentence(results.ensemble))
    kinds = failures(results)
    if kinds:
        line, rows = kinds[0]
        many = sum(len(kind) for _, kind in kinds)
        of = f", {len(rows):,} of them" if len(rows) < many else ""
        said.append(f"{counted(many, 'trial')} failed{of} with: {line}")
    return [one for one in said if one]


def _best(results: Results) -> list[str]:
    """Say what the best setting is, how good, and where it comes from."""
    finals, best = final_settings(results), results.best(1)
    if best.empty:
        ended = len(results.trials)
        return [f"No trial has a result yet, of {counted(ended, 'trial')} that ended." if ended else ""]
    row = best.iloc[0]
    stage, value = str(row["stage"]), number(float(row["objective"]))
    mean = finals[f"mean {results.metric}"] if len(finals) else None
    if mean is not None and np.isfinite(mean.iloc[0]):
        runs = results.trials[results.trials["setting_id"] == finals.index[0]]
        row = runs[runs["stage"] == stage].iloc[0] if (runs["stage"] == stage).any() else row
        first = finals.iloc[0]
        many, spread = int(first["seeds"]), float(first["std"])
        over = f" (mean of {many} seeds, which spread by {spread:.2g})" if many > 1 else " (one seed)"
        reached = f"{results.metric} {number(float(mean.iloc[0]))}{over}"
        lead = f"The best setting of the final runs reaches {reached}"
    else:
        lead = f"The best of {stage}, the last stage with results, reaches {results.metric} {value}"
    params = {name: row[f"param.{name}"] for name in results.parameters if _there(row[f"param.{name}"])}
    shown = [f"{name} {show(value)}" for name, value in list(params.items())[:MOST_SHOWN]]
    more = f" and {len(params) - MOST_SHOWN} more" if len(params) > MOST_SHOWN else ""
    with_ = f" with {', '.join(shown)}{more}" if shown else ""
    return [f"{lead}{with_}.", _ancestry(results, row)]


def _there(value: object) -> bool:
    return value is not None and value == value


def _ancestry(results: Results, row: Any) -> str:
    """Say as which trial of the first stage the best setting began; empty where it was drawn where it won."""
    known = results.trials.set_index("trial_id")[["stage", "parent", "origin"]]
    known = known[~known.index.duplicated()]
    way = [str(row["trial_id"])]
    while (parent := str(known.at[way[-1], "parent"])) in known.index and parent not in way:
        if known.at[way[-1], "origin"] not in FAMILY:
            break
        way.append(parent)
    if len(way) < 2:
        return ""
    first, *again = reversed(way)
    stage = str(known.at[first, "stage"])
    control = "control" in set(known.loc[way, "origin"])
    how = ", promoted on the way as a control, not for its rank" if control else ""
    return f"It was first tried at {stage} ({first}) and ran again as {_and(again)}{how}."


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _mattered(shares: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Say what the results of the first and the last stage that can tell vary by."""
    said = []
    for stage in dict.fromkeys([*list(shares)[:1], *list(shares)[-1:]]):
        ordered = sorted(shares[stage].items(), key=lambda item: -item[1])
        large = [f"{name} ({share:.0%})" for name, share in ordered if share >= MATTERS][:MOST_MATTER]
        if large:
            said.append(f"at {stage} {', '.join(large)}")
    return [f"What the results vary by most: {'; '.join(said)}."] if said else []
