"""The command that combines a sweep's models anew."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from orchestrator.commands.sweeps import (
    checked,
    console,
    directory_argument,
    json_option,
    open_target,
    overrides_argument,
    short,
)
from orchestrator.errors import UserError, nearest

if TYPE_CHECKING:
    from orchestrator.schema import SweepConfig

_WHERE = "command line"


@click.command()
@directory_argument
@overrides_argument
@json_option
@click.option("--dry-run", is_flag=True, help="Choose on validation data only; read no test label.")
def ensemble(directory: Path, overrides: tuple[str, ...], as_json: bool, dry_run: bool) -> None:
    """Combine a sweep's models anew, from the predictions that it stored. Nothing is trained or predicted.

    The figures before are kept as ensemble-0001.json and on. Each choice that is measured is another look
    at the test data, and is counted: try things with --dry-run.

    \b
    Examples:
      orchestrate ensemble sweeps/digits ensemble.combine=greedy ensemble.bags=20 --dry-run
      orchestrate ensemble sweeps/digits "ensemble.members=[seeds,settings]"
    """
    from orchestrator.ensemble.anew import combine_anew, meaning, preview
    from orchestrator.sweep import lease

    sweep = open_target(directory, ())
    config = with_settings(sweep.config, checked(overrides))
    if dry_run:
        chosen = preview(sweep.directory, config)
        if as_json:
            click.echo(json.dumps(chosen, indent=1))
        else:
            _show_choice(chosen)
        return
    with lease.hold(sweep.directory.lease, "orchestrate ensemble"):
        result = combine_anew(sweep.directory, config)
    if as_json:
        click.echo(json.dumps(result, indent=1))
        return
    from orchestrator.report.ensemble_words import summary_rows

    screen = console()
    for name, text in summary_rows(result):
        screen.print(f"{name}: {text}", markup=False, highlight=False)
    click.echo(meaning(int(result["test_looks"])))
    click.echo(f"the page has it after: orchestrate report {short(directory)}")


def with_settings(config: SweepConfig, overrides: Sequence[str]) -> SweepConfig:
    """Return a sweep's config with other settings of its ensemble.

    Args:
        config: of the sweep.
        overrides: ensemble.KEY=VALUE each, in YAML: ensemble.members=[seeds,settings].

    Raises:
        UserError: another key, or a value that it can't have.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from orchestrator.planning.validate_ensemble import validate_ensemble
    from orchestrator.schema import EnsembleConfig

    node = OmegaConf.structured(config.ensemble)
    names = [each.name for each in fields(EnsembleConfig) if each.name not in ("student", "model_key")]
    for text in overrides:
        key = text.partition("=")[0]
        section, _, name = key.partition(".")
        if section != "ensemble" or name not in names:
            hint = nearest(key, [f"ensemble.{each}" for each in names])
            raise UserError("this can't be changed after the sweep", file=_WHERE, key=key, hint=hint)
        try:
            node = OmegaConf.merge(node, OmegaConf.from_dotlist([text.partition(".")[2]]))
        except (OmegaConfBaseException, ValueError) as error:
            problem = str(error).splitlines()[0]
            raise UserError(problem, file=_WHERE, key=key) from None
    changed = OmegaConf.to_object(node)
    assert isinstance(changed, EnsembleConfig), "the schema's type stays"
    validate_ensemble(changed, _WHERE)
    return replace(config, ensemble=changed)


def _show_choice(chosen: Mapping[str, Any]) -> None:
    """Show what would be chosen: validation data's figures alone."""
    score = str(chosen["score"]).replace("_", " ")
    click.echo(
        f"{len(chosen['members'])} members of {chosen['candidates']} candidates, by {chosen['combine']}: "
        f"{chosen['nested']['why']}"
    )
    for name, value in chosen["validation"].items():
        click.echo(f"  validation {score}, {name.replace('_', ' ')}: {value:.4f}")
    for name, each in chosen["nested"]["methods"].items():
        click.echo(f"  nested {score}, {name}: {each['value']:.4f}, gain {each['gain']:+.4f}")
    click.echo("Nothing is written, and no test label was read. Measure it: the same without --dry-run")
