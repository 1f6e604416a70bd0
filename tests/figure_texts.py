"""The texts of a Plotly figure, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def strings(value: Any) -> Iterator[str]:
    """All texts anywhere in a figure, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (text for item in value.values() for text in strings(item))
    elif isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        yield from (text for item in value for text in strings(item))
