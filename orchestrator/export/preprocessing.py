"""A fitted transform as JSON and arrays, and back: bit for bit what was fitted, and no pickle.

A fitted transform is a partial application of a function of orchestrator.data.transforms_*; what it learned
are its keywords: arrays, numbers, scikit-learn's scalers, and other such applications. Of each a node of JSON
is written, and the arrays beside it, by number.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.preprocessing import (
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from orchestrator.data import transforms_columns, transforms_components, transforms_images
from orchestrator.data.transforms import Transform
from orchestrator.errors import UserError

Arrays = dict[str, NDArray[Any]]

# Only what is named here is called when a file is read: it may be anybody's.
FUNCTIONS = {
    function.__name__: function
    for module in (transforms_columns, transforms_components, transforms_images)
    for function in module.APPLIED
}
SCALERS = {
    kind.__name__: kind
    for kind in (MinMaxScaler, PCA, PowerTransformer, QuantileTransformer, RobustScaler, StandardScaler)
}
_PLAIN = (bool, int, float, str, type(None))


def store(transform: Transform) -> tuple[dict[str, Any], Arrays]:
    """Return a fitted transform as what goes to JSON, and its arrays by their names there."""
    arrays: Arrays = {}
    steps = [_stored(step, arrays) for step in transform.steps]
    return {"names": list(transform.names), "shape": list(transform.shape), "steps": steps}, arrays


def restore(content: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], file: object) -> Transform:
    """Return the transform that `store` wrote.

    Args:
        content: of the JSON.
        arrays: that belong to it.
        file: for messages.

    Raises:
        UserError: it is damaged, or holds what this version does not know.
    """
    try:
        steps = [_restored(node, arrays) for node in content["steps"]]
        return Transform.restored(content["names"], steps, [int(side) for side in content["shape"]])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"is no fitted transform of this version ({type(error).__name__}: {error})",
            file=file,
            hint="Export it anew, or use the version of the package that its manifest names",
        ) from error


def _stored(value: Any, arrays: Arrays) -> dict[str, Any]:
    if isinstance(value, _PLAIN):
        return {"value": value}
    if isinstance(value, np.ndarray | np.generic):
        return _stored_array(np.asarray(value), arrays, number=isinstance(value, np.generic))
    if isinstance(value, tuple | list):
        return {"list": [_stored(each, arrays) for each in value]}
    if isinstance(value, dict):
        return {"mapping": _nodes(value, arrays)}
    if isinstance(value, functools.partial) and FUNCTIONS.get(value.func.__name__) is value.func:
        return {"function": value.func.__name__, "keywords": _nodes(value.keywords, arrays)}
    if SCALERS.get(type(value).__name__) is type(value):
        settings = value.get_params(deep=False)
        learned = {name: each for name, each in vars(value).items() if name not in settings}
        return {
            "scaler": type(value).__name__,
            "settings": _nodes(settings, arrays),
            "learned": _nodes(learned, arrays),
        }
    raise TypeError(f"a transform holds {type(value).__name__}, which cannot be written down")


def _nodes(values: Mapping[str, Any], arrays: Arrays) -> dict[str, Any]:
    return {str(name): _stored(each, arrays) for name, each in values.items()}


def _stored_array(array: NDArray[Any], arrays: Arrays, *, number: bool) -> dict[str, Any]:
    """Return the node of an array; its memory's order too, on which the last bits of a product may depend."""
    name = f"{len(arrays):04d}"
    by_columns = array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous
    arrays[name] = np.ascontiguousarray(array.T if by_columns else array).reshape(
        array.T.shape if by_columns else array.shape
    )
    return {"number" if number else "columns" if by_columns else "array": name}


def _restored(node: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Any:
    if "value" in node:
        return node["value"]
    if "array" in node:
        return arrays[node["array"]]
    if "columns" in node:
        return arrays[node["columns"]].T
    if "number" in node:
        return arrays[node["number"]][()]
    if "list" in node:
        return tuple(_restored(each, arrays) for each in node["list"])
    if "mapping" in node:
        return _mapping(node["mapping"], arrays)
    if "function" in node:
        return functools.partial(FUNCTIONS[node["function"]], **_mapping(node["keywords"], arrays))
    scaler = SCALERS[node["scaler"]](**_mapping(node["settings"], arrays))
    for name, each in _mapping(node["learned"], arrays).items():
        setattr(scaler, name, each)
    return scaler


def _mapping(nodes: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    return {str(name): _restored(each, arrays) for name, each in nodes.items()}
