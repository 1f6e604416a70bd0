"""`orchestrate predict`: an exported model's predictions for new samples, or its figures again."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.source import CLASSIFICATION
from orchestrator.ensemble.calibration import scaled
from orchestrator.ensemble.scores import EACH, OF_CLASSES, OF_VALUES
from orchestrator.errors import UserError, nearest
from orchestrator.export.files import open_file
from orchestrator.export.manifest import Exported
from orchestrator.export.read import load_model, not_whole
from orchestrator.export.samples import TEST, Batch, Expected, expected, held_out
from orchestrator.sweep.files import replace_atomic

SHOWN = 10
# Names of the models in ensemble.json's figures.
FIGURES = {"single": "best_single", "ensemble": "ensemble", "soup": "soup", "student": "student"}
Rows = dict[str, list[Any]]


@dataclass(slots=True)
class Tally:
    """Sums over the samples that were predicted so far, of those whose right answers are known."""

    task: str
    classes: tuple[str, ...]
    samples: int = 0
    known: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    confusion: NDArray[np.int64] | None = None

    def add(self, predicted: NDArray[np.float32], targets: NDArray[Any] | None) -> None:
        """Count a batch: probabilities (k, classes) or values (k, 1), and what is right (k,)."""
        self.samples += len(predicted)
        if targets is None:
            return
        self.known += len(targets)
        names = OF_CLASSES if self.task == CLASSIFICATION else OF_VALUES
        for name in names:
            self.sums[name] = self.sums.get(name, 0.0) + float(EACH[name](predicted, targets).sum())
        if self.task == CLASSIFICATION:
            count = predicted.shape[1]
            pairs = targets * count + predicted.argmax(axis=1)
            counted = np.bincount(pairs, minlength=count * count).reshape(count, count)
            self.confusion = counted if self.confusion is None else self.confusion + counted

    @property
    def scores(self) -> dict[str, float]:
        """The mean of each score; none where no right answer is known."""
        return {name: total / self.known for name, total in self.sums.items()} if self.known else {}

    def mistakes(self) -> list[tuple[str, str, int]]:
        """Return which classes were taken for which, and how often; the most frequent first."""
        if self.confusion is None:
            return []
        wrong = self.confusion.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[: int((wrong > 0).sum())]
        pairs = [divmod(int(place), len(wrong)) for place in order]
        name = [*self.classes] or [str(number) for number in range(len(wrong))]
        return [(name[right], name[said], int(wrong[right, said])) for right, said in pairs]


@dataclass(frozen=True, kw_only=True, slots=True)
class Predicted:
    """What came of it.

    Attributes:
        tally: how good, where that is known.
        reported: of the scores, those in the manifest for the same samples; empty for others.
        first: the first rows, by column.
    """

    tally: Tally
    reported: Mapping[str, float]
    first: Rows


def predict(
    exported: Exported,
    data: str,
    *,
    model: str | None = None,
    out: Path | None = None,
    path: str | None = None,
    calibrated: bool = False,
    own_code: bool = False,
) -> Predicted:
    """Predict samples with a model of an exported folder, in batches.

    Args:
        exported: the folder.
        data: "test", a file or a folder: see orchestrator.export.files.
        model: single, ensemble, soup or student; None: the ensemble where there is one.
        out: gets all predictions, as *.parquet or *.csv, whole or not at all.
        path: for "test": where the dataset's file is now.
        calibrated: divide logits by the temperature that was fitted on validation data.
        own_code: run code of the user's own that the manifest names.

    Raises:
        UserError: something is not there, damaged, or does not fit.
    """
    name = model or (
        "ensemble" if "ensemble" in exported.manifest["models"] else next(iter(exported.manifest["models"]))
    )
    loaded = load_model(exported, name, own_code=own_code)
    try:
        takes = expected(exported, name)
    except (KeyError, TypeError) as error:
        raise not_whole(exported, error) from error
    batches = held_out(takes, path=path, own_code=own_code) if data == TEST else open_file(Path(data), takes)
    soften = _softening(exported, name) if calibrated else None
    tally, first = Tally(takes.task, takes.classes), Rows()

    def rows() -> Iterator[Rows]:
        for batch in batches:
            probabilities = loaded(batch.raw)
            tally.add(probabilities, batch.targets)
            yield _columns(batch, soften(probabilities) if soften else probabilities, takes)

    with _writer(out) as write:
        for table in rows():
            if not first:
                first.update({column: values[:SHOWN] for column, values in table.items()})
            write(table)
        if not tally.samples:
            raise UserError("has no samples", file=data)
    return Predicted(tally=tally, reported=_reported(exported, name) if data == TEST else {}, first=first)


def _softening(exported: Exported, name: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what applies a model's temperature to its probabilities (Guo et al. 2017)."""
    temperature = exported.manifest["temperature"].get(FIGURES[name])
    if temperature is None:
        raise UserError(
            f"has no temperature for '{name}'", file=exported.folder, hint="Leave out --calibrated"
        )

    return lambda probabilities: scaled(probabilities, temperature).astype(np.float32)


def _reported(exported: Exported, name: str) -> dict[str, float]:
    """Return the figures of a model on test data, by score, as they were measured in the sweep."""
    figures, key = exported.manifest["figures"], FIGURES[name]
    found = {score: values.get(key) for score, values in (figures.get("other_scores") or {}).items()}
    found[figures.get("score", "accuracy")] = (figures.get("test") or {}).get(key)
    return {score: value for score, value in found.items() if value is not None}


def _columns(batch: Batch, predicted: NDArray[np.float32], takes: Expected) -> Rows:
    """Return a batch's predictions as columns: id, file, prediction, right answer, probabilities."""
    table: Rows = {"sample_id": batch.ids.tolist()}
    if batch.names:
        table["file"] = list(batch.names)
    if takes.task != CLASSIFICATION:
        table["prediction"] = predicted[:, 0].tolist()
        return table | ({} if batch.targets is None else {"target": batch.targets.tolist()})
    names = takes.classes or tuple(str(number) for number in range(predicted.shape[1]))
    table["prediction"] = [names[place] for place in predicted.argmax(axis=1)]
    if batch.targets is not None:
        table["label"] = [names[place] for place in batch.targets]
    return table | {f"p({name})": predicted[:, place].tolist() for place, name in enumerate(names)}


@contextmanager
def _writer(out: Path | None) -> Iterator[Callable[[Rows], None]]:
    """Give what writes tables to a file, which is there when all of them are written, and not before.

    Raises:
        UserError: it is of an unknown kind, or its folder is not there.
    """
    if out is None:
        yield lambda table: None
        return
    kinds = {".parquet": _parquet, ".csv": _csv}
    if out.suffix not in kinds:
        raise UserError("is neither *.parquet nor *.csv", file=out, hint=nearest(out.suffix, kinds))
    if not out.parent.is_dir():
        raise UserError("there is no such folder", file=out.parent)
    temporary = out.with_name(f".{out.name}.part")
    try:
        with kinds[out.suffix](temporary) as write:
            yield write
        replace_atomic(out, lambda path: path.write_bytes(temporary.read_bytes()))
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Rows], None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    writers: list[Any] = []

    def write(rows: Rows) -> None:
        table = pa.table(
            {
                name: pa.array(each, pa.float32() if name.startswith("p(") else None)
                for name, each in rows.items()
            }
        )
        if not writers:
            writers.append(pq.ParquetWriter(path, table.schema))
        writers[0].write_table(table)

    try:
        yield write
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[Rows], None]]:
    with open(path, "w", newline="") as handle:
        writer = csv.writer(handle)
        fresh = itertools.count()

        def write(rows: Rows) -> None:
            if next(fresh) == 0:
                writer.writerow(rows)
            writer.writerows(zip(*rows.values(), strict=True))

        yield write
