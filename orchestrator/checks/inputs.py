"""D6: what goes into the network, seen just before it."""

from __future__ import annotations

import base64
import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from orchestrator.checks.result import CheckResult, failed, passed
from orchestrator.checks.subject import Subject

SHOWN, NUMBERS = 8, 12
# Inputs beyond this are far from what initial values and learning rates are meant for.
LARGE = 100.0
SMALLEST_SIDE = 64


def looks_right(subject: Subject) -> CheckResult:
    """D6: inputs are finite and differ, and there are several labels; with pictures or rows to look at."""
    setup = subject.setup
    inputs, targets = setup.inputs, setup.targets
    values = inputs.double() if not inputs.is_floating_point() else inputs.float()
    finite = torch.isfinite(values)
    known = values[finite] if not bool(finite.all()) else values
    details: dict[str, Any] = {
        "shape": list(inputs.shape),
        "dtype": str(inputs.dtype).removeprefix("torch."),
        "non_finite": int((~finite).sum()),
        **({name: float(getattr(known, name)()) for name in ("min", "max", "mean")} if known.numel() else {}),
        "std": float(known.std()) if known.numel() > 1 else 0.0,
        "labels": _labels(targets, setup.class_names),
        "samples": [
            _shown(inputs[row], targets[row], setup.class_names) for row in range(min(SHOWN, len(inputs)))
        ],
    }
    saw = _saw(details, targets)
    if details["non_finite"]:
        rows = int((~finite.reshape(len(inputs), -1)).any(1).sum())
        return failed(
            "D6",
            f"{details['non_finite']} values of {rows} samples are not finite; {saw}",
            "missing values, or a division or logarithm of zero in the preprocessing",
            "Fill or drop them before the transform: orchestrate inspect says in which columns",
            details,
        )
    if targets.is_floating_point() and not bool(torch.isfinite(targets).all()):
        return failed(
            "D6",
            f"{int((~torch.isfinite(targets)).sum())} targets are not finite; {saw}",
            "missing targets",
            "Drop these samples",
            details,
        )
    if len(inputs) > 1 and bool((inputs == inputs[:1]).all()):
        return failed(
            "D6",
            f"all {len(inputs)} inputs are the same; {saw}",
            "inputs that are zeroed or overwritten on their way, or a scale that rounds them away",
            "Print a sample after each step of the preprocessing",
            details,
        )
    if len(targets) > 1 and bool((targets == targets[:1]).all()):
        return failed(
            "D6",
            f"all {len(targets)} samples have one and the same target; {saw}",
            "one class alone, or samples sorted by class before a part was taken",
            "Take the part at random, over all classes",
            details,
        )
    if inputs.is_floating_point() and max(abs(details["min"]), abs(details["max"])) > LARGE * 10:
        saw += "; large: scale them to about one"
    return passed("D6", saw, details)


def _saw(details: dict[str, Any], targets: Tensor) -> str:
    shape = "×".join(str(side) for side in details["shape"])
    spread = ""
    if "min" in details:
        spread = f" from {details['min']:.3g} to {details['max']:.3g}"
        spread += f", mean {details['mean']:.3g} ± {details['std']:.3g}"
    labels = details["labels"]
    if "counts" in labels:
        counts = list(labels["counts"].values())
        return (
            f"{shape} {details['dtype']}{spread}; {len(counts)} classes of {min(counts)} to "
            f"{max(counts)} samples"
        )
    return f"{shape} {details['dtype']}{spread}; targets from {labels['min']:.3g} to {labels['max']:.3g}"


def _labels(targets: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    if targets.is_floating_point():
        return {name: float(getattr(targets, name)()) for name in ("min", "max", "mean")}
    found, counts = torch.unique(targets, return_counts=True)
    return {
        "counts": {
            _name(label, names): count for label, count in zip(found.tolist(), counts.tolist(), strict=True)
        }
    }


def _name(label: Any, names: tuple[str, ...]) -> str:
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else str(label)


def _shown(sample: Tensor, target: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
    """Return one sample as a picture, as its tokens, or as its first numbers."""
    label: Any = target.tolist()
    shown = {"label": _name(label, names) if not isinstance(label, list) else str(label[:NUMBERS])}
    if sample.ndim == 3 and sample.shape[0] in (1, 3) and sample.is_floating_point():
        return {**shown, "picture": _picture(sample)}
    first = [round(value, 4) for value in sample.reshape(-1)[:NUMBERS].tolist()]
    return {
        **shown,
        "values": [value if value == value and abs(value) != float("inf") else None for value in first],
    }


def _picture(sample: Tensor) -> str:
    """Return an image (channels, height, width) as a PNG in a data URI, from least to largest value."""
    image = torch.nan_to_num(sample.float().cpu(), posinf=0.0, neginf=0.0)
    least, most = image.min(), image.max()
    levels = ((image - least) / (most - least).clamp_min(1e-12) * 255).round().to(torch.uint8)
    array = levels[0].numpy() if len(levels) == 1 else levels.permute(1, 2, 0).contiguous().numpy()
    picture = Image.fromarray(array)
    if (times := SMALLEST_SIDE // max(1, min(picture.size))) > 1:
        picture = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
