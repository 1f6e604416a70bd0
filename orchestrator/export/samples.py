"""Raw samples to predict, batch by batch: what the models take, and the held-out part of their dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.dataset import open_dataset
from orchestrator.data.source import REGRESSION
from orchestrator.errors import UserError, nearest
from orchestrator.export.manifest import Exported, ids_digest

TEST = "test"
BATCH = 1024
# Sources of this package: the only functions that a manifest may name without being trusted.
KNOWN_SOURCES = (
    *(
        f"orchestrator.data.sources.{name}"
        for name in ("digits", "idx", "image_folder", "npz", "parquet", "tabular")
    ),
    "orchestrator.data.chains.chains",
    "orchestrator.data.glyphs.glyphs",
)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some samples.

    Attributes:
        raw: (k, *raw shape), before the transform.
        targets: (k,) their classes' numbers, or values float32; None where they are not known.
        ids: (k,) numbers in the dataset, or rows.
        names: of files, where they are files.
    """

    raw: NDArray[Any]
    targets: NDArray[Any] | None
    ids: NDArray[np.int64]
    names: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What an exported folder takes.

    Attributes:
        task: classification or regression.
        classes: their names.
        inputs: of its manifest.
    """

    task: str
    classes: tuple[str, ...]
    inputs: Mapping[str, Any]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one raw sample."""
        return tuple(self.inputs["raw_shape"])

    def targets(self, values: NDArray[Any], file: object) -> NDArray[Any]:
        """Turn right answers as somebody wrote them into what is predicted: (k,).

        Raises:
            UserError: a class that the models do not know, or no number where values are predicted.
        """
        if self.task == REGRESSION:
            try:
                found = np.asarray(values, dtype=np.float32)
            except (TypeError, ValueError):
                found = np.array([np.nan])
            if not np.isfinite(found).all():
                raise UserError("has right answers that are not finite numbers", file=file)
            return found
        numbers = {name: number for number, name in enumerate(self.classes)}
        if not numbers:
            raise UserError("the classes' names are not known, so nothing can be compared", file=file)
        by_number = not any(name.lstrip("-").isdigit() for name in self.classes)
        found_numbers = np.empty(len(values), np.int64)
        for row, value in enumerate(values.tolist()):
            name = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
            if name in numbers:
                found_numbers[row] = numbers[name]
            elif by_number and name.isdigit() and int(name) < len(self.classes):
                found_numbers[row] = int(name)
            else:
                raise UserError(
                    f"sample {row} is of the class '{name}', which the models do not know",
                    file=file,
                    hint=nearest(name, self.classes),
                )
        return found_numbers

    def checked(self, raw: NDArray[Any], file: object) -> NDArray[Any]:
        """Refuse samples (k, *shape) that are not what the models were trained on.

        Raises:
            UserError: another shape, no numbers, values that are not finite, or tokens that do not exist.
        """
        if raw.dtype.kind not in "fiub":
            raise UserError(f"holds {raw.dtype}, not numbers", file=file)
        if raw.shape[1:] != self.shape:
            raise UserError(f"its samples are {raw.shape[1:]}, and the models take {self.shape}", file=file)
        if self.inputs["dtype"] == "int64":
            vocabulary = self.inputs.get("vocabulary")
            if raw.dtype.kind not in "iu" or (vocabulary and ((raw < 0) | (raw >= vocabulary)).any()):
                raise UserError(f"holds what is no token from 0 to {(vocabulary or 0) - 1}", file=file)
            return raw.astype(np.int64)
        with np.errstate(over="ignore"):
            values = raw.astype(np.float32)
        if not np.isfinite(values).all():
            wrong = np.asarray([not np.isfinite(each).all() for each in values])
            raise UserError(
                f"{int(wrong.sum())} of {len(wrong)} samples read have values that are missing or infinite, "
                f"the first is sample {int(wrong.argmax())} of them",
                file=file,
                hint="Fill the gaps",
            )
        return values


def expected(exported: Exported, model: str) -> Expected:
    """Return what a model of an exported folder takes."""
    manifest = exported.manifest
    used = [manifest["networks"][name]["inputs"] for name in manifest["models"][model]["networks"]]
    inputs = manifest["inputs"][used[0]]
    if any(manifest["inputs"][name]["raw_shape"] != inputs["raw_shape"] for name in used):
        raise UserError(
            f"the networks of '{model}' take raw samples of different shapes", file=exported.folder
        )
    return Expected(manifest["task"], tuple(manifest["classes"]), inputs)


def held_out(takes: Expected, *, path: str | None, own_code: bool) -> Iterator[Batch]:
    """Return the held-out part of the dataset that the manifest names.

    Raises:
        UserError: the data are not there, not what they were, or come from code of the user's own.
    """
    config = takes.inputs.get("dataset")
    if config is None:
        raise UserError(
            "the samples of this job are prepared by its own code",
            key=TEST,
            hint="Write them to a file, as they go into the model: np.savez('test.npz', x=inputs, y=labels)",
        )
    target = str(config.get("_target_"))
    if target not in KNOWN_SOURCES and not own_code:
        raise UserError(
            f"its data come from code of somebody's own, {target}",
            key=TEST,
            hint="Say --own-code if you trust the code of that name on this machine",
        )
    splits = open_dataset({**config, "path": path} if path is not None else config)
    splits = splits.fold(0) if splits.folds > 1 else splits
    ids, test = splits.ids(TEST), takes.inputs["test"]
    if len(ids) != test["samples"] or ids_digest(ids) != test["ids_sha256"]:
        raise UserError(
            f"the held-out part has {len(ids)} samples, and not those {test['samples']} that were held out",
            key=TEST,
            hint="Have the data changed since?",
        )
    if not len(ids):
        raise UserError("the held-out part is empty", key=TEST)
    source = splits.source

    def batches() -> Iterator[Batch]:
        for start in range(0, len(ids), BATCH):
            some = ids[start : start + BATCH]
            if source.targets is not None:
                targets: NDArray[Any] = source.targets[some]
            else:
                targets = np.asarray([source.class_names[each] for each in source.labels[some]])
            raw = takes.checked(source.load(some), TEST)
            yield Batch(raw, takes.targets(targets, TEST), some)

    return batches()
