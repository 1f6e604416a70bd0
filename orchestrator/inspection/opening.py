"""From a dataset's config to raw samples: by a lenient reader of its files, or else by its source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.data.opening import open_source
from orchestrator.data.typed import read
from orchestrator.errors import UserError, nearest
from orchestrator.inspection import files_images, files_tables
from orchestrator.inspection.raw import Raw, kind_of
from orchestrator.inspection.target import ARRAYS, IDX, PICTURES, TABLE_FILES, Target

_OURS = "orchestrator.data."
_KEYS = (
    *("label", "labels", "labels_path", "inputs", "features", "task", "resolution", "image", "mode"),
    *("layout", "vocabulary"),
)
_OTHERS = ("path", "split", "samples", "num_classes", "fraction", "classes", "class_rule", "validation_size")


def open_raw(target: Target) -> Raw:
    """Open data to be looked at: all samples and classes, whatever a stage would take of them.

    Sources refuse what cannot be trained on, gaps for instance; to look at such data, files are read here
    without refusing more than what cannot be read at all.

    Raises:
        UserError: there are no such data, or none that can be read.
    """
    config = target.config
    place = config.get("path")
    ours = "_target_" not in config or str(config["_target_"]).startswith(_OURS)
    if place not in (None, "???") and ours:
        return _from_path(str(place), target)
    if place == "???":
        raise UserError("has no value", key="datasets.path", hint="Say path=...")
    return _from_source(config)


def split_settings(config: Mapping[str, Any]) -> Any:
    """Return how the data are split; the defaults where nothing is said.

    Raises:
        UserError: a key or value is wrong.
    """
    from orchestrator.data.settings import SplitSettings

    return read(SplitSettings, config.get("split") or {}, "datasets.split.")


def _from_path(place: str, target: Target) -> Raw:
    path, config = Path(place), dict(target.config)
    if not path.exists():
        beside = [each.name for each in path.parent.glob("*")][:50] if path.parent.is_dir() else []
        raise UserError("there is no such file", file=place, hint=nearest(path.name, beside))
    for key in config:
        if "_target_" not in config and key not in (*_KEYS, *_OTHERS):
            raise UserError("no such key", key=key, hint=nearest(key, _KEYS))
    given = {key: config[key] for key in _KEYS if config.get(key) not in (None, "???")}
    if path.is_file() and path.stat().st_size == 0:
        raise UserError("the file is empty", file=place, hint="It was not written to its end")
    name = path.name.lower()
    if name.endswith(TABLE_FILES):
        return files_tables.open_parquet(path, given)
    if name.endswith(ARRAYS):
        return files_tables.open_npz(path, given)
    if name.endswith(IDX) and path.is_file():
        return files_images.open_idx(path, given)
    if path.is_file():
        raise UserError(
            f"'{path.suffix or path.name}' is no kind of data that can be read",
            file=place,
            hint="Give Parquet, .npz, IDX files or a folder of class folders; a text table is converted by "
            "pandas.read_csv(...).to_parquet(...)",
        )
    return _from_folder(path, given)


def _from_folder(path: Path, given: Mapping[str, Any]) -> Raw:
    entries = [each for each in sorted(path.iterdir()) if not each.name.startswith(".")]
    if any(each.name.lower().endswith(IDX) for each in entries):
        return files_images.open_idx(path, given)
    if next(path.rglob("*.parquet"), None) is not None:
        return files_tables.open_parquet(path, given)
    folders = [each for each in entries if each.is_dir()]
    if any(each.suffix.lower() in PICTURES for folder in folders for each in folder.rglob("*")):
        return files_images.open_folder(path)
    if any(each.suffix.lower() in PICTURES for each in entries):
        raise UserError(
            "the pictures lie in one folder, so nothing says their classes",
            file=path,
            hint="Put those of each class into a folder with its name",
        )
    if not entries:
        raise UserError("the folder is empty", file=path)
    raise UserError(
        "the folder holds no data",
        file=path,
        hint="Expected *.parquet, IDX files, or a folder of pictures for each class",
    )


def _from_source(config: Mapping[str, Any]) -> Raw:
    source = open_source(config)
    shape = tuple(source.shape)
    vocabulary = getattr(source, "vocabulary", None)
    targets = getattr(source, "targets", None)
    columns = tuple(getattr(source, "columns", ())) or tuple(
        f"column {k}" for k in range(shape[0] if shape else 0)
    )
    return Raw(
        kind=kind_of(shape, vocabulary),
        count=len(source.labels),
        shape=shape,
        load=source.load,
        labels=None if targets is not None else np.asarray(source.labels, dtype=np.int64),
        class_names=tuple(source.class_names),
        targets=None if targets is None else np.asarray(targets, dtype=np.float64),
        columns=columns if len(shape) == 1 else (),
        vocabulary=vocabulary,
        named=lambda number: f"sample {number}",
    )
