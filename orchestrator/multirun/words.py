"""The words of Hydra's command line: which keys are searched, which are fixed, and a setting as overrides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.core.override_parser.types import ValueType as Kind

from orchestrator.errors import UserError
from orchestrator.space.grammar import choice_value, plain_choice

COMMAND_LINE = "the command line"
# Text that Hydra reads back as it is.
_PLAIN = re.compile(r"(?!(?i:true|false|null|nan|inf)$)[A-Za-z_][\w./-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True, slots=True)
class Word:
    """One override: a key with one value, or with a range.

    Attributes:
        key: as the user wrote it, with `+` and `@package`; with `~` it takes a key away.
        name: without signs in front; the parameter's name where it is searched.
        text: the value, as the user wrote it; None where there is none (`~key`).
        declared: the range in Hydra's grammar, or the list of its choices; None where it is fixed.
        written: each choice as an override has it, by the type and the value that a setting holds.
        plain: each choice as it is, by the same.
    """

    key: str
    name: str
    text: str | None
    declared: Any = None
    written: Mapping[tuple[type, Any], str] = field(default_factory=dict)
    plain: Mapping[tuple[type, Any], Any] = field(default_factory=dict)

    @property
    def searched(self) -> bool:
        """Whether it has a range."""
        return self.declared is not None

    def override(self, value: Any = None) -> str:
        """Return the override of one job; `value` is what a setting holds, where it is searched."""
        if not self.searched:
            return self.key if self.text is None else f"{self.key}={self.text}"
        return f"{self.key}={self.written.get((type(value), value)) or as_text(value)}"

    def value(self, held: Any) -> Any:
        """Return a choice as it was written where a setting holds the text of a list or mapping."""
        return self.plain.get((type(held), held), held)


def read_words(overrides: Sequence[Override]) -> tuple[Word, ...]:
    """Read parsed overrides; of several for one key the last counts, in the place of the first.

    Raises:
        UserError: a key that is taken away has a range.
    """
    words: dict[str, Word] = {}
    for override in overrides:
        word = _word(override)
        words[word.name] = word
    return tuple(words.values())


def _word(override: Override) -> Word:
    key = override.get_key_element()
    name = key.lstrip("+~")
    if not override.is_sweep_override():
        text = None if override.value_type is None else override.get_value_element_as_str()
        return Word(key=key, name=name, text=text)
    if override.is_delete():
        raise UserError("what is taken away can't be searched", file=COMMAND_LINE, key=key)
    declared: Any = override.get_value_string()
    text = str(declared)
    if not override.is_choice_sweep():
        return Word(key=key, name=name, text=text, declared=text)
    items: list[Any]
    if override.value_type == Kind.GLOB_CHOICE_SWEEP:
        # The names of a config group's options.
        items = list(override.sweep_iterator())
        if not items:
            raise UserError(f"{text} fits no option", file=COMMAND_LINE, key=key)
        declared = items
    else:
        choices = override.value()
        assert isinstance(choices, ChoiceSweep)
        items = list(choices.list)
    held = [(choice_value(item), item) for item in items]
    return Word(
        key=key, name=name, text=text, declared=declared,
        written={(type(value), value): as_text(plain_choice(item)) for value, item in held},
        plain={(type(value), value): plain_choice(item) for value, item in held},
    )  # fmt: skip


def as_text(value: Any) -> str:
    """Return a value as Hydra's grammar has it.

    Hydra's own functions forget the quotes inside of `choice(...)`, which makes '1' the number 1.
    """
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{as_text(key)}:{as_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(as_text, value)) + "]"
    if value is None:
        return "null"
    if not isinstance(value, str) or _PLAIN.fullmatch(value):
        return str(value)
    return QuotedString(text=value, quote=Quote.single).with_quotes()


def job_overrides(words: Sequence[Word], params: Mapping[str, Any], scale: Mapping[str, Any]) -> list[str]:
    """Return the overrides of one job, in the order of the command line, and the stage's scale after them.

    Args:
        words: all of the command line.
        params: the setting; a parameter that it does not have is left out.
        scale: the values of a stage by the keys that they go to, with `+` where the application has none.
    """
    set_by_stage = {key.lstrip("+") for key in scale}
    own = [
        word.override(params.get(word.name))
        for word in words
        if (word.name in params if word.searched else word.name not in set_by_stage)
    ]
    return own + [f"{key}={as_text(value)}" for key, value in scale.items()]
