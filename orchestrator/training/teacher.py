"""Learning from what another model predicts (distilling): the teacher's predictions, and a loss against them.

Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2: the student's
probabilities are compared with the teacher's, both made softer by a temperature; the gradients of that shrink
with its square, so this part of the loss is multiplied by it. Values have no temperature: the student comes
near the teacher's values in mean squares.

While a batch is on its way its goal is (n, 2 * outputs): the labels as probabilities beside the teacher's
(values: both of them), so that mixing samples mixes both the same way. Other changes of the inputs leave the
teacher's word on a sample as it is.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from orchestrator.data.source import CLASSIFICATION
from orchestrator.errors import UserError
from orchestrator.training.build import Fold
from orchestrator.training.run import Goals, Loss, Run
from orchestrator.training.settings import TeacherSettings

KEY = "teacher.predictions"
# A probability of 0 would stay 0 at any temperature.
SMALLEST = 1e-7
# How far from 1 the sum of float32 probabilities may be.
SUM_TOLERANCE = 1e-2
# Larger ones stay in the machine's memory, and go over batch by batch.
MOST_ON_DEVICE = 2**30


def check_teacher(settings: TeacherSettings) -> None:
    """Refuse numbers out of range.

    Raises:
        UserError: the temperature is not above 0, or the weight is no share.
    """
    if not 0 < settings.temperature < math.inf:
        raise UserError(
            f"{settings.temperature} is not above 0", key="teacher.temperature", hint="2 is usual"
        )
    if not 0 <= settings.weight <= 1:
        raise UserError(f"{settings.weight} is not from 0 to 1", key="teacher.weight")


def content_hash(settings: TeacherSettings) -> str:
    """Return a hash of the teacher's file, empty without one: a run goes on only with the same teacher.

    Raises:
        UserError: the file can't be read.
    """
    if settings.predictions is None:
        return ""
    try:
        with open(settings.predictions, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise UserError(
            f"can't be read: {error.strerror}", file=settings.predictions, key=KEY, hint="Name a Parquet file"
        ) from error


def taught(run: Run, fold: Fold) -> Run:
    """Give a run that has just been built its teacher, where its settings name one; return it.

    Raises:
        UserError: what the teacher says does not fit the training samples.
    """
    settings = run.settings.teacher
    if settings.predictions is None:
        return run
    task, ids = fold.data.task, fold.data.train.ids
    values = read_teacher(Path(settings.predictions), ids, run.outputs, task)
    if task != CLASSIFICATION:
        # float64, as the labels are standardized
        values = ((values.astype(np.float64) - run.center) / run.deviation).astype(np.float32)
    there = torch.from_numpy(values)
    run.goals = goals(there.to(run.train.device) if there.nbytes <= MOST_ON_DEVICE else there, task)
    run.loss = distilling(run.loss, settings, task=task, logit_scale=run.logit_scale)
    return run


def read_teacher(path: Path, ids: NDArray[np.int64], outputs: int, task: str) -> NDArray[np.float32]:
    """Read what a teacher predicts for some samples.

    Args:
        path: a Parquet file with the columns sample_id and probabilities (lists of numbers; values are lists
            of one), in any order.
        ids: (n,), the samples' numbers in the whole dataset.
        outputs: classes, or 1.
        task: classification or regression.

    Returns:
        (n, outputs), in the order of `ids`.

    Raises:
        UserError: the file is missing or damaged, says nothing or two things of a sample, is about other
            classes, or holds what is no probability.
    """
    found, table = _columns(path)
    if table.shape[1] != outputs:
        raise UserError(
            f"its teacher tells {table.shape[1]} classes apart, and the student {outputs}", file=path, key=KEY
        )
    order = np.argsort(found, kind="stable")
    found = found[order]
    if (again := found[1:] == found[:-1]).any():
        raise UserError(f"sample {found[1:][again][0]} is in it twice", file=path, key=KEY)
    places = np.searchsorted(found, ids).clip(max=max(0, len(found) - 1))
    missing = found[places] != ids if len(found) else np.ones(len(ids), dtype=bool)
    if missing.any():
        raise UserError(
            f"{int(missing.sum())} of {len(ids)} training samples are not in it, the first {ids[missing][0]}",
            file=path,
            key=KEY,
            hint="The teacher predicts the training part of the same dataset and split",
        )
    values: NDArray[np.float32] = table[order[places]]
    _check_values(values, ids, path, task)
    return values


def goals(values: Tensor, task: str) -> Goals:
    """Return what makes a batch's goals of its labels and rows.

    Args:
        values: (n, outputs) float32, what the teacher says of each training sample; values standardized.
        task: classification or regression.
    """

    def made(labels: Tensor, rows: Tensor) -> Tensor:
        hard = labels[:, None]
        if task == CLASSIFICATION:
            hard = functional.one_hot(labels, values.shape[1])
        hard = hard.to(values.dtype)
        # Training on validation data too, the last samples have no teacher; their labels stand in.
        known = (rows < len(values)).to(hard.device)
        soft = values[rows.clamp(max=len(values) - 1).to(values.device)].to(hard.device)
        return torch.cat([hard, torch.where(known[:, None], soft, hard)], dim=1)

    return made


def distilling(base: Loss, settings: TeacherSettings, *, task: str, logit_scale: float = 1.0) -> Loss:
    """Return the loss of a student: partly against its teacher, partly the configured one against labels.

    Args:
        base: against labels.
        settings: temperature, and the teacher's weight.
        task: classification or regression.
        logit_scale: what outputs are multiplied by to be logits.

    Returns:
        A loss of outputs (n, outputs) and goals (n, 2 * outputs); with labels alone it is `base`.
    """
    temperature, weight = settings.temperature, settings.weight

    def loss(outputs: Tensor, goal: Tensor) -> Tensor:
        if goal.ndim == 1:
            return base(outputs, goal)
        hard, soft = goal.chunk(2, dim=1)
        if task != CLASSIFICATION:
            apart = functional.mse_loss(outputs.reshape(soft.shape).float(), soft)
            return weight * apart + (1 - weight) * base(outputs, hard[:, 0])
        logits = outputs.float() * logit_scale
        wanted = torch.log_softmax(soft.clamp(min=SMALLEST).log() / temperature, dim=1)
        student = torch.log_softmax(logits / temperature, dim=1)
        apart = functional.kl_div(student, wanted, reduction="batchmean", log_target=True)
        return weight * temperature**2 * apart + (1 - weight) * base(outputs, hard)

    return loss


def _columns(path: Path) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the ids (m,) and probabilities (m, outputs) in a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if missing := {"sample_id", "probabilities"} - set(file.schema_arrow.names):
            raise UserError(f"it has no column '{min(missing)}'", file=path, key=KEY)
        table = file.read(columns=["sample_id", "probabilities"])
        lists: Any = table.column("probabilities").combine_chunks()
        flat = lists.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        ids = table.column("sample_id").to_numpy().astype(np.int64)
    except (OSError, pa.ArrowException, AttributeError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"can't be read as a teacher's predictions: {reason}", file=path, key=KEY) from error
    if not len(ids) or len(flat) % len(ids):
        raise UserError("its probabilities are none, or of different lengths", file=path, key=KEY)
    return ids, flat.reshape(len(ids), -1)


def _check_values(values: NDArray[np.float32], ids: NDArray[np.int64], path: Path, task: str) -> None:
    wrong = ~np.isfinite(values).all(axis=1)
    if task == CLASSIFICATION:
        wrong |= (values < 0).any(axis=1) | (np.abs(values.sum(axis=1) - 1) > SUM_TOLERANCE)
    if wrong.any():
        what = "probabilities that sum to 1" if task == CLASSIFICATION else "a finite value"
        raise UserError(f"what it says of sample {ids[wrong][0]} is not {what}", file=path, key=KEY)
