"""All stored predictions of one split as a library: candidates, and what each predicts, read one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf

from orchestrator.ensemble import stored
from orchestrator.ensemble.library import Probabilities, Rows
from orchestrator.ensemble.members import Candidate
from orchestrator.ensemble.scores import Targets
from orchestrator.ensemble.stored import StoredFile, Unusable
from orchestrator.errors import UserError
from orchestrator.sweep.directory import SweepDirectory

VALIDATION, TEST = "validation", "test"
SPLITS = (VALIDATION, TEST)
# What a file's members are to the ensemble: candidates of it, or what it is compared with.
CANDIDATES, OTHERS = "candidates", "others"


def file_of(directory: SweepDirectory, name: str, split: str) -> Path:
    """Return where the predictions of a run, the soup or a student lie."""
    return directory.predictions / f"{name}-{split}.parquet"


def labels_of(directory: SweepDirectory, name: str, split: str) -> Path:
    """Return where the labels of these predictions lie."""
    return directory.predictions / f"{name}-{split}-labels.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredLibrary:
    """Candidates' predictions for the samples of one split, in the order of `ids`.

    Attributes:
        candidates: in the order of runs and steps, the average of a run's weights after its checkpoints.
        ids: (samples,) which samples.
        task: classification or regression.
        skipped: checkpoints that were left out: {checkpoint, why}.
    """

    candidates: tuple[Candidate, ...]
    ids: NDArray[np.int64]
    task: str
    skipped: tuple[dict[str, str], ...]
    _files: tuple[StoredFile, ...]
    _label_files: tuple[Path, ...]
    # of each file: the rows that bring its samples into the order of `ids`; None where they have it
    _orders: tuple[NDArray[np.int64] | None, ...]
    # of each candidate: its file, and its row group there
    _places: tuple[tuple[int, int], ...]

    @property
    def samples(self) -> int:
        """How many samples each candidate predicted."""
        return len(self.ids)

    @property
    def outputs(self) -> int:
        """How many classes there are; 1 where values are predicted."""
        return self._files[0].outputs

    def __len__(self) -> int:
        """How many candidates there are."""
        return len(self.candidates)

    def probabilities(self, place: int, rows: Rows | None = None) -> Probabilities:
        """Return what one candidate predicts, for all samples or for `rows`: (n, outputs), read anew.

        Raises:
            UserError: its file is damaged.
        """
        file, group = self._places[place]
        found, order = self._files[file].probabilities(group), self._orders[file]
        if order is not None:
            found = found[order] if rows is None else found[order[rows]]
            return found
        return found if rows is None else found[rows]

    def labels(self) -> Targets:
        """Read what is right for each sample: (samples,) int64 classes, or float32 values.

        Raises:
            UserError: the runs do not agree on it, or a file is damaged.
        """
        first: Targets | None = None
        for file, path, order in zip(self._files, self._label_files, self._orders, strict=True):
            ids, labels = stored.read_labels(path)
            labels = labels if order is None else labels[order]
            if not np.array_equal(ids if order is None else ids[order], self.ids):
                raise UserError("the labels are of other samples than the predictions", file=path)
            if first is not None and not np.array_equal(first, labels):
                raise _misfit(file, self._files[0], "the same samples have other labels")
            first = labels if first is None else first
        assert first is not None, "a library has a file"
        return first

    def restricted(self, places: Sequence[int]) -> StoredLibrary:
        """Return the library of some of the candidates, in the order of `places`."""
        return replace(
            self,
            candidates=tuple(self.candidates[place] for place in places),
            _places=tuple(self._places[place] for place in places),
        )


def read_library(directory: SweepDirectory, split: str) -> StoredLibrary:
    """Open what the final runs' candidates predict.

    Args:
        directory: of the sweep.
        split: validation or test.

    Raises:
        UserError: nothing is stored, a file is damaged, or they are of other classes or samples.
    """
    paths = sorted(directory.predictions.glob(f"*-{split}.parquet"))
    files = [stored.open_file(path) for path in paths]
    files = [file for file in files if file.said["role"] == CANDIDATES]
    if not files:
        raise UserError(
            "no final run's predictions are stored",
            file=directory.predictions,
            hint="The ensemble needs at least one completed final run: orchestrate status",
        )
    return _assemble(directory, files, split, files[0].ids())


def read_named(
    directory: SweepDirectory, name: str, split: str, like: NDArray[np.int64] | None = None
) -> StoredLibrary:
    """Open one file of predictions: of a run, the soup or a student.

    Args:
        directory: of the sweep.
        name: of the file, such as soup or student-00000.
        split: validation or test.
        like: ids whose order the samples get.

    Raises:
        UserError: it is not there, is damaged, or its samples are not those of `like`.
    """
    file = stored.open_file(file_of(directory, name, split))
    return _assemble(directory, [file], split, file.ids() if like is None else like)


def _assemble(
    directory: SweepDirectory, files: Sequence[StoredFile], split: str, ids: NDArray[np.int64]
) -> StoredLibrary:
    orders = []
    for file in files:
        if file.said["task"] != files[0].said["task"]:
            raise _misfit(file, files[0], f"it is of a {file.said['task']}, not a {files[0].said['task']}")
        if file.outputs != files[0].outputs:
            problem = f"it tells {file.outputs} classes apart, not {files[0].outputs}"
            raise _misfit(file, files[0], problem)
        try:
            orders.append(stored.order_of(file.ids(), ids))
        except Unusable as error:
            raise _misfit(file, files[0], str(error)) from None
    return StoredLibrary(
        candidates=tuple(each for file in files for each in _candidates(directory, file.said)),
        ids=ids,
        task=str(files[0].said["task"]),
        skipped=tuple(dict(each) for file in files for each in file.said["skipped"]),
        _files=tuple(files),
        _label_files=tuple(labels_of(directory, _name(file, split), split) for file in files),
        _orders=tuple(orders),
        _places=tuple(
            (number, group) for number, file in enumerate(files) for group in range(len(file.said["members"]))
        ),
    )


def _name(file: StoredFile, split: str) -> str:
    return file.path.name.removesuffix(f"-{split}.parquet")


def _candidates(directory: SweepDirectory, said: Any) -> list[Candidate]:
    """Return the members of a file, their paths told from here."""
    config = OmegaConf.create(said["config"])
    assert isinstance(config, DictConfig), "a job's config is a mapping"
    return [
        Candidate(
            trial_id=said["trial_id"],
            setting_id=said["setting_id"],
            seed=said["seed"],
            step=member["step"],
            checkpoint=directory.path / member["checkpoint"],
            config=config,
            kind=member["kind"],
            model=said["model"],
            parts=tuple(str(directory.path / part) for part in member["parts"]),
        )
        for member in said["members"]
    ]


def _misfit(file: StoredFile, first: StoredFile, problem: str) -> UserError:
    """Return what to say of predictions that don't fit together: averaging them would measure nothing."""
    return UserError(
        f"these predictions do not fit those of {first.said['trial_id']}: {problem}",
        file=file.path,
        key="ensemble",
        hint="Members need the same dataset, split and classes: leave those out of the search space",
    )
