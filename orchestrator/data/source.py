"""What a source of samples is: all labels at once, samples on demand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLASSIFICATION, REGRESSION = "classification", "regression"
TASKS = (CLASSIFICATION, REGRESSION)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A dataset: labels at once, samples on demand.

    Attributes:
        labels: (n,) int64, the class of every sample, 0 to len(class_names) - 1. For regression the
            number of the quantile bin that its value is in, which is used to stratify and for nothing else.
        class_names: what the classes are called, in the order of their numbers; () for regression.
        shape: of one sample: (features,) for a table, (channels, height, width) for images, (length,) for
            sequences of tokens, (length, features) for sequences of numbers.
        load: gives the samples with these indices (k,) as float32 (k, *shape), int64 for tokens, and reads
            no others where it can help it.
        targets: (n,) float32, the value of every sample, for regression; None for classes.
        vocabulary: the number of different tokens, for sequences of tokens: they are 0 to vocabulary - 1,
            where 0 is padding. None for numbers.
        columns: what the features of a table are called, where they have names.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    shape: tuple[int, ...]
    load: Callable[[NDArray[np.int64]], NDArray[Any]]
    targets: NDArray[np.float32] | None = None
    vocabulary: int | None = None
    columns: tuple[str, ...] = ()

    @property
    def task(self) -> str:
        """CLASSIFICATION or REGRESSION."""
        return CLASSIFICATION if self.targets is None else REGRESSION
