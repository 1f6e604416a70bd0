"""All that is looked at in one dataset, and the findings that follow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.splits import split
from orchestrator.inspection import columns, duplicates, outliers, wrong_labels
from orchestrator.inspection.balance import (
    Balance,
    Values,
    balance_findings,
    class_balance,
    describe_values,
    value_findings,
)
from orchestrator.inspection.columns import Column
from orchestrator.inspection.embed import embed
from orchestrator.inspection.finding import PROBLEM, Finding, counted, ordered
from orchestrator.inspection.opening import open_raw, split_settings
from orchestrator.inspection.raw import IMAGES, TABLE, TOKENS, Ids, Raw, choose
from orchestrator.inspection.target import Target

SAMPLE = 10_000
"""Samples for what compares each with all others; more take quadratic time."""
_MOST_READ = 1 << 28  # values that are read to look for exact copies
_MOST_HELD = 1 << 26  # values of the sample that are in memory at a time: 256 MB
_MOST_LISTED = 100  # of anything, in JSON and on the page

Told = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """What was found in a dataset.

    Attributes:
        name: of the target.
        raw: the data.
        parts: (n,) the part each sample falls into: 0 train, 1 validation, 2 test.
        ids: of the samples looked at closely.
        inputs: (k, *shape) those samples.
        balance, values: of classes, or of values to predict.
        columns: of a table or a series; channels of images.
        copies, pairs, doubts, far: as their modules say.
        findings: the weightiest first.
    """

    name: str
    raw: Raw
    parts: NDArray[np.int8]
    ids: Ids
    inputs: NDArray[Any]
    balance: Balance | None
    values: Values | None
    columns: tuple[Column, ...]
    copies: duplicates.Duplicates
    pairs: tuple[duplicates.Pair, ...]
    doubts: wrong_labels.WrongLabels | None
    far: tuple[outliers.Outlier, ...]
    findings: tuple[Finding, ...]

    def label(self, number: int) -> str:
        """Return the name of a sample's class, or its value."""
        raw = self.raw
        if raw.targets is not None:
            return f"{raw.targets[number]:.4g}"
        if raw.labels is None or raw.labels[number] < 0:
            return "no label"
        return str(raw.class_names[int(raw.labels[number])])

    def answer(self, value: float) -> str:
        """Return the name of a class by its number, or a value."""
        return f"{value:.4g}" if self.raw.targets is not None else self.raw.class_names[int(value)]


def examine(target: Target, sample: int = SAMPLE, told: Told = lambda text: None) -> Inspection:
    """Look at a dataset.

    Args:
        target: which.
        sample: how many samples are compared with each other, at most.
        told: is called with what is done next.

    Raises:
        UserError: it cannot be read.
    """
    told("opening the data")
    raw = open_raw(target)
    parts = _parts(raw, target)
    told("looking for copies")
    most = max(1, min(raw.count, _MOST_READ // raw.values))
    read = choose(raw.count, max(most, min(sample, raw.count)))
    keys = duplicates.digests(raw, read, lambda done: told(f"looking for copies: {done:,} of {len(read):,}"))
    answers = raw.labels
    copies = duplicates.exact(keys, read, answers, parts)

    ids = choose(raw.count, max(1, min(sample, _MOST_HELD // raw.values)))
    told(f"reading {counted(len(ids), 'sample')}")
    inputs = raw.load(ids)
    readable = ~np.isnan(inputs.reshape(len(ids), -1)).all(axis=1) | (raw.kind != IMAGES)
    ids, inputs = ids[readable], inputs[readable]
    told("describing columns")
    described = _columns(raw, inputs)
    told("comparing samples")
    rows = embed(inputs, raw.kind, raw.vocabulary)
    distances, neighbours = outliers.nearest(rows)
    own_keys = duplicates.digests(
        dataclasses.replace(raw, load=lambda places: inputs[places]), np.arange(len(ids))
    )
    pairs = duplicates.near(distances, neighbours, ids, own_keys, answers, parts, rows.shape[1])
    far = outliers.far(distances, ids)
    told("looking for wrong labels")
    doubts = _doubts(raw, rows, ids)

    counts = class_balance(raw.labels, raw.class_names) if raw.labels is not None else None
    values = describe_values(raw.targets) if raw.targets is not None else None
    found = [
        *raw.seen,
        *(balance_findings(counts) if counts else []),
        *(value_findings(values, raw.count) if values else []),
        *_input_findings(raw, inputs, described),
        *duplicates.duplicate_findings(copies, pairs, len(ids)),
        *wrong_labels.wrong_label_findings(doubts, values=raw.targets is not None),
        *outliers.outlier_findings(far, len(ids)),
    ]
    return Inspection(
        name=target.name,
        raw=raw,
        parts=parts,
        ids=ids,
        inputs=inputs,
        balance=counts,
        values=values,
        columns=described,
        copies=copies,
        pairs=pairs,
        doubts=doubts,
        far=far,
        findings=ordered(found),
    )


def _parts(raw: Raw, target: Target) -> NDArray[np.int8]:
    """Return the part of the split that each sample falls into, as training divides the whole data."""
    settings = split_settings(target.config)
    labels = raw.labels
    if raw.targets is not None:
        from orchestrator.data.labels import quantile_bins

        labels = quantile_bins(np.nan_to_num(raw.targets).astype(np.float32))
    labels = np.zeros(raw.count, dtype=np.int64) if labels is None else labels - labels.min(initial=0)
    divided = split(labels, validation=settings.validation, test=settings.test, seed=settings.seed)
    parts = np.zeros(raw.count, dtype=np.int8)
    parts[divided.validation], parts[divided.test] = 1, 2
    return parts


def _columns(raw: Raw, inputs: NDArray[Any]) -> tuple[Column, ...]:
    if raw.kind == TOKENS:
        return ()
    if raw.kind == TABLE:
        names = raw.columns or tuple(f"column {k}" for k in range(raw.values))
        return columns.describe_columns(inputs.reshape(len(inputs), -1), names)
    axis = 1 if raw.kind == IMAGES else inputs.ndim - 1
    flat = np.moveaxis(inputs, axis, -1).reshape(-1, inputs.shape[axis])
    count = flat.shape[1]
    heads = _channels(count) if raw.kind == IMAGES else [f"feature {k}" for k in range(count)]
    step = max(1, len(flat) // 1_000_000)  # pixels are many and alike
    return columns.describe_columns(flat[::step], heads, advise=raw.kind != IMAGES)


def _channels(count: int) -> list[str]:
    names = {1: ["grey"], 3: ["red", "green", "blue"]}
    return names.get(count, [f"channel {k}" for k in range(count)])


def _input_findings(raw: Raw, inputs: NDArray[Any], described: tuple[Column, ...]) -> list[Finding]:
    if raw.kind == TABLE:
        names = [each.name for each in described]
        return columns.column_findings(described) + columns.identifiers(
            inputs.reshape(len(inputs), -1), names
        )
    if raw.kind != IMAGES:
        return columns.column_findings(described, what="feature")
    found: list[Finding] = []
    if not len(inputs):
        return found
    flat = inputs.reshape(len(inputs), -1)
    blank = np.nanmax(flat, axis=1, initial=-np.inf) <= np.nanmin(flat, axis=1, initial=np.inf)
    broken = ~np.isfinite(flat).all(axis=1)
    if broken.any() and not any(each.code == "unreadable" for each in raw.seen):
        text = f"{counted(int(broken.sum()), 'picture')} of {len(flat):,} have values that are not finite"
        found.append(Finding(code="not_finite", level=PROBLEM, text=text, share=float(broken.mean())))
    if (blank & ~broken).any():
        text = f"{counted(int((blank & ~broken).sum()), 'picture')} of {len(flat):,} are of one colour"
        advice = "Remove them: they show nothing"
        found.append(
            Finding(code="blank", level="warning", text=text, advice=advice, share=float(blank.mean()))
        )
    high = max((each.high for each in described if not math.isnan(each.high)), default=0.0)
    if high > 2:
        text = f"pixels go up to {high:.4g}"
        advice = "Use transform: unit (0 to 1), symmetric (-1 to 1) or standardize; try all"
        found.append(Finding(code="pixel_range", level="note", text=text, advice=advice, share=0.5))
    return found


def _doubts(raw: Raw, rows: NDArray[np.float64], ids: Ids) -> wrong_labels.WrongLabels | None:
    if raw.targets is not None:
        return wrong_labels.wrong_values(rows, raw.targets[ids])
    if raw.labels is None:
        return None
    return wrong_labels.wrong_classes(rows, raw.labels[ids], raw.kind)


def to_json(found: Inspection) -> dict[str, Any]:
    """Return what was found as JSON types; the keys stay the same, lists end at 100."""
    raw, doubts = found.raw, found.doubts
    sides = np.bincount(found.parts, minlength=3).tolist()
    listed = [
        {
            "sample": int(found.ids[one.place]),
            "name": raw.named(int(found.ids[one.place])),
            "label": found.answer(one.given),
            "suggested": found.answer(one.suggested),
            "confidence": one.confidence,
        }
        for one in (doubts.suspects[:_MOST_LISTED] if doubts else ())
    ]
    content: dict[str, Any] = {
        "name": found.name,
        "kind": raw.kind,
        "samples": raw.count,
        "shape": list(raw.shape),
        "looked_at": {"copies": found.copies.looked, "closely": len(found.ids)},
        "parts": dict(zip(duplicates.PARTS, sides, strict=True)),
        "classes": dataclasses.asdict(found.balance) if found.balance else None,
        "target": dataclasses.asdict(found.values) if found.values else None,
        "columns": [dataclasses.asdict(each) for each in found.columns],
        "duplicates": {
            **dataclasses.asdict(found.copies),
            "groups": [list(each) for each in found.copies.groups[:_MOST_LISTED]],
            "number_of_groups": len(found.copies.groups),
        },
        "near_duplicates": {
            "number": len(found.pairs),
            "pairs": [dataclasses.asdict(each) for each in found.pairs[:_MOST_LISTED]],
        },
        "wrong_labels": {
            "number": len(doubts.suspects),
            "looked": doubts.looked,
            "accuracy": doubts.accuracy,
            "estimate": doubts.estimate,
            "suspects": listed,
        }
        if doubts
        else None,
        "outliers": {
            "number": len(found.far),
            "samples": [
                {"sample": each.id, "name": raw.named(each.id), "times": each.times}
                for each in found.far[:_MOST_LISTED]
            ],
        },
        "findings": [dataclasses.asdict(each) for each in found.findings],
    }
    return {key: _plain(value) for key, value in content.items()}


def _plain(value: Any) -> Any:
    """Return the same with NaN and infinity, which JSON has not, as null."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
