"""A finding: what was seen of one trial, the evidence for it, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LR_TOO_LARGE, LR_TOO_SMALL = "lr_too_large", "lr_too_small"
UNDERFITTING, OVERFITTING = "underfitting", "overfitting"
NAN_INPUT, NAN_OPERATION, NAN_GRADIENT, NAN_INITIAL = (
    "nan_input",
    "nan_operation",
    "nan_gradient",
    "nan_initial",
)
DEAD, SATURATED = "dead_units", "saturated_units"
RATIO_HIGH, RATIO_LOW = "updates_too_large", "updates_too_small"
UNSTABLE = "unstable_predictions"
# Of a training that goes on in spite of its patience: when it waits, and what became of that in the end.
WAITING, PLATEAU, NO_PLATEAU = "waiting", "plateau", "no_plateau"

# What to try, by code: row E of docs/practice.md.
ADVICE: Mapping[str, str] = {
    LR_TOO_LARGE: "lower the learning rate, by 3 to 10 times; warm up, or clip the gradient",
    LR_TOO_SMALL: "raise the learning rate, by 3 to 10 times",
    UNDERFITTING: "more layers or units, less dropout and weight decay, or more epochs",
    OVERFITTING: "more data or augmentation, more dropout or weight decay, or stop early",
    NAN_INPUT: "clean the data: `orchestrate inspect` counts values that are not finite",
    NAN_OPERATION: "keep the operation from where it is not defined: add a small number, or clamp its input",
    NAN_GRADIENT: "clip the gradient, or lower the learning rate",
    NAN_INITIAL: "smaller initial values, or inputs scaled to unit variance",
    DEAD: "leaky_relu, a lower learning rate, or other initial values",
    SATURATED: "relu, smaller initial values, or batch normalization before the activation",
    RATIO_HIGH: "lower the learning rate",
    RATIO_LOW: "raise the learning rate",
    UNSTABLE: "lower the learning rate or let it decay; average weights, or take larger batches",
    WAITING: "leave it training: what looks like a plateau often is none",
    PLATEAU: "fewer epochs, a rate that is lowered there, or `stopping.then: stop`",
    NO_PLATEAU: "leave it training; with `stopping.then: stop`, a longer patience",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding on one trial.

    Attributes:
        code: what was found, such as lr_too_large; the keys of `ADVICE`.
        evidence: what was seen, in numbers, for a person to read.
        advice: what to try.
        step: the update (from 1) at which it showed.
    """

    code: str
    evidence: str
    advice: str
    step: int

    def line(self, trial: str) -> dict[str, Any]:
        """Return it as a line for the records of a trial."""
        return {
            "kind": "finding",
            "trial": trial,
            "code": self.code,
            "evidence": self.evidence,
            "advice": self.advice,
            "step": self.step,
        }


def finding(code: str, evidence: str, step: int) -> Finding:
    """Return a finding with the advice that goes with its code."""
    return Finding(code, evidence, ADVICE[code], step)
