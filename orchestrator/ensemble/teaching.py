"""The teacher's file: what the chosen ensemble predicts for the training data, as targets of its students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from orchestrator.ensemble import stored
from orchestrator.ensemble.calibration import scaled
from orchestrator.ensemble.combine import Combination
from orchestrator.ensemble.library import Probabilities, Rows
from orchestrator.ensemble.members import Candidate, Predictions
from orchestrator.ensemble.store import Predict
from orchestrator.errors import UserError
from orchestrator.sweep.files import replace_atomic

TRAIN = "train"

# Under this key of the file lies the digest of the choice that it follows from.
_KEY = b"choice"


@dataclass(slots=True)
class _Trained:
    """Members' predictions of the training data as a library: made when they are asked for, one in memory."""

    members: Sequence[Candidate]
    predict: Predict
    ids: NDArray[np.int64] = field(init=False)
    outputs: int = field(init=False)
    _first: Probabilities | None = field(init=False)

    def __post_init__(self) -> None:
        first = self._predicted(self.members[0])
        self.ids, self._first, self.outputs = first.ids, first.probabilities, first.probabilities.shape[1]

    @property
    def samples(self) -> int:
        return len(self.ids)

    def __len__(self) -> int:
        return len(self.members)

    def probabilities(self, place: int, rows: Rows | None = None) -> Probabilities:
        if place == 0 and self._first is not None:
            found, self._first = self._first, None
        else:
            given = self._predicted(self.members[place])
            try:
                order = stored.order_of(given.ids, self.ids)
            except stored.Unusable as error:
                raise _useless(self.members[place], str(error)) from None
            found = given.probabilities if order is None else given.probabilities[order]
        return found if rows is None else found[rows]

    def _predicted(self, member: Candidate) -> Predictions:
        try:
            return stored.as_usable(self.predict(member.config, member.checkpoint, TRAIN))
        except UserError:
            raise
        # A user's own predict may raise anything, and without a member there is no ensemble to teach.
        except Exception as error:
            raise _useless(member, f"{type(error).__name__}: {error}".splitlines()[0]) from error


def write_teacher(
    path: Path,
    members: Sequence[Candidate],
    combination: Combination,
    predict: Predict,
    choice: str,
    heat: float | None,
) -> None:
    """Write what an ensemble predicts for the training data: sample_id, probabilities; whole or not at all.

    The probabilities are calibrated: an average of networks is less sure than it is right, and students that
    learn its doubts fall behind those that learn from labels.

    Args:
        path: of the Parquet file; one that follows from the same choice stays.
        members: of the ensemble.
        combination: of them, in their order.
        predict: the job's.
        choice: the digest of what was chosen.
        heat: the temperature that validation data gave the ensemble; None for values, which have none.

    Raises:
        UserError: a member's checkpoint can't be used, or its samples are not those of the first.
    """
    if _follows_from(path) == choice:
        return
    library = _Trained(members, predict)
    values = combination.apply(library)
    if heat is not None:
        values = scaled(values, heat).astype(np.float32)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    table = pa.table(
        {
            "sample_id": pa.array(library.ids, pa.int64()),
            "probabilities": pa.FixedSizeListArray.from_arrays(flat, library.outputs),
        },
        metadata={_KEY: choice.encode()},
    )
    replace_atomic(path, lambda temporary: pq.write_table(table, temporary))


def _follows_from(path: Path) -> str:
    """Return the digest of the choice that a teacher's file follows from; empty where there is none."""
    try:
        found: bytes = (pq.ParquetFile(path).schema_arrow.metadata or {}).get(_KEY, b"")
    except (pa.ArrowException, OSError):
        return ""
    return found.decode()


def _useless(member: Candidate, why: str) -> UserError:
    return UserError(
        f"this member of the ensemble can't predict the training data ({why})",
        file=member.checkpoint,
        hint="Restore the file, or choose anew without it",
    )
