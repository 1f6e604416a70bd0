"""Samples on the page of an inspection: pictures where they are pictures, otherwise rows."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.inspection import pictures
from orchestrator.inspection.duplicates import PARTS
from orchestrator.inspection.examine import Inspection
from orchestrator.inspection.outliers import strange
from orchestrator.inspection.raw import IMAGES, TABLE, TOKENS
from orchestrator.report.markup import table

MOST_CLASSES, OF_EACH = 20, 12
MOST_SHOWN = 48  # suspects, outliers
MOST_GROUPS = 16
MOST_CELLS = 8


def samples(found: Inspection, ends: tuple[float, float]) -> str:
    """Return some samples of each class: pictures, or rows of a table."""
    raw = found.raw
    labels = raw.labels[found.ids] if raw.labels is not None else np.zeros(len(found.ids), dtype=np.int64)
    if raw.kind != IMAGES:
        chosen = range(min(len(found.ids), OF_EACH))
        return table(["sample", "label", *_heads(found)], [_row(found, k) for k in chosen])
    rows = []
    present = [k for k in np.unique(labels) if k >= 0]
    for number in present[:MOST_CLASSES]:
        places = np.flatnonzero(labels == number)[:OF_EACH]
        name = raw.class_names[number] if raw.labels is not None else "samples"
        image = pictures.sheet(found.inputs[places], ends)
        rows.append(f'<b>{html.escape(name)}</b><img src="{image}" alt="{html.escape(name)}">')
    more = f"<p>{len(present) - MOST_CLASSES} more classes.</p>" if len(present) > MOST_CLASSES else ""
    return f'<div class="rows">{"".join(rows)}</div>{more}'


def _heads(found: Inspection) -> list[str]:
    raw = found.raw
    if raw.kind == TABLE:
        return [each.name for each in found.columns[:MOST_CELLS]]
    return ["tokens" if raw.kind == TOKENS else "first values"]


def _row(found: Inspection, place: int) -> list[object]:
    number = int(found.ids[place])
    return [found.raw.named(number), found.label(number), *_content(found, found.inputs[place])]


def _content(found: Inspection, sample: NDArray[Any]) -> list[object]:
    if found.raw.kind == TABLE:
        return [float(each) for each in sample.reshape(-1)[:MOST_CELLS]]
    kind = int if found.raw.kind == TOKENS else float
    return [" ".join(f"{kind(each):.4g}" for each in sample.reshape(-1)[:24])]


def _picture(image: NDArray[Any], ends: tuple[float, float], caption: str) -> str:
    return (
        f'<figure><img src="{pictures.png(image, ends)}" alt=""><figcaption>{caption}</figcaption></figure>'
    )


def suspects(found: Inspection, ends: tuple[float, float]) -> str:
    """Return the labels in doubt, with what they rather are."""
    doubts = found.doubts
    if doubts is None or not doubts.suspects:
        return ""
    shown = doubts.suspects[:MOST_SHOWN]
    more = f"<p>The {len(shown)} most doubtful of {len(doubts.suspects):,}, the worst first.</p>"
    if found.raw.kind == IMAGES:
        blocks = []
        for one in shown:
            name = html.escape(found.raw.named(int(found.ids[one.place])))
            given, rather = html.escape(found.answer(one.given)), html.escape(found.answer(one.suggested))
            blocks.append(
                _picture(found.inputs[one.place], ends, f"<b>{given}</b> → <b>{rather}</b><br>{name}")
            )
        return f'{more}<div class="pictures">{"".join(blocks)}</div>'
    rows = [
        [
            found.raw.named(int(found.ids[one.place])),
            found.answer(one.given),
            found.answer(one.suggested),
            one.confidence,
            *_content(found, found.inputs[one.place]),
        ]
        for one in shown
    ]
    return more + table(["sample", "label", "rather", "by", *_heads(found)], rows)


def copies(found: Inspection, ends: tuple[float, float], place: dict[int, int]) -> str:
    """Return samples that are the same, or nearly, side by side."""
    groups = [(list(group), "the same") for group in found.copies.groups[:MOST_GROUPS]]
    groups += [([pair.first, pair.second], "nearly the same") for pair in found.pairs[:MOST_GROUPS]]
    if not groups:
        return ""
    total = len(found.copies.groups) + len(found.pairs)
    more = f"<p>{len(groups)} of {total:,} groups.</p>" if total > len(groups) else ""
    if found.raw.kind != IMAGES:
        rows = [
            [
                kind,
                ", ".join(found.raw.named(number) for number in ids[:6]) + ("…" if len(ids) > 6 else ""),
                ", ".join(dict.fromkeys(found.label(number) for number in ids)),
                ", ".join(dict.fromkeys(PARTS[found.parts[number]] for number in ids)),
            ]
            for ids, kind in groups
        ]
        return more + table(["", "samples", "labels", "parts"], rows)
    blocks = []
    for ids, kind in groups:
        images = [
            _picture(_image(found, number, place), ends, _caption(found, number, kind)) for number in ids[:4]
        ]
        blocks.append(f'<div class="group">{"".join(images)}</div>')
    return f'{more}<div class="pictures">{"".join(blocks)}</div>'


def _caption(found: Inspection, number: int, kind: str) -> str:
    words = (found.label(number), PARTS[found.parts[number]], found.raw.named(number), kind)
    return "<br>".join(html.escape(each) for each in words)


def _image(found: Inspection, number: int, place: dict[int, int]) -> NDArray[Any]:
    if number in place:
        kept: NDArray[Any] = found.inputs[place[number]]
        return kept
    image: NDArray[Any] = found.raw.load(np.array([number], dtype=np.int64))[0]
    return image


def outliers(found: Inspection, ends: tuple[float, float], place: dict[int, int]) -> str:
    """Return the samples that are far from all others, and what is unusual about them."""
    shown = found.far[:MOST_SHOWN]
    if not shown:
        return ""
    times = [f"{each.times:.2g} times the usual distance" for each in shown]
    if found.raw.kind == IMAGES:
        blocks = [
            _picture(
                found.inputs[place[each.id]],
                ends,
                f"<b>{html.escape(found.label(each.id))}</b><br>{html.escape(found.raw.named(each.id))}<br>{far}",
            )
            for each, far in zip(shown, times, strict=True)
        ]
        return f'<div class="pictures">{"".join(blocks)}</div>'
    centre = np.array([each.median for each in found.columns])
    width = np.array([each.deviation for each in found.columns])
    names = tuple(each.name for each in found.columns)
    rows = []
    for each, far in zip(shown, times, strict=True):
        sample = found.inputs[place[each.id]].reshape(-1)
        what = ", ".join(strange(sample, centre, width, names)) if found.raw.kind == TABLE else ""
        rows.append([found.raw.named(each.id), found.label(each.id), far, what])
    return table(["sample", "label", "distance", "unusual"], rows)
