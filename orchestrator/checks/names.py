"""The checks by id, in the order in which one rests on the other; light to import, for the planner."""

from __future__ import annotations

NAMES = {
    "D0": "outputs, targets and loss fit together",
    "D6": "what goes into the network",
    "D11": "one softmax, not two",
    "D1": "the first loss",
    "D4": "no leak across the batch",
    "D3": "a small batch can be fitted",
    "D2": "the network uses its input",
    "D9": "every layer learns",
    "D5": "two runs from one seed agree",
    "D8": "gradients of own layers",
    "D7": "baselines to beat",
    "D10": "labels belong to their inputs",
}
