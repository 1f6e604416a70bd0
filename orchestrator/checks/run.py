"""All checks of a set-up, one after the other."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import torch

from orchestrator.checks.baselines import baselines, labels_belong
from orchestrator.checks.gradients import own_gradients
from orchestrator.checks.inputs import looks_right
from orchestrator.checks.layers import all_learn
from orchestrator.checks.leaks import no_leak
from orchestrator.checks.names import NAMES
from orchestrator.checks.pieces import fits, one_softmax
from orchestrator.checks.repeat import agrees
from orchestrator.checks.result import CheckResult, raised, skipped
from orchestrator.checks.setup import Setup, mixed
from orchestrator.checks.start import first_loss, small_batch_is_fitted, uses_input
from orchestrator.checks.subject import Subject
from orchestrator.errors import UserError, nearest

__all__ = ["CHECKS", "CheckResult", "run_checks"]

Check = Callable[[Subject], CheckResult]
CHECKS: dict[str, Check] = {
    "D0": fits,
    "D6": looks_right,
    "D11": one_softmax,
    "D1": first_loss,
    "D4": no_leak,
    "D3": small_batch_is_fitted,
    "D2": uses_input,
    "D9": all_learn,
    "D5": agrees,
    "D8": own_gradients,
    "D7": baselines,
    "D10": labels_belong,
}
# Samples of each part that the checks look at.
LOOKED_AT = 10_000
# These say something also where model and loss don't fit together.
_ALONE = ("D0", "D6", "D7", "D8")


def run_checks(
    make: Callable[[], Setup],
    *,
    skip: Iterable[str] = (),
    human_accuracy: float | None = None,
    train_twice: Callable[[], Mapping[str, float]] | None = None,
    progress: Callable[[str], None] = lambda name: None,
) -> tuple[CheckResult, ...]:
    """Run the sanity checks of a set-up (practice, D); the same set-up gives the same results.

    Args:
        make: builds the set-up anew, the same each time.
        skip: ids of checks to leave out.
        human_accuracy: what people reach on the task, from 0 to 1.
        train_twice: trains from one seed at the smallest scale and returns metrics; D5 calls it twice.
        progress: is told the name of each check before it runs.

    Returns:
        A result for each check, also for those that were left out. One that raises has failed.

    Raises:
        UserError: there is no such check, or `make` says that something is wrong.
    """
    left_out = checked_ids(skip)
    subject = Subject(
        make=make, setup=mixed(make(), LOOKED_AT), human_accuracy=human_accuracy, train=train_twice
    )
    results: list[CheckResult] = []
    fit = True
    for name, check in CHECKS.items():
        progress(NAMES[name])
        if name in left_out:
            results.append(skipped(name, "left out"))
        elif not fit and name not in _ALONE:
            results.append(skipped(name, "needs D0"))
        else:
            results.append(_timed(name, check, subject))
        fit = fit and not (name == "D0" and results[-1].passed is False)
    return tuple(results)


def checked_ids(skip: Iterable[str]) -> frozenset[str]:
    """Return ids of checks.

    Raises:
        UserError: there is no such check.
    """
    for name in (wanted := list(skip)):
        if name not in NAMES:
            raise UserError(f"there is no check '{name}'", key="checks.skip", hint=nearest(name, NAMES))
    return frozenset(wanted)


def _timed(name: str, check: Check, subject: Subject) -> CheckResult:
    began = time.perf_counter()
    try:
        # cuDNN's recurrent layers have no gradient in evaluation mode, in which a leak shows best.
        with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=False):
            # A set-up's warnings are for its training; what they warn of is for the checks to see.
            warnings.simplefilter("ignore")
            result = check(subject)
    except Exception as error:
        result = raised(name, error)
    return replace(result, seconds=time.perf_counter() - began)
