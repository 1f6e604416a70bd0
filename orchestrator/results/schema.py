"""The Parquet schema of the results: fixed by the plan, the same for every stage.

Columns are float64, int64 or string and nothing else, so that pandas, polars, DuckDB and Spark read them
alike. Which `param.*` columns there are and of what type is decided by the first stage's space, which
later stages only narrow; which `metric.*` columns there are by the union over all stages. `stage` is the
directory's name (hive partitioning) and is not repeated inside the files. A number that is missing or
NaN is null; a string is never null but for a parameter that its setting does not have (one option of a
group has it, or a condition does not hold).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

VERSION = "1"
STRING, INT, FLOAT = pa.string(), pa.int64(), pa.float64()

_BEFORE = [
    ("sweep", STRING),
    ("trial_id", STRING),
    ("setting_id", STRING),
    ("origin", STRING),
    ("parent", STRING),
    ("state", STRING),
    ("objective", FLOAT),
]
_AFTER = [
    ("scale.data", FLOAT),
    ("scale.samples", INT),
    ("scale.classes", INT),
    ("scale.epochs", FLOAT),
    ("seed", INT),
    ("attempts", INT),
    ("seconds", FLOAT),
    ("gpu_seconds", FLOAT),
    ("slurm_job_id", STRING),
    ("host", STRING),
    ("gpu", STRING),
    ("git_commit", STRING),
    ("diagnosis", STRING),
    ("diagnosis_evidence", STRING),
    ("error", STRING),
]


def trials_schema(parameters: Mapping[str, Mapping[str, Any]], metrics: Iterable[str]) -> pa.Schema:
    """Return the schema of `results/trials`.

    Args:
        parameters: the first stage's `space.json`, its "parameters".
        metrics: the names of all metrics of all stages, in the order of their columns.
    """
    params = [(f"param.{name}", parameter_type(spec)) for name, spec in parameters.items()]
    measured = [(f"metric.{name}", FLOAT) for name in metrics]
    return _versioned([*_BEFORE, *params, *measured, *_AFTER])


def curves_schema() -> pa.Schema:
    """Return the schema of `results/curves`; `time` is in seconds since the epoch."""
    return _versioned(
        [("trial_id", STRING), ("step", INT), ("metric", STRING), ("value", FLOAT), ("time", FLOAT)]
    )


def _versioned(fields: list[tuple[str, pa.DataType]]) -> pa.Schema:
    return pa.schema(fields, metadata={"orchestrator.results": VERSION})


def parameter_type(spec: Mapping[str, Any]) -> pa.DataType:
    """Return the column type of one parameter of a `space.json`."""
    if spec["kind"] in ("float", "int"):
        return FLOAT if spec["kind"] == "float" else INT
    kinds = {type(value) for value in spec["values"]}  # the exact type: a bool is an int otherwise
    if kinds == {int}:
        return INT
    return FLOAT if kinds and kinds <= {int, float} else STRING


def coerce(value: Any, kind: pa.DataType) -> Any:
    """Return a value as its column holds it; a number that the column cannot hold becomes None."""
    if kind == STRING:
        return text(value)
    if value is None or (isinstance(value, str) and kind == INT):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(number):
        return None
    if kind == FLOAT:
        return number
    return int(value) if abs(number) < 2**63 and number == int(value) else None


def text(value: Any) -> str:
    """Return a value as text that Parquet can hold: JSON unless it is a string, no lone surrogates."""
    written = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return written.encode("utf-8", "replace").decode("utf-8")
