"""Promotion: which settings of one stage run again in the next, and the settings of a whole phase."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.planning.each_value import best_of_each, missing_values
from orchestrator.planning.finished import Finished
from orchestrator.planning.merit import Merit, merits
from orchestrator.planning.narrowing.trust import Agreement, carries_over, survivors_wanted
from orchestrator.planning.plan import Phase
from orchestrator.planning.sampling.observation import Observation
from orchestrator.planning.sampling.samplers import sample
from orchestrator.space import CHOICE, Parameter, setting_id
from orchestrator.sweep.directory import FINAL, TrialSpec

SURVIVOR, CONTROL, SAMPLED, REPEAT, START = "survivor", "control", "sampled", "repeat", "start_from"
# Two settings are alike when no parameter differs by more than this share of its range.
ALIKE = 0.03


@dataclass(frozen=True, kw_only=True, slots=True)
class Known:
    """All that is known when trials are drawn.

    Attributes:
        before: the finished trials of the stage before; empty for the first stage.
        earlier: those of the stages before that one.
        late: settings of those stages that came in too late to go on, and must not be lost (`came_late`).
        own: the finished trials of the stage's own earlier waves.
        history: all results of all stages, for samplers that learn.
        prior: results of past studies, each at a scale of its own, for those that go by the order alone.
        trust: how far rankings carry over between the last two scales; None: not measured.
        start: settings to try first.
        drawn: the trials that the phase has already, those without a result among them.
        scale: what a trial of the stage trains, as a share of a full-scale training.
    """

    before: Sequence[Finished] = ()
    earlier: Sequence[Finished] = ()
    late: Sequence[Merit] = ()
    own: Sequence[Finished] = ()
    history: Sequence[Observation] = ()
    prior: Sequence[Observation] = ()
    trust: Agreement | None = None
    start: Sequence[Mapping[str, Any]] = ()
    drawn: Sequence[TrialSpec] = ()
    scale: float | None = None


@dataclass(frozen=True, slots=True)
class _Pick:
    params: Mapping[str, Any]
    origin: str
    parent: str = ""


def wave_trials(
    phase: Phase, wave: int, space: Sequence[Parameter], seed: int, known: Known
) -> list[TrialSpec]:
    """Work out one wave of a stage's trials.

    The first wave begins with the settings to try first, or with survivors and controls of the stage before;
    the wave of repeats runs again, from other seeds, the settings that the next phase will choose from.

    Args:
        phase: the stage.
        wave: counted from 0; `phase.waves` is the wave of repeats.
        space: its ranges.
        seed: the sweep's seed.
        known: what is known by now.
    """
    if wave == phase.waves:
        best = promoted(phase.sampler, space, known.own, phase.repeats, known.history, diverse=False)
        picks = [_Pick(merit.params, REPEAT, merit.trial_id) for merit in best]
    else:
        picks = _promotions(phase, space, known) if wave == 0 else []
        count = phase.wave_sizes[wave] - len(picks)
        picks += _new(phase, space, count, derive_seed(seed, phase.name, wave), known, picks)
    return [
        TrialSpec(
            trial_id=f"{phase.name}-{index:05d}",
            setting_id=setting_id(pick.params),
            params=dict(pick.params),
            seed=derive_seed(seed, phase.name, index),
            origin=pick.origin,
            parent=pick.parent,
        )
        for index, pick in enumerate(picks, len(known.drawn))
    ]


def final_trials(
    phase: Phase,
    seeds: int,
    seed: int,
    space: Sequence[Parameter],
    sampler: str,
    known: Known,
    wave: int = 0,
    of_each: str | None = None,
) -> list[TrialSpec]:
    """Work out one wave of the final runs: its settings times the seeds, every setting's first seed first.

    The first wave has the best settings so far. In a later one the model says, by what these gave at full
    scale, which settings are likely to be better still, new ones among them; other samplers go on with the
    next best.

    Args:
        phase: the final runs.
        seeds: runs of each setting.
        seed: of the first run; the others count on.
        space: the ranges of the last stage.
        sampler: of the last stage: `model` has the model say which settings are best.
        known: `before` is the last stage; the model may also take settings that ran in earlier ones alone.
            `own` and `drawn` are the final runs of earlier waves.
        wave: counted from 0.
        of_each: a parameter of which the best setting of each value comes before the second best of any.
    """
    count = phase.wave_sizes[wave] // seeds
    wave_seed = derive_seed(seed, FINAL, wave)
    picks = _final_picks(count, wave_seed, space, sampler, known, of_each) if count else []
    return [
        TrialSpec(
            trial_id=f"{FINAL}-{len(known.drawn) + repeat * len(picks) + index:05d}",
            setting_id=setting_id(pick.params),
            params=dict(pick.params),
            seed=seed + repeat,
            origin=pick.origin,
            parent=pick.parent,
        )
        for repeat in range(seeds)
        for index, pick in enumerate(picks)
    ]


def _final_picks(
    count: int,
    seed: int,
    space: Sequence[Parameter],
    sampler: str,
    known: Known,
    of_each: str | None,
) -> list[_Pick]:
    """Return so many settings that have no final run yet."""
    taken = {spec.setting_id: spec.params for spec in known.drawn}
    if known.own and sampler == "model":
        from orchestrator.planning.sampling.model import improve

        # A value that has no final run yet comes before what the model would like.
        first: list[Merit] = []
        if of_each:
            others = _next_best(count, space, sampler, known, of_each)
            first = missing_values(of_each, others, taken.values())
        begun = [merit.params for merit in first]
        lower = _untaken([*known.earlier, *known.before], taken)
        better = improve(
            space, count - len(begun), seed, known.history, [spec.params for spec in lower.values()],
            ran=[item.spec.params for item in known.own], taken=[*taken.values(), *begun],
        ) if count > len(begun) else []  # fmt: skip
        if better or len(begun) == count:
            return [_pick(params, lower) for params in [*begun, *better]]
    others = _next_best(count, space, sampler, known, of_each)
    return [_Pick(merit.params, SURVIVOR, merit.trial_id) for merit in others]


def _next_best(
    count: int, space: Sequence[Parameter], sampler: str, known: Known, of_each: str | None
) -> list[Merit]:
    """Return the best settings that have no final run yet, by what ran in the stages."""
    taken = {spec.setting_id for spec in known.drawn}
    best = promoted(
        sampler, space, known.before, len(taken) + count, known.history, known.earlier, of_each=of_each
    )
    return [merit for merit in best if setting_id(merit.params) not in taken][:count]


def promoted(
    sampler: str,
    space: Sequence[Parameter],
    finished: Sequence[Finished],
    count: int,
    history: Sequence[Observation],
    earlier: Sequence[Finished] = (),
    *,
    diverse: bool = True,
    of_each: str | None = None,
) -> list[Merit]:
    """Return the best settings that did not diverge, by their merit, not by their luckiest result.

    Args:
        sampler: `model` ranks by what the model expects at full scale, others by the settings' own results.
        space: the ranges, for how far apart settings are.
        finished: the stage's results.
        count: how many settings.
        history: all results, for the model.
        earlier: results at smaller scales, whose settings the model may prefer to all of `finished`.
        diverse: leave out a setting that is hardly different from a better one while there are others.
        of_each: a parameter whose values take turns; one that `finished` no longer has comes from `earlier`.
    """
    ranked = [merit for merit in merits(finished) if math.isfinite(merit.mean)]
    if sampler == "model":
        names = {setting_id(merit.params) for merit in ranked}
        others = [merit for merit in merits(earlier) if math.isfinite(merit.mean)]
        ranked += [merit for merit in others if setting_id(merit.params) not in names]
        ranked = _by_model(space, ranked, history)
    if of_each is not None:
        lower = [merit for merit in merits(earlier) if math.isfinite(merit.mean)]
        have = [merit.params for merit in ranked]
        ranked += missing_values(of_each, lower, have)
        return best_of_each(of_each, ranked, count, lambda group, most: _diverse(space, group, most))
    return _diverse(space, ranked, count) if diverse else ranked[:count]


def _by_model(space: Sequence[Parameter], ranked: list[Merit], history: Sequence[Observation]) -> list[Merit]:
    from orchestrator.planning.sampling.model import learn

    model = learn(space, history)
    if model is None:
        return ranked
    expected = model.mean([merit.params for merit in ranked])
    return [ranked[index] for index in sorted(range(len(ranked)), key=lambda index: -expected[index])]


def _diverse(space: Sequence[Parameter], ranked: Sequence[Merit], count: int) -> list[Merit]:
    """Return the first `count` that differ from each other; the alike ones only when there are no others."""
    chosen: list[Merit] = []
    alike: list[Merit] = []
    for merit in ranked:
        if len(chosen) == count:
            break
        same = any(_alike(space, merit.params, other.params) for other in chosen)
        (alike if same else chosen).append(merit)
    # The alike ones are in order already.
    return [*chosen, *alike][:count]


def _alike(space: Sequence[Parameter], one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two settings are nearly the same."""
    for parameter in space:
        a, b = one.get(parameter.name), other.get(parameter.name)
        if (parameter.name in one) != (parameter.name in other):
            return False
        if parameter.name not in one:
            continue
        if parameter.kind == CHOICE or not isinstance(a, int | float) or not isinstance(b, int | float):
            if (type(a), a) != (type(b), b):
                return False
        elif abs(parameter.to_unit(a) - parameter.to_unit(b)) > ALIKE:
            return False
    return True


def _promotions(phase: Phase, space: Sequence[Parameter], known: Known) -> list[_Pick]:
    """Return what a stage begins with: settings to try first, or survivors and controls."""
    if not known.before:
        return [_Pick(params, START) for params in known.start[: phase.wave_sizes[0]]]
    late = [] if phase.sampler == "model" else known.late[: phase.wave_sizes[0]]
    room = phase.wave_sizes[0] - len(late)
    count = min(survivors_wanted(phase.survivors, known.trust, phase.trials), room)
    everything = [merit for merit in merits(known.before) if math.isfinite(merit.mean)]
    if carries_over(known.trust):
        best = promoted(phase.sampler, space, known.before, count, known.history)
    else:
        # The ranking says nothing here: any of them may be good, and the best seen is as good a guess as any.
        best = [*everything[:1], *_spread(everything[1:], count - 1)]
    taken = {setting_id(merit.params) for merit in best}
    rest = [merit for merit in everything if setting_id(merit.params) not in taken]
    others = _spread(rest, min(phase.controls, room - len(best)))
    return [_Pick(merit.params, SURVIVOR, merit.trial_id) for merit in [*late, *best]] + [
        _Pick(merit.params, CONTROL, merit.trial_id) for merit in others
    ]


def came_late(stages: Sequence[Sequence[Finished]], drawn: Sequence[Collection[str]]) -> list[Merit]:
    """Return settings that came in after the stage that follows theirs had been drawn, the best of theirs.

    The best by then always goes on. What is better than all that went on, and did not, was not in yet.
    The model needs no telling: it learns from all results, and draws near the good ones.

    Args:
        stages: the results of each stage, the oldest first; of the last one nothing has gone on yet.
        drawn: of each stage the settings of all its trials.
    """
    late: list[Merit] = []
    for place, results in enumerate(stages[:-1]):
        ranked = [merit for merit in merits(results) if merit.runs]
        best = max((m.mean for m in ranked if setting_id(m.params) in drawn[place + 1]), default=math.inf)
        gone_on = set().union(*drawn[place + 1 :])
        late += [m for m in ranked if m.mean > best and setting_id(m.params) not in gone_on]
    return late


def _spread(ranked: Sequence[Merit], count: int) -> list[Merit]:
    """Return settings from all over a ranking."""
    count = max(0, min(count, len(ranked)))
    return [ranked[int((i + 0.5) * len(ranked) / count)] for i in range(count)]


def _new(
    phase: Phase, space: Sequence[Parameter], count: int, seed: int, known: Known, picks: Sequence[_Pick]
) -> list[_Pick]:
    """Return what else a wave runs: new settings, and with the model also settings of the stage before."""
    taken = [spec.params for spec in known.drawn] + [pick.params for pick in picks]
    if phase.sampler != "model":
        history = [*known.prior, *known.history]
        fresh = sample(space, count, phase.sampler, seed, history, scale=known.scale, taken=taken)
        return [_Pick(params, SAMPLED) for params in fresh]
    from orchestrator.planning.sampling.model import propose

    lower = _untaken(known.before, {setting_id(params) for params in taken})
    fresh = propose(space, count, seed, known.history, [spec.params for spec in lower.values()], taken=taken)
    return [_pick(params, lower) for params in fresh]


def _untaken(finished: Sequence[Finished], taken: Collection[str]) -> dict[str, TrialSpec]:
    """Return the settings that did not diverge and are not taken, each with the last trial of it."""
    return {
        item.spec.setting_id: item.spec
        for item in finished
        if item.spec.setting_id not in taken and math.isfinite(item.objective)
    }


def _pick(params: Mapping[str, Any], lower: Mapping[str, TrialSpec]) -> _Pick:
    """Say of a setting that the model proposes whether it ran at a smaller scale."""
    known = lower.get(setting_id(params))
    return _Pick(params, SURVIVOR, known.trial_id) if known else _Pick(params, SAMPLED)


def derive_seed(*parts: object) -> int:
    """Derive a seed that is the same on any machine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1
