"""Metrics in a program's output, matched line by line."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.errors import ProgramFailed, UserError

# One step's metrics; the step is None where the program tells none.
Row = tuple[int | None, dict[str, float]]
STEP = "step"
# A line is searched for one metric within far less.
LINE_SECONDS = 10.0
NUMBER = r"[-+]?(?:(?i:nan|inf(?:inity)?)|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"


def compiled(patterns: Mapping[str, str], key: str) -> dict[str, re.Pattern[str]]:
    r"""Return regular expressions, each with one group that holds the number.

    `%` stands for such a group with any number in it, NaN and infinity among them; `\%` is the sign itself.

    Raises:
        UserError: one is not regular, or has not exactly one group.
    """
    found = {}
    for name, text in patterns.items():
        try:
            pattern = re.compile(re.sub(r"\\.|%", _number, str(text), flags=re.DOTALL))
        except re.error as error:
            problem = f"{text!r} is no regular expression: {error}"
            raise UserError(problem, key=f"{key}.{name}") from None
        if pattern.groups != 1:
            example = f"'{name.split('/')[-1]}: %'"
            hint = f"Put the number in parentheses, others as (?:...); or write % for it: {example}"
            problem = f"{text!r} has {pattern.groups} groups, where one belongs"
            raise UserError(problem, key=f"{key}.{name}", hint=hint)
        found[name] = pattern
    return found


def _number(found: re.Match[str]) -> str:
    return f"({NUMBER})" if found.group() == "%" else found.group()


@dataclass(slots=True)
class Matched:
    """Metrics matched in a program's output, line by line.

    A row is whole when it has all metrics, when the step changes, or when a metric comes a second time.

    Attributes:
        patterns: a regular expression for each metric; the one called `step` gives the step of what stands in
            the same line or in those after it.
    """

    patterns: Mapping[str, re.Pattern[str]]
    _step: int | None = None
    _values: dict[str, float] = field(default_factory=dict)
    # the line that is being searched, for what, and since when
    _searched: tuple[str, str, float] | None = None

    def line(self, text: str) -> Iterator[Row]:
        """Take a line; gives the rows that it completes."""
        seen: dict[str, float] = {}
        step: int | None = None
        for name, found in self._search(text):
            number = as_number(found.group(1))
            if name != STEP:
                seen[name] = number
            elif math.isfinite(number):
                step = int(number)
        if (step is not None and step != self._step) or seen.keys() & self._values.keys():
            yield from self.rest()
        if step is not None:
            self._step = step
        self._values.update(seen)
        if len(self._values) == len(self.patterns.keys() - {STEP}):
            yield from self.rest()

    @contextlib.contextmanager
    def bounded(self) -> Iterator[None]:
        """Give no line more than `LINE_SECONDS` in a `with` block, in which the main thread takes lines.

        Some expressions, such as `(a+)+b`, try so many ways to match a line that they never come to an end.

        Raises:
            ProgramFailed: a line took longer.
        """

        def look(number: int, frame: object) -> None:
            if self._searched is None:
                return
            text, name, since = self._searched
            if time.monotonic() - since >= LINE_SECONDS:
                raise ProgramFailed(
                    f"a line of its output:\n{text[:200]}\n"
                    f"it is not searched for '{name}' within {LINE_SECONDS:g} s (jobs.metrics.output): parts "
                    "of the regular expression that repeat can match the same text in too many ways"
                )

        # Matching looks for signals now and then, so what a handler raises ends it.
        before = signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, LINE_SECONDS, LINE_SECONDS / 2)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def _search(self, text: str) -> list[tuple[str, re.Match[str]]]:
        found = []
        try:
            for name, pattern in self.patterns.items():
                self._searched = text, name, time.monotonic()
                if match := pattern.search(text):
                    found.append((name, match))
        finally:
            self._searched = None
        return found

    def rest(self) -> Iterator[Row]:
        """Give what no other line completes any more."""
        if self._values:
            values, self._values = self._values, {}
            yield self._step, values


def as_number(value: object) -> float:
    """Return a number; what is none becomes NaN."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan
