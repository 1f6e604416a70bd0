"""`stages: auto`: completing a sweep's config by the ladder that its budget pays for, with the reasons."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace

from orchestrator.data.size import DatasetSize
from orchestrator.errors import UserError
from orchestrator.planning import auto
from orchestrator.planning.auto import AutoLadder, AutoStage, BudgetTooSmall, auto_stages
from orchestrator.planning.budget import (
    CALIBRATION_TRIALS,
    SAMPLES,
    TOLERANCE,
    TRAININGS,
    Budget,
    check_unit,
    parse_budget,
    show_amount,
)
from orchestrator.planning.cost import FullScale, Price, epoch_samples
from orchestrator.planning.plan import Scale
from orchestrator.schema import StageConfig, SweepConfig, final_runs, trials_at_once

# What a budget of hours is taken to pay until the first trials have shown what they take.
ASSUMED_TRAININGS = 20.0
# A larger share of a budget than this that stays unspent is told.
LARGE_REST = 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Expanded:
    """A config with every stage and count in it; with `auto` from the budget, for the reasons in `notes`."""

    config: SweepConfig
    budget: Budget | None = None
    auto: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Worth:
    """A budget in full-scale trainings, and the share of one that no scale makes smaller."""

    trainings: float
    overhead: float = 0.0
    # nothing says yet what a training takes
    assumed: bool = False


def expand(config: SweepConfig, size: DatasetSize, file: object) -> Expanded:
    """Complete a config by what its budget says; without a budget it gets its defaults alone.

    Args:
        config: as it was composed; it is not changed.
        size: of its dataset.
        file: for errors.

    Raises:
        UserError: the budget can't be read, is of hours that nothing spends, or pays too little.
    """
    config = copy.deepcopy(config)
    if config.budget is None:
        _check_counts(config, file)
        config.final.top, config.final.seeds = final_runs(config.final)
        return Expanded(config=config)
    budget = parse_budget(config.budget, file=file)
    price = Price.of(config)
    check_unit(budget, price.unit, file)
    _check_counts(config, file)
    if config.stages:
        config.final.top, config.final.seeds = final_runs(config.final)
        notes = _calibrate(config, budget, price)
        return Expanded(config=config, budget=budget, notes=notes)
    full = FullScale.of(config, size)
    worth = _worth(budget, price, full, file)
    ladder = _fit(_ladder(config, size, budget, worth, full, file), config, size, full, worth)
    config.stages = {stage.name: _stage(stage) for stage in ladder.stages}
    asked_share = config.final.share
    waves = config.final.waves or ladder.final_waves
    config.final = replace(config.final, top=ladder.top, seeds=ladder.seeds, waves=waves, share=None)
    notes = (
        _about_budget(budget, worth, price, full),
        *_about_finals(ladder, waves, worth.trainings, asked_share),
        _about_stages(ladder),
        *_about_unspent(ladder, worth.trainings),
        *_about_left_out(ladder),
        *_calibrate(config, budget, price),
    )
    return Expanded(config=config, budget=budget, auto=True, notes=notes)


def _check_counts(config: SweepConfig, file: object) -> None:
    """Refuse counts of the final runs that make no sense, before anything is worked out from them."""
    final = config.final
    counts = ("top", final.top, 0), ("seeds", final.seeds, 1), ("epochs", final.epochs, 1)
    for key, value, least in (*counts, ("waves", final.waves, 1)):
        if value is not None and value < least:
            raise UserError(f"{value} is too few; the least is {least}", file=file, key=f"final.{key}")
    if final.share is None:
        return
    if not 0 < final.share < 1:
        problem = f"{final.share:g} is no share of the budget"
        raise UserError(problem, file=file, key="final.share", hint="Write 0.3 for three tenths")
    if config.budget is None or config.stages:
        raise UserError(
            "there is no budget to share: the stages say what they cost", file=file, key="final.share",
            hint="Give a budget and write stages: auto, or leave it out",
        )  # fmt: skip
    if final.top is not None and (final.seeds is not None or final.top == 0):
        raise UserError(
            f"top and seeds say already that there are {final.top * (final.seeds or 1)} final runs",
            file=file, key="final.share", hint="Leave out the share, or one of the two",
        )  # fmt: skip


def _worth(budget: Budget, price: Price, full: FullScale, file: object) -> _Worth:
    """Convert a budget to full-scale trainings."""
    if budget.unit == TRAININGS:
        return _Worth(trainings=budget.amount)
    trained = full.trained_samples
    if budget.unit == SAMPLES:
        if not trained:
            unknown = "the epochs of a training are" if full.samples else "the dataset's size is"
            raise UserError(
                f"{unknown} not known, so samples can't be counted", file=file, key="budget",
                hint="Write it as a number of trainings: budget: 20 trainings",
            )  # fmt: skip
        return _Worth(trainings=budget.amount / trained)
    seconds = training_seconds(price, full)
    if not seconds:
        return _Worth(trainings=ASSUMED_TRAININGS, assumed=True)
    startup = price.startup_seconds or 0.0
    # A share of exactly 1 would mean that no scale is cheaper than another.
    overhead = min(0.999, startup / seconds)
    return _Worth(trainings=budget.amount * 3600 / (seconds * price.share), overhead=overhead)


def training_seconds(price: Price, full: FullScale) -> float | None:
    """Return the seconds of one full-scale training by the declared price; None where that is not known."""
    if price.sample_seconds is None:
        return price.startup_seconds
    if full.trained_samples is None:
        return None
    return (price.startup_seconds or 0.0) + price.sample_seconds * full.trained_samples


def _ladder(
    config: SweepConfig, size: DatasetSize, budget: Budget, worth: _Worth, full: FullScale, file: object
) -> AutoLadder:
    places, final = config.jobs.scale, config.final
    epochs = math.floor(full.epochs) if full.epochs and full.epochs >= 1 else None
    if "data" not in places and ("epochs" not in places or epochs is None):
        raise UserError(
            "the job has no place for data or epochs, so no trial is cheaper than a full-scale one",
            file=file, key="stages",
            hint="Name the keys of its config under jobs.scale: {data: ..., epochs: ...}",
        )  # fmt: skip
    try:
        return auto_stages(
            worth.trainings, full.samples, epochs if "epochs" in places else None, size.classes,
            data="data" in places, overhead=worth.overhead,
            at_once=config.slurm.tasks_at_once * trials_at_once(config.slurm),
            top=final.top, seeds=final.seeds, share=final.share,
        )  # fmt: skip
    except BudgetTooSmall as small:
        raise _too_small(budget, worth, small, final.top, final.seeds, file) from None


def _too_small(
    budget: Budget, worth: _Worth, small: BudgetTooSmall, top: int | None, seeds: int | None, file: object
) -> UserError:
    """Say what a budget would buy, and the smallest that works."""
    unit = budget.amount / worth.trainings
    count = (1 if top is None else top) * (seeds or 1)
    finals = "one full-scale run" if count == 1 else f"{count} full-scale runs"
    wanted, bought = f"{finals} ({show_amount(unit * count)}) and a search before", ", and no final run"
    fewer = " Fewer final runs cost less: final.top, final.seeds." if count > 1 else ""
    fewer += " Without final runs: final.top=0"
    if not count:
        wanted, bought, fewer = f"a first stage of {auto.LEAST_FIRST} trials", "", ""
    # Rounded up, so that the amount in the message works.
    digits = 2 - math.floor(math.log10(small.least * unit))
    least = math.ceil(small.least * unit * 10**digits) / 10**digits
    return UserError(
        f"{budget.show()} can't pay for {wanted}; it would buy {small.trials} trials at "
        f"{_of_full(small.scale)}{bought}",
        file=file, key="budget", hint=f"The smallest that works is {budget.show(least)}.{fewer}",
    )  # fmt: skip


def _stage(stage: AutoStage) -> StageConfig:
    return StageConfig(
        trials=stage.trials, data=stage.rung.data, epochs=stage.rung.epochs, sampler=auto.SAMPLER,
        waves=stage.waves, survivors=stage.survivors, controls=stage.controls, repeats=stage.repeats,
        close=auto.CLOSE, prune=auto.PRUNE,
    )  # fmt: skip


def _fit(
    ladder: AutoLadder, config: SweepConfig, size: DatasetSize, full: FullScale, worth: _Worth
) -> AutoLadder:
    """Take trials from the first stage until the ladder fits: whole samples of each class round upwards."""
    costs = []
    for stage in ladder.stages:
        scale = Scale(data=stage.rung.data, epochs=stage.rung.epochs)
        samples = epoch_samples(config, size, scale)
        share = full.share(scale, samples, stage.rung.epochs or full.epochs) or 1.0
        costs.append(worth.overhead + (1 - worth.overhead) * share)
    runs = [stage.trials + stage.repeats for stage in ladder.stages]
    spent = sum(count * cost for count, cost in zip(runs, costs, strict=True)) + ladder.top * ladder.seeds
    over = max(0, math.ceil((spent - worth.trainings) / costs[0] - TOLERANCE))
    runs[0] = max(1 + ladder.stages[0].repeats, runs[0] - over)
    stages = tuple(
        replace(stage, trials=count - stage.repeats, cost=count * cost)
        for stage, count, cost in zip(ladder.stages, runs, costs, strict=True)
    )
    # Where one stage is all there is, it may have just as many trials as there are final runs to choose.
    top = min(ladder.top, stages[-1].trials) if config.final.top is None else ladder.top
    return replace(ladder, stages=stages, top=top)


def _calibrate(config: SweepConfig, budget: Budget, price: Price) -> tuple[str, ...]:
    """Have hours measured on the actual device, by the first wave of all: a declared price may be wrong."""
    if not budget.in_hours:
        return ()
    declared = price.startup_seconds is not None or price.sample_seconds is not None
    name, stage = next(iter(config.stages.items()))
    # A grid is drawn at once.
    grid = stage.sampler == "grid"
    if stage.trials > CALIBRATION_TRIALS and not grid:
        stage.waves = max(2, stage.waves)
    unsure = "was not measured on this GPU" if price.unit == "GPU" else "may be wrong on these cores"
    why = f"jobs.cost {unsure}" if declared else "What a trial takes is not known"
    first = f"the whole grid of '{name}'" if grid else f"the first wave of '{name}'"
    return (
        f"{why}, so {first} measures it, and what follows is priced anew: what the budget doesn't pay for is "
        "not run.",
    )


def _about_budget(budget: Budget, worth: _Worth, price: Price, full: FullScale) -> str:
    size = f"{full.samples:,} samples" if full.samples is not None else "the whole of the data"
    epochs = f" for {full.epochs:g} epoch{'s' * (full.epochs != 1)}" if full.epochs is not None else ""
    training = f"one at full scale is {size}{epochs}"
    if worth.assumed:
        return (
            f"The budget is {budget.show()}. Until the first trials are timed it is taken to pay for "
            f"{show_amount(worth.trainings)} trainings ({training})."
        )
    if budget.unit == TRAININGS:
        return f"The budget is {budget.show()}: {training}."
    seconds = training_seconds(price, full)
    taking = f", about {seconds:.3g} seconds" if budget.in_hours and seconds else ""
    return f"The budget is {budget.show()}, {show_amount(worth.trainings)} trainings: {training}{taking}."


def _about_finals(ladder: AutoLadder, waves: int, trainings: float, asked: float | None) -> tuple[str, ...]:
    if not ladder.top:
        last = _of_full(ladder.stages[-1].rung.scale)
        return (f"There are no final runs (final.top is 0), and the last stage is at {last}.",)
    count = ladder.top * ladder.seeds
    settings = "the best setting" if ladder.top == 1 else f"each of the best {ladder.top} settings"
    seeds = f"{ladder.seeds} seed{'s' * (ladder.seeds > 1)}"
    part = f"{count / trainings:.0%}" if count > 0.01 * trainings else "less than 1%"
    wish = "" if asked is None else f"; {asked:.0%} was asked for"
    chosen = "" if waves == 1 else f", chosen in {waves} waves, each by what full scale gave until then"
    return (
        f"The final runs get {count} of {_trainings(trainings)} ({part}{wish}): {settings} from {seeds}"
        f"{chosen}.",
    )


def _about_stages(ladder: AutoLadder) -> str:
    stages = ladder.stages
    each = ladder.exploration / len(stages)
    parts = "; ".join(f"'{s.name}' {s.trials + s.repeats:,} trials at {_scale(s)}" for s in stages)
    shared = f", in equal parts, {show_amount(each)} a stage" if len(stages) > 1 else ""
    unspent = ladder.exploration - sum(stage.cost for stage in stages)
    capped = (
        f" More than {auto.MOST_TRIALS:,} at one scale find little, so {_trainings(unspent)} stay unspent."
        if _capped(ladder)
        else ""
    )
    return f"The search gets {_trainings(ladder.exploration)}{shared}: {parts}.{capped}"


def _capped(ladder: AutoLadder) -> bool:
    return any(stage.trials + stage.repeats >= auto.MOST_TRIALS for stage in ladder.stages)


def _about_unspent(ladder: AutoLadder, trainings: float) -> tuple[str, ...]:
    """Say so where much of a budget buys nothing, for another reason than the most trials of a scale."""
    unspent = trainings - ladder.cost
    if _capped(ladder) or unspent <= LARGE_REST * trainings:
        return ()
    return (
        f"{show_amount(unspent)} of {_trainings(trainings)} ({unspent / trainings:.0%}) stay unspent: they "
        "pay for no further trial.",
    )


def _trainings(amount: float) -> str:
    return Budget(amount=amount, unit=TRAININGS).show()


def _scale(stage: AutoStage) -> str:
    rung = stage.rung
    epochs = "" if rung.epochs is None else f", {rung.epochs} epoch{'s' * (rung.epochs > 1)}"
    return f"{_of_full(rung.scale)} ({_percent(rung.data)} of the data{epochs})"


def _about_left_out(ladder: AutoLadder) -> tuple[str, ...]:
    reasons = {
        "too few samples": f"would have fewer than {auto.LEAST_SAMPLES} samples, or "
        f"{auto.LEAST_CLASS_SAMPLES} of a class, and too few epochs",
        "less than one epoch": "would be less than one epoch",
        "too few trials": "would have too few trials to choose from",
        "hardly cheaper": "would be hardly cheaper than the next larger one",
    }
    return tuple(
        f"There is no stage at {_of_full(scale)}: it {reasons[why]}."
        for scale, why in sorted(ladder.left_out)
    )


def _percent(share: float) -> str:
    return "all" if share >= 1 else f"{share:.2g}" if share < 0.001 else f"{100 * share:.2g}%"


def _of_full(scale: float) -> str:
    """Return a scale as a person would say it."""
    if scale >= 0.999:
        return "full scale"
    return f"{f'1/{1 / scale:.0f}' if scale < 0.4 else f'{scale:.2g}'} of full scale"
