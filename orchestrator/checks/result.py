"""What a check says."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from orchestrator.checks.names import NAMES


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """What one check saw, and what follows.

    Attributes:
        id: such as D3.
        name: what is checked.
        passed: None where the check does not apply or was skipped.
        saw: with the figures that decide.
        cause: the likely one, of a failed check.
        next: what to do then.
        seconds: that it took.
        details: for the report: figures, pictures; JSON's types alone.
    """

    id: str
    name: str
    passed: bool | None
    saw: str
    cause: str = ""
    next: str = ""
    seconds: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values; None stands for numbers that are not finite."""
        return {name: _finite(value) for name, value in asdict(self).items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def passed(check: str, saw: str, details: Mapping[str, Any] | None = None) -> CheckResult:
    """Return that all is well."""
    return CheckResult(id=check, name=NAMES[check], passed=True, saw=saw, details=details or {})


def skipped(check: str, saw: str, details: Mapping[str, Any] | None = None) -> CheckResult:
    """Return that a check does not apply here, and why."""
    return CheckResult(id=check, name=NAMES[check], passed=None, saw=saw, details=details or {})


def failed(
    check: str, saw: str, cause: str, advice: str, details: Mapping[str, Any] | None = None
) -> CheckResult:
    """Return that something is wrong."""
    return CheckResult(
        id=check,
        name=NAMES[check],
        passed=False,
        saw=saw,
        cause=cause,
        next=advice,
        details=details or {},
    )


def raised(check: str, error: Exception) -> CheckResult:
    """Return that a check could not be carried out, and the line of code that raised."""
    last = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if "/torch/" not in frame.filename] or list(frames)
    where = f"{theirs[-1].filename}, line {theirs[-1].lineno}: {theirs[-1].line}" if theirs else ""
    return failed(
        check,
        f"it raised {last[:300]}",
        f"at {where}" if where else "an error in model or loss",
        "Run the model and the loss on a few samples by hand",
        {"traceback": "".join(traceback.format_exception(error))[-4000:]},
    )
