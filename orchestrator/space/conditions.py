"""When a parameter exists: under one option of a group, and where the expressions of `when` hold.

Whatever a condition refers to besides parameters (ties, the job's own values, what a group's option holds) is
put into it here, so that a setting alone decides which of its parameters are there (`space.active`).
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import UserError, nearest
from orchestrator.schema import SweepConfig
from orchestrator.space import active, expressions, parse_space
from orchestrator.space.corners import corners
from orchestrator.space.expressions import Expression, ExpressionError
from orchestrator.space.groups import check_options, with_options
from orchestrator.space.names import NOTHING, Names, names_of, reference
from orchestrator.space.parameter import Parameter, Value, show

MOST_TRIED = 2048


def completed(config: SweepConfig, folder: Path, file: Path | str) -> SweepConfig:
    """Return a sweep that needs none of the files beside it: groups' options and ties in full.

    Raises:
        UserError: a range, an option or a tie is wrong.
    """
    space = parse_space(config.space, config.jobs.limits, file)
    config = with_options(config, space, folder)
    check_options(config, space, file, folder)
    names = names_of(config, space)
    tied = {}
    for name, declared in config.tied.items():
        try:
            written = expressions.parse(expressions.as_text(declared))
            spoken = expressions.with_text(written, names.values)
        except ExpressionError as error:
            raise UserError(error.problem, file=file, key=f"tied.{name}", hint=error.hint) from None
        tied[name] = declared if spoken.names == written.names else spoken.text
    return replace(config, tied=tied)


def declared_space(config: SweepConfig, file: Path | str) -> tuple[Parameter, ...]:
    """Return the parameters of a sweep, each with the condition under which it exists.

    Raises:
        UserError: a range or a condition is wrong, or a condition never holds.
    """
    space = parse_space(config.space, config.jobs.limits, file)
    check_options(config, space, file)
    names = names_of(config, space)
    for name in config.when:
        if name not in names.space:
            raise UserError(
                "is not in the space, so nothing depends on the condition", file=file, key=f"when.{name}",
                hint=nearest(name, names.space),
            )  # fmt: skip
    parts = {parameter.name: _parts(parameter.name, config, names, file) for parameter in space}
    conditional = tuple(replace(p, when=_all_of(parts[p.name])) for p in space)
    _check_circles(conditional, file)
    for parameter in conditional:
        if parameter.when:
            _check_possible(parameter, parts, conditional, file)
    return conditional


def _parts(name: str, config: SweepConfig, names: Names, file: Path | str) -> list[Expression]:
    """Return the conditions of a parameter: that of its group, and its own."""
    parts = []
    if (group := names.group_of(name)) is not None:
        there = names.in_options(name)
        chosen = [value for value in names.space[group].values if str(value) in there]
        if not chosen:
            known = [path for path in names.everything() if path.startswith(f"{group}.")]
            raise UserError(
                f"exists under no option of {group}", file=file, key=f"space.{name}",
                hint=nearest(name, known),
            )  # fmt: skip
        if len(chosen) < len(names.space[group].values):
            parts.append(expressions.from_tree(_is_one_of(group, chosen)))
    if name in config.when:
        try:
            own = _resolved(expressions.parse(expressions.as_text(config.when[name])), names)
        except ExpressionError as error:
            raise UserError(error.problem, file=file, key=f"when.{name}", hint=error.hint) from None
        if not own.names:
            _check_constant(own, name, " ".join(str(config.when[name]).split()), file)
        else:
            parts.append(own)
    return parts


def _check_constant(condition: Expression, name: str, written: str, file: Path | str) -> None:
    """A condition on what does not vary either goes without saying or leaves nothing of the parameter."""
    try:
        value = condition.value(_no_names)
        if isinstance(value, str):
            raise UserError(
                f"'{value}' is a text, not a condition", file=file, key=f"when.{name}",
                hint="Leave the inner quotes out: model.depth > 1",
            )  # fmt: skip
        if value:
            return
    except ExpressionError as error:
        raise UserError(error.problem, file=file, key=f"when.{name}", hint=error.hint) from None
    raise UserError(
        f"'{written}' never holds: in the job's config it reads {condition.text}", file=file,
        key=f"when.{name}", hint=f"Change the config, or leave {name} out of the space",
    )  # fmt: skip


def _no_names(name: str) -> Value:
    raise AssertionError(f"{name} stands in an expression without names")


def _is_one_of(name: str, values: Sequence[Value]) -> ast.expr:
    texts = [expressions.literal(value) for value in values]
    if len(texts) == 1:
        return ast.Compare(left=ast.Name(id=name), ops=[ast.Eq()], comparators=texts)
    return ast.Compare(left=ast.Name(id=name), ops=[ast.In()], comparators=[ast.Tuple(elts=texts)])


def _all_of(parts: Sequence[Expression]) -> str:
    if not parts:
        return ""
    if len(parts) == 1:
        return parts[0].text
    return expressions.from_tree(ast.BoolOp(op=ast.And(), values=[part.tree for part in parts])).text


def _resolved(expression: Expression, names: Names, through: tuple[str, ...] = ()) -> Expression:
    """Return an expression over parameters alone."""
    spoken = expressions.with_text(expression, names.values)
    others = [name for name in spoken.names if name not in names.space]
    return expressions.replaced(spoken, {name: _stand_in(name, names, through) for name in others})


def _stand_in(name: str, names: Names, through: tuple[str, ...]) -> ast.expr:
    """Return what a name that is no parameter stands for."""
    if name in through:
        circle = " → ".join([*through[through.index(name) :], name])
        raise ExpressionError(f"{circle} goes round in a circle")
    if name in names.tied:
        return _resolved(expressions.parse(names.tied[name]), names, (*through, name)).tree
    if name in names.scaled:
        raise ExpressionError(
            f"'{name}' differs from stage to stage, and a parameter exists in all of them or in none",
            "Refer to parameters, or to what no stage sets",
        )
    if (group := names.group_of(name)) is not None and (options := names.in_options(name)):
        return _by_option(name, group, options, names, through)
    return _constant(name, names.fixed(name), names, through)


def _by_option(
    name: str, group: str, options: Mapping[str, object], names: Names, through: tuple[str, ...]
) -> ast.expr:
    """Return an expression for what a group's options hold: the value of whichever is chosen."""
    chosen = [value for value in names.space[group].values if str(value) in options]
    contents = [_constant(name, options[str(value)], names, (*through, name)) for value in chosen]
    # Under an option that has no such key the name stands for nothing, and the condition does not hold.
    everywhere = len(chosen) == len(names.space[group].values)
    result = contents.pop() if everywhere else ast.Name(id=name)
    for value, content in reversed(list(zip(chosen, contents, strict=False))):
        result = ast.IfExp(test=_is_one_of(group, [value]), body=content, orelse=result)
    return result


def _constant(name: str, value: object, names: Names, through: tuple[str, ...]) -> ast.expr:
    if value is NOTHING:
        raise unknown(name, names)
    if isinstance(value, dict):
        inner = ", ".join(f"{name}.{key}" for key in value)
        raise ExpressionError(f"'{name}' is a group of the job's config", f"In it: {inner}" if inner else "")
    if (path := reference(value)) is not None:
        return ast.Name(id=path) if path in names.space else _stand_in(path, names, (*through, name))
    if isinstance(value, list) or (isinstance(value, str) and "${" in value):
        raise ExpressionError(f"'{name}' is {value!r} in the job's config: neither a number nor text")
    return expressions.literal(value)


def unknown(name: str, names: Names) -> ExpressionError:
    """Return the error about a name that means nothing."""
    hint = nearest(name, names.everything())
    if hint.startswith("Valid"):
        hint = "It is neither a parameter nor a key of the job's config; text is written in quotes"
    return ExpressionError(f"there is no '{name}'", hint)


def _check_circles(space: Sequence[Parameter], file: Path | str) -> None:
    """Refuse parameters that exist only when they exist."""
    depends = {p.name: expressions.parse(p.when).names if p.when else () for p in space}
    finished: set[str] = set()

    def follow(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise UserError(f"{circle} goes round in a circle", file=file, key=f"when.{name}")
        if name not in finished:
            for other in depends.get(name, ()):
                follow(other, (*path, name))
            finished.add(name)

    for name in depends:
        follow(name, ())


def _check_possible(
    parameter: Parameter, parts: Mapping[str, list[Expression]], space: Sequence[Parameter], file: Path | str
) -> None:
    """Refuse a parameter that no setting of the declared ranges has; say which conditions are to blame."""
    above = relatives(parameter.name, space)
    whole = [part for ancestor in above for part in parts[ancestor.name]]
    settings = list(corners(above, MOST_TRIED, thresholds(whole)))
    possible = False
    for setting in settings:
        there = active(above, setting)
        possible = possible or parameter.name in there
        for part in parts[parameter.name]:
            _check_value(part, there, parameter.name, file)
    if possible:
        return
    alone = all(any(_holds(part, setting) for setting in settings) for part in whole)
    shown = " and ".join(f"'{part.text}'" for part in whole)
    problem = f"{shown} exclude each other" if len(whole) > 1 and alone else f"{shown} never holds"
    raise UserError(
        f"{problem} in the declared ranges ({len(settings):,} settings were tried)", file=file,
        key=f"when.{parameter.name}",
        hint=f"Widen a range or change the condition, or leave {parameter.name} out of the space",
    )  # fmt: skip


def relatives(name: str, space: Sequence[Parameter]) -> list[Parameter]:
    """Return a parameter and those that its condition depends on, near or far."""
    by_name = {parameter.name: parameter for parameter in space}
    found = [name]
    for each in found:
        when = by_name[each].when
        depends = expressions.parse(when).names if when else ()
        found += [other for other in depends if other in by_name and other not in found]
    return [parameter for parameter in space if parameter.name in found]


def thresholds(parts: Sequence[Expression]) -> list[float]:
    """Return the numbers in expressions, where their truth may turn."""
    constants = [node.value for p in parts for node in ast.walk(p.tree) if isinstance(node, ast.Constant)]
    numbers = [value for value in constants if isinstance(value, int | float) and type(value) is not bool]
    return list(dict.fromkeys([*numbers, *(-number for number in numbers)]))


def _check_value(condition: Expression, setting: Mapping[str, Value], name: str, file: Path | str) -> None:
    try:
        _holds(condition, setting)
    except ExpressionError as error:
        places = ", ".join(f"{n} {show(setting[n])}" for n in condition.names if n in setting)
        raise UserError(
            f"'{condition.text}' has no value at {places}: {error.problem}", file=file, key=f"when.{name}",
            hint=error.hint,
        ) from None  # fmt: skip


def _holds(condition: Expression, setting: Mapping[str, Value]) -> bool:
    def lookup(name: str) -> Value:
        if name not in setting:
            raise expressions.Absent(name)
        return setting[name]

    try:
        return bool(condition.value(lookup))
    except expressions.Absent:
        return False
