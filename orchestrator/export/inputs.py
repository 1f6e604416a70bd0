"""What the manifest says of a network's samples: where they are from, and how they are prepared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.data.dataset import Splits
from orchestrator.export.manifest import ids_digest
from orchestrator.export.networks import Network


def described(built: Network) -> dict[str, Any]:
    """Return the inputs of a network ready for JSON; `same` is equal for networks that share them."""
    example = built.example
    shape = None if example is None else list(example.shape[1:])
    dtype = None if example is None else str(example.dtype).removeprefix("torch.")
    if built.data is None:
        return {"same": "ready", "shape": shape, "dtype": dtype, "raw_shape": shape, "dataset": None}
    data, dataset = built.data, _dataset(built.job["dataset"])
    side = dataset.get("resolution")
    raw = data.source.shape
    return {
        "same": hashlib.sha256(json.dumps(dataset, sort_keys=True, default=str).encode()).hexdigest(),
        "shape": shape,
        "dtype": dtype,
        "raw_shape": list(raw),
        "resolution": side,
        "vocabulary": data.vocabulary,
        "columns": list(data.source.columns),
        "dataset": dataset,
        "test": _test(data),
    }


def _dataset(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a dataset's config with absolute paths: those of a sweep begin in its user's folder."""
    return {
        key: str(Path(value).resolve())
        if isinstance(value, str) and (key == "path" or key.endswith("_path"))
        else value
        for key, value in config.items()
    }


def _test(data: Splits) -> dict[str, Any]:
    """Return which samples are held out: their number and a checksum of their ids; no label is read."""
    ids = data.ids("test")
    return {"samples": len(ids), "ids_sha256": ids_digest(ids)}
