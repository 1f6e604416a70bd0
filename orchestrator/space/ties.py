"""What a setting makes of the job's config: its groups' options, its values, and what is tied to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from orchestrator.config import has_path
from orchestrator.errors import UserError
from orchestrator.schema import SweepConfig
from orchestrator.space import expressions
from orchestrator.space.expressions import Absent, Expression, ExpressionError
from orchestrator.space.names import options


def write_options(node: DictConfig, config: SweepConfig, params: Mapping[str, Any]) -> None:
    """Put the chosen options of a setting's groups in place, outer groups before those inside them."""
    for name in sorted(params, key=lambda path: path.count(".")):
        if found := options(config, name):
            OmegaConf.update(node, name, found[str(params[name])], merge=False, force_add=True)


def write_values(node: DictConfig, config: SweepConfig, params: Mapping[str, Any]) -> None:
    """Write the values of a setting where the config has a place for them; others serve ties alone."""
    for name, value in params.items():
        if not options(config, name) and has_path(node, name):
            OmegaConf.update(node, name, value, merge=False)


def write_ties(node: DictConfig, config: SweepConfig, params: Mapping[str, Any]) -> None:
    """Compute the tied keys that this trial's config has, in the order in which they depend on each other.

    Raises:
        UserError: one has no value.
    """
    for path, expression in ordered_ties(config.tied).items():
        if not has_path(node, path):
            continue
        try:
            present = OmegaConf.select(node, path, throw_on_resolution_failure=False)
            value = _fitting(expression.value(_lookup(node, params)), present)
        except Absent as error:
            raise UserError(
                f"'{expression.text}' refers to '{error}', which this setting does not have",
                key=f"tied.{path}", hint="Write one value if condition else another",
            ) from None  # fmt: skip
        except ExpressionError as error:
            where = ", ".join(f"{name} {params[name]}" for name in expression.names if name in params)
            at = f" at {where}" if where else ""
            raise UserError(
                f"'{expression.text}' has no value{at}: {error.problem}", key=f"tied.{path}", hint=error.hint
            ) from None
        OmegaConf.update(node, path, value, merge=False)


def ordered_ties(tied: Mapping[str, Any]) -> dict[str, Expression]:
    """Return ties in an order in which each comes after those that it depends on.

    Raises:
        UserError: they go round in a circle, or one is no expression.
    """
    read = {}
    for path, declared in tied.items():
        try:
            read[path] = expressions.parse(expressions.as_text(declared))
        except ExpressionError as error:
            raise UserError(error.problem, key=f"tied.{path}", hint=error.hint) from None
    ordered: dict[str, Expression] = {}

    def place(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            circle = " → ".join([*above[above.index(path) :], path])
            raise UserError(f"{circle} goes round in a circle", key=f"tied.{path}")
        for name in read[path].names:
            if name in read and name not in ordered:
                place(name, (*above, path))
        ordered.setdefault(path, read[path])

    for path in read:
        place(path, ())
    return ordered


def _lookup(node: DictConfig, params: Mapping[str, Any]) -> Any:
    """Look a name up among a setting's values, and then in its config."""

    def lookup(name: str) -> Any:
        if name in params:
            return params[name]
        if not has_path(node, name):
            raise Absent(name)
        try:
            return OmegaConf.select(node, name)
        except OmegaConfBaseException as error:
            raise ExpressionError(f"'{name}' can't be read: {' '.join(str(error).split())}") from None

    return lookup


def _fitting(value: Any, present: Any) -> Any:
    """Return a computed value in the type of what it replaces: a count stays a whole number."""
    if not isinstance(value, int | float | str) and value is not None:
        raise ExpressionError("a list or a mapping, where one value belongs")
    if isinstance(value, float) and type(present) is int and value == int(value):
        return int(value)
    return value
