"""README.md of an exported folder: what the models are, how good, how they came to be, and what they are not.

After Mitchell et al. 2019, "Model cards for model reporting", as far as a sweep knows the answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.schema import SweepConfig

_TITLES = {
    "single": "Best single model",
    "ensemble": "Ensemble",
    "soup": "Soup (averaged weights)",
    "student": "Student (trained on the ensemble's probabilities)",
}
_KEYS = {"single": "best_single"}  # of ensemble.json's figures, where they have another name
_OTHERS = {"average_member": "Its members on average", "student_labels": "The student's network, on labels"}


def card(manifest: Mapping[str, Any], config: SweepConfig) -> str:
    """Return the model card in Markdown.

    Args:
        manifest: all of it but the files.
        config: of the sweep.
    """
    parts = [
        f"# {manifest['sweep']['name']}",
        _summary(manifest),
        "## How good",
        _figures(manifest["figures"], manifest["models"]),
        _gains(manifest["figures"]),
        _other(manifest["figures"]),
        "## How it was chosen",
        _choice(manifest, config),
        "## Calibration",
        _calibration(manifest),
        "## Data",
        _data(manifest),
        "## Settings",
        _settings(manifest),
        "## What is in this folder",
        _contents(manifest),
        "## Limitations",
        _limitations(manifest),
        "## Provenance",
        _provenance(manifest),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _summary(manifest: Mapping[str, Any]) -> str:
    classes = manifest["classes"]
    if manifest["task"] == "classification":
        task = (
            f"Tells {len(classes)} classes apart: {_listed(classes)}." if classes else "Tells classes apart."
        )
    else:
        task = "Predicts one value for each sample."
    models = ", ".join(_TITLES[name].split(" (")[0].lower() for name in manifest["models"])
    return f"{task} Here are: {models}. To predict with them: `orchestrate predict THIS_FOLDER DATA`."


def _figures(figures: Mapping[str, Any], models: Mapping[str, Any]) -> str:
    score = figures.get("score", "score")
    rows = [f"| model | {score}, validation | {score}, test | 95% interval |", "|---|---|---|---|"]
    intervals = figures.get("test_intervals") or {}
    titles = {_KEYS.get(name, name): title for name, title in _TITLES.items()} | _OTHERS
    for key, title in titles.items():
        validation, test = (figures.get(part, {}).get(key) for part in ("validation", "test"))
        if validation is None and test is None:
            continue
        name = next((each for each in _TITLES if _KEYS.get(each, each) == key), "")
        absent = " (not in this folder)" if name and name not in models else ""
        between = intervals.get(key)
        rows.append(
            f"| {title}{absent} | {_number(validation)} | {_number(test)} | "
            f"{_between(between) if between else 'not measured'} |"
        )
    counts = [figures.get(f"{part}_samples") for part in ("validation", "test")]
    sizes = f" Measured on {counts[0]} validation and {counts[1]} test samples." if all(counts) else ""
    looks = figures.get("test_looks")
    read = (
        "The labels of the test samples were read once, after everything was chosen."
        if looks in (None, 1)
        else f"The labels of the test samples were read {looks} times, so the test figures may flatter."
    )
    better = "Higher" if figures.get("mode") == "max" else "Lower"
    return "\n".join(rows) + f"\n\n{better} is better.{sizes} {read}"


def _gains(figures: Mapping[str, Any]) -> str:
    said = {
        "over_best_single": "the ensemble over the best single model",
        "over_average_member": "the ensemble over its members on average",
        "soup_over_best_single": "the soup over the best single model",
        "student_over_labels": "the student over the same network trained on labels",
        "student_below_ensemble": "the ensemble over the student",
    }
    lines = []
    for key, text in said.items():
        gain = (figures.get("gains") or {}).get(key)
        if gain:
            lines.append(f"- {text}: {gain['value']:+.4g} ({_between([gain['low'], gain['high']])})")
    return (
        "Gains on the test samples, positive is better, with 95% intervals:\n\n" + "\n".join(lines)
        if lines
        else ""
    )


def _other(figures: Mapping[str, Any]) -> str:
    lines = [
        f"- {score}: "
        + ", ".join(f"{key.replace('_', ' ')} {_number(value)}" for key, value in values.items())
        for score, values in (figures.get("other_scores") or {}).items()
    ]
    return "Other scores on the test samples:\n\n" + "\n".join(lines) if lines else ""


def _choice(manifest: Mapping[str, Any], config: SweepConfig) -> str:
    figures = manifest["figures"]
    lines = [
        f"A sweep over {_listed(list(config.space), 12)} ended with {figures.get('candidates', '?')} "
        f"candidate checkpoints of final runs. The best single model has the best "
        f"{figures.get('score', 'score')} on validation data, so its validation figure is somewhat too good; "
        "its test figure is not."
    ]
    if "ensemble" in manifest["models"]:
        count = len(manifest["models"]["ensemble"]["networks"])
        lines.append(f"The ensemble weighs {count} of them, combined by: {figures.get('combine', '?')}.")
    nested = figures.get("nested") or {}
    if nested.get("why"):
        lines.append(f"The way of combining was chosen by nested validation: {nested['why']}")
    return "\n".join(lines)


def _calibration(manifest: Mapping[str, Any]) -> str:
    if manifest["task"] != "classification":
        return "Values have none here: nothing says how sure a prediction is."
    lines = []
    temperatures = manifest["temperature"]
    for key, value in (manifest["figures"].get("calibration") or {}).items():
        scaled = value.get("ece_scaled")
        after = "" if scaled is None else f", {_number(scaled)} after temperature scaling"
        lines.append(
            f"- {key.replace('_', ' ')}: expected calibration error {_number(value.get('ece'))}{after}"
        )
    if temperatures:
        listed = ", ".join(
            f"{name.replace('_', ' ')} {value:.3g}"
            for name, value in temperatures.items()
            if value is not None
        )
        lines.append(
            f"\nTemperatures, fitted on validation data: {listed}. `orchestrate predict --calibrated` "
            "divides logits by them; programs give logits without."
        )
    return "\n".join(lines) or "Not measured: take the probabilities for scores, not for chances."


def _data(manifest: Mapping[str, Any]) -> str:
    lines = []
    for name, inputs in manifest["inputs"].items():
        dataset = inputs.get("dataset")
        if dataset is None:
            lines.append(f"- {name}: samples as the job's own code prepares them, shape {inputs['shape']}")
            continue
        transform = dataset.get("transform", "none")
        lines.append(
            f"- {name}: `{dataset.get('_target_')}`"
            + (f", {dataset['fingerprint']}" if dataset.get("fingerprint") else "")
            + f"; raw samples {inputs['raw_shape']}, into the network {inputs['shape']} ({inputs['dtype']}); "
            f"transform {transform}, fitted on training data; {inputs['test']['samples']} samples held out"
        )
    return "\n".join(lines)


def _settings(manifest: Mapping[str, Any]) -> str:
    rows = ["| network | run | model | optimizer | learning rate | batch | epochs | seed |", "|" + "---|" * 8]
    for name, network in manifest["networks"].items():
        job, origin = network["job"], network["from"]
        optimizer = job.get("optimizer")
        is_ours = isinstance(optimizer, Mapping)
        model = job.get("model")
        cells = (
            name,
            _run(origin),
            _model(model) if isinstance(model, Mapping) else model,
            optimizer.get("name") if is_ours and optimizer else optimizer,
            f"{optimizer['lr']:.3g}" if is_ours and optimizer and "lr" in optimizer else job.get("lr"),
            job.get("batch_size"),
            job.get("epochs"),
            origin.get("seed", job.get("seed")),
        )
        rows.append("| " + " | ".join("" if cell is None else str(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n\nAll settings: `networks` in manifest.json."


def _model(model: Mapping[str, Any]) -> str:
    name = model.get("target") or model.get("name")
    return f"{name}, width {model.get('width')}, depth {model.get('depth')}"


def _contents(manifest: Mapping[str, Any]) -> str:
    lines = [
        "- `manifest.json`: all of it in machine-readable form, with a SHA-256 for each file.",
        "- `models/*.safetensors`: weights, by the names that their networks have for them.",
    ]
    programs = [each["program"] for each in manifest["networks"].values() if each["program"]]
    if programs:
        ends = programs[0].rpartition(".")[2]
        kind = "ONNX programs" if ends == "onnx" else "`torch.export` programs"
        lines.append(
            f"- `models/*.{ends}`: {kind}: prepared samples in, batches of any size; see `outputs` below."
        )
    if any(each.get("transform") for each in manifest["inputs"].values()):
        lines.append("- `inputs-*/`: how raw samples are prepared, as fitted on training data.")
    outputs = {each["outputs"] for each in manifest["networks"].values()}
    said = {
        "logits": "logits, whose softmax are probabilities",
        "values": "values, in the data's own units",
        "probabilities": "probabilities",
    }
    lines += [f"- Outputs are {said[each]}." for each in sorted(outputs)]
    for name, network in manifest["networks"].items():
        if network["program"] is None:
            lines.append(f"- `{name}` has no program, only weights: {network['why_no_program']}")
    if "ensemble" in manifest["models"]:
        model = manifest["models"]["ensemble"]
        weighed = ", ".join(
            f"{name} {weight:.3g}" for name, weight in zip(model["networks"], model["weights"], strict=True)
        )
        lines.append(f"- The ensemble is of: {weighed}.")
    return "\n".join(lines)


def _limitations(manifest: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "- The figures hold for data like those it was trained on; of others nothing was measured.",
            "- Whatever is put in gets an answer: no input is recognized as none of the classes."
            if manifest["task"] == "classification"
            else "- Beyond the range of the training data the values are extrapolated.",
            "- Figures for groups within the data (by class, by origin) are not part of this card.",
            "- Another device, precision or batch size changes the last digits of an output.",
        ]
    )


def _provenance(manifest: Mapping[str, Any]) -> str:
    sweep = manifest["sweep"]
    packages = ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())
    return (
        f"Sweep `{sweep['name']}` ({sweep['uid']}), code {sweep['code'] or 'without a commit'}; exported "
        f"{manifest['created']} by orchestrator {manifest['orchestrator']} with {packages}."
    )


def _run(origin: Mapping[str, Any]) -> str:
    """Return where a network's weights are from: a run at a step, or the mean of several checkpoints."""
    parts, step = origin.get("parts") or (), origin.get("step")
    where = f"mean of {len(parts)} checkpoints" if parts else "" if step is None else f"step {step}"
    return f"{origin.get('trial_id', '')} {where}".strip()


def _listed(names: Sequence[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return f"{shown}, and {len(names) - most} more" if len(names) > most else shown


def _number(value: Any) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _between(pair: Sequence[float]) -> str:
    return f"{pair[0]:.4g} to {pair[1]:.4g}"
