"""The commands for what a sweep leaves: its models as a folder, and predicting from one."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.commands.sweeps import directory_argument, json_option, short

if TYPE_CHECKING:
    from orchestrator.export.predict import Predicted

_MODELS = ("single", "ensemble", "soup", "student")


@click.command()
@directory_argument
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["torch-export", "onnx"]),
    default="torch-export",
    show_default=True,
    help="What programs are written as; onnx needs the extra of that name.",
)
@click.option("--only", type=click.Choice(_MODELS), multiple=True, help="Only this model; may be repeated.")
@json_option
def export(directory: Path, out: Path, kind: str, only: tuple[str, ...], as_json: bool) -> None:
    """Write a finished sweep's models to a new folder OUT that stands alone, with a model card.

    The best single model, the members of the ensemble, the soup and the student, as far as there are such:
    programs, weights, the fitted transform, class names and figures. The sweep may be deleted then.

    \b
    Examples:
      orchestrate export sweeps/digits digits-model
      orchestrate export sweeps/digits digits-model --only single --only student
      orchestrate export sweeps/digits digits-onnx --format onnx
    """
    from orchestrator.export.write import export as write

    shows = not as_json and sys.stderr.isatty()
    manifest = write(
        directory,
        out,
        kind=kind,
        only=only,
        note=lambda text: click.echo(f"\r\x1b[K{text} …", nl=False, err=True) if shows else None,
    )
    if shows:
        click.echo("\r\x1b[K", nl=False, err=True)
    if as_json:
        click.echo(json.dumps(manifest, indent=1))
        return
    for name, model in manifest["models"].items():
        count = len(model["networks"])
        click.echo(f"{name}: {count} network{'' if count == 1 else 's'}")
    for name, network in manifest["networks"].items():
        if network["program"] is None:
            click.echo(f"{name} has weights, and no program: {network['why_no_program']}")
    click.echo(f"{short(out.resolve())}: read README.md there; try it: orchestrate predict {short(out)} test")


@click.command()
@click.argument("folder", metavar="OUT", type=click.Path(path_type=Path))
@click.argument("data")
@click.option("--model", type=click.Choice(_MODELS), help="Which model; the ensemble where there is one.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write all predictions: FILE.parquet or FILE.csv."
)
@click.option("--path", help="For test: where the dataset's file or folder is now.")
@click.option(
    "--calibrated", is_flag=True, help="Probabilities with the temperature fitted on validation data."
)
@click.option(
    "--own-code", is_flag=True, help="Let code of your own run that the folder names; only if you trust it."
)
@json_option
def predict(
    folder: Path,
    data: str,
    model: str | None,
    out: Path | None,
    path: str | None,
    calibrated: bool,
    own_code: bool,
    as_json: bool,
) -> None:
    """Predict DATA with a model of the exported folder OUT.

    DATA is `test`, the held-out part of the dataset that the models were measured on; or raw samples: *.npz
    (x, and y where known), *.parquet or *.csv with the columns of the training data, an image, or a folder of
    images. With right answers in it, it says how good the model is.

    \b
    Examples:
      orchestrate predict digits-model test
      orchestrate predict digits-model new.npz --model student --out predictions.parquet
      orchestrate predict flowers-model pictures/
    """
    from orchestrator.export.manifest import open_exported
    from orchestrator.export.predict import predict as run

    found = run(
        open_exported(folder),
        data,
        model=model,
        out=out,
        path=path,
        calibrated=calibrated,
        own_code=own_code,
    )
    if as_json:
        click.echo(json.dumps(_to_json(found), indent=1))
        return
    _show(found, out)


def _to_json(found: Predicted) -> dict[str, object]:
    tally = found.tally
    confusion = None if tally.confusion is None else tally.confusion.tolist()
    return {
        "samples": tally.samples,
        "with_answers": tally.known,
        "scores": tally.scores,
        "reported": dict(found.reported),
        "classes": list(tally.classes),
        "confusion": confusion,
        "first": found.first,
    }


def _show(found: Predicted, out: Path | None) -> None:
    tally = found.tally
    answers = "" if tally.known == tally.samples else f", {tally.known} with a right answer"
    click.echo(f"{tally.samples} samples{answers}")
    for name, value in tally.scores.items():
        said = found.reported.get(name)
        beside = "" if said is None else f"   (reported: {said:.6g}, difference {abs(value - said):.1g})"
        click.echo(f"  {name.replace('_', ' '):<9} {value:.6g}{beside}")
    for right, taken, count in tally.mistakes()[:5]:
        click.echo(f"  {count} of class '{right}' taken for '{taken}'")
    if out is not None:
        click.echo(f"predictions: {short(out.resolve())}")
    elif not tally.known:
        rows = [list(found.first), *zip(*found.first.values(), strict=True)]
        for row in rows:
            click.echo("  ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in row))
        click.echo("All of them: --out FILE.parquet")
