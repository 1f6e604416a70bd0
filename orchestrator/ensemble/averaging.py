"""Averages of weights: of checkpoints along one run, and on the straight path between two networks.

Izmailov et al. 2018, "Averaging weights leads to wider optima and better generalization" (SWA): the mean of a
run's late weights lies in the flat middle of what the run goes round. Batch normalization's statistics are
those of no checkpoint then, and are measured anew on training data (their section 3.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.optim.swa_utils import update_bn

from orchestrator.checks.seeding import seeded
from orchestrator.checks.setup import Setup, as_setup
from orchestrator.ensemble.members import AVERAGE, Candidate
from orchestrator.schema import SweepConfig
from orchestrator.training.checkpoints import UnreadableCheckpoint
from orchestrator.training.weights import State, fill, plain_names, read_weights, write_weights
from orchestrator.worker.job import load_function

# Of a run's checkpoints those that come after this share of the last one's steps: earlier ones are of a
# network that still moves, not of one that goes round an optimum.
LATE = 0.5
# About so many samples at a time while statistics are measured.
STATISTICS_BATCH = 256
_STATISTICS = ("running_mean", "running_var")


class NoAverage(Exception):
    """Weights can't be averaged, and the message says why."""


def along_run(candidates: Sequence[Candidate], config: SweepConfig, folder: Path) -> Candidate | None:
    """Average the weights of one run's late checkpoints, and write the mean as a member of its own.

    Args:
        candidates: checkpoints of one run, in any order; those that can't be read are left out.
        config: of the sweep; its job's `setup` gives the model and training samples where there are batch
            norms.
        folder: gets a file called after the run, in the form of the last checkpoint's.

    Returns:
        The average; None where fewer than two checkpoints can be averaged.

    Raises:
        NoAverage: they can't be, and it is worth telling why: they are of different models, or have batch
            norms whose statistics can't be measured.
    """
    usable = [each for each in late_checkpoints(candidates) if _is_usable(each.checkpoint)]
    if len(usable) < 2:
        return None
    last, path = usable[-1], folder / f"{usable[-1].trial_id}.pt"
    paths = [each.checkpoint for each in usable]
    write_mixture(path, paths, [1 / len(paths)] * len(paths), config, last.config)
    return replace(last, checkpoint=path, kind=AVERAGE, parts=tuple(map(str, paths)))


def late_checkpoints(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the checkpoints of a run's later part in their order, one for each step."""
    steps = {each.step: each for each in candidates}
    last = max(steps, default=0)
    return [steps[step] for step in sorted(steps) if step > LATE * last or step == last]


def _is_usable(path: Path) -> bool:
    """Say whether a checkpoint can be read and all its weights are finite numbers."""
    try:
        state = read_weights(path).state
    except UnreadableCheckpoint:
        return False
    return all(bool(torch.isfinite(value).all()) for value in state.values())


def write_mixture(
    path: Path, parts: Sequence[Path], shares: Sequence[float], config: SweepConfig, own: DictConfig
) -> None:
    """Write a weighted mean of checkpoints as a new one, its batch norms' statistics measured anew.

    Args:
        path: of the new checkpoint, which has the last part's form.
        parts: checkpoints of one model; one at a time is in memory.
        shares: of each; they sum to 1.
        config: of the sweep.
        own: of the job, with which the model is built.

    Raises:
        NoAverage: the weights don't fit together, or the statistics can't be measured.
        UnreadableCheckpoint: a part can't be read.
    """
    like = read_weights(parts[-1])
    mixed = mixture((read_weights(part).state for part in parts), shares, like.state)
    if has_statistics(mixed):
        mixed = with_statistics(mixed, config, own, path)
    write_weights(path, like, mixed)


def mixture(
    states: Iterable[Mapping[str, Tensor]], shares: Sequence[float], like: Mapping[str, Tensor]
) -> State:
    """Return the weighted mean of state dicts, added up in float64.

    Args:
        states: with the same names and shapes.
        shares: of each; they sum to 1.
        like: gives the types, and the whole numbers, of which there is no mean.

    Raises:
        NoAverage: names or shapes differ.
    """
    totals = {
        name: torch.zeros_like(value, dtype=torch.complex128 if value.is_complex() else torch.float64)
        for name, value in like.items()
        if value.is_floating_point() or value.is_complex()
    }
    for state, share in zip(states, shares, strict=True):
        if why := difference(state, like):
            raise NoAverage(why)
        for name, total in totals.items():
            total += share * state[name].to(total.dtype)
    return {
        name: totals[name].to(value.dtype) if name in totals else value.clone()
        for name, value in like.items()
    }


def difference(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """Say why two state dicts are not of the same model; empty where they may be."""
    if missing := sorted(one.keys() ^ other.keys()):
        return f"the weights are of different models: only one has '{missing[0]}'"
    for name in one:
        if one[name].shape != other[name].shape:
            shapes = f"{tuple(one[name].shape)} and {tuple(other[name].shape)}"
            return f"the weights are of different models: '{name}' is {shapes}"
    return ""


def has_statistics(state: Mapping[str, Tensor]) -> bool:
    """Say whether weights have statistics of batch normalization among them."""
    return any(name.rpartition(".")[2] in _STATISTICS for name in state)


def with_statistics(state: Mapping[str, Tensor], config: SweepConfig, own: DictConfig, path: Path) -> State:
    """Return weights with the statistics that their batch norms have on training samples.

    Args:
        state: as in a checkpoint.
        config: of the sweep; its job's `setup` gives model and samples.
        own: of the job.
        path: to name in an error.

    Raises:
        NoAverage: the job has no `setup`, or what it gives does not fit the weights.
    """
    if config.jobs.setup is None:
        raise NoAverage("there are batch norms, and without jobs.setup no data to measure them on")
    try:
        with seeded(torch.device("cuda" if torch.cuda.is_available() else "cpu")):
            setup = as_setup(load_function(config.jobs.setup, "jobs.setup")(own))
            fill(setup.model, state, path)
            measured = _measured(setup)
    # Whatever a user's own setup or model raises, the other members are still good.
    except Exception as error:
        why = f"{type(error).__name__}: {error}".splitlines()[0]
        raise NoAverage(f"the statistics of batch norms can't be measured: {why}") from error
    # Wrappers put their names in front of all, so the order is the same.
    return {name: measured[plain] for name, plain in zip(state, plain_names(state), strict=True)}


def _measured(setup: Setup) -> State:
    """Return a model's state dict after its batch norms have seen a set-up's samples, on the CPU."""
    # Dropout is at work, as it is while a training run measures them.
    torch.manual_seed(0)
    # Batches count alike, however large: they are of one size, give or take a sample.
    batches = max(1, round(len(setup.inputs) / STATISTICS_BATCH))
    update_bn(setup.inputs.tensor_split(batches), setup.model)
    return {
        name: value.detach().cpu().clone()
        for name, value in setup.model.state_dict().items()
        if isinstance(value, Tensor)
    }
