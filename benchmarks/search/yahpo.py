"""The surrogates of YAHPO Gym (arXiv 2109.03670): LCBench and rbv2_rpart, by ONNX Runtime on one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from task import Result, Setting, Task

from orchestrator.space import parse_space

# The published search spaces (config_space.json), in Hydra's grammar.
LCBENCH_SPACE = {
    "batch_size": "tag(log, int(interval(16, 512)))",
    "learning_rate": "tag(log, interval(1e-4, 1e-1))",
    "momentum": "interval(0.1, 0.99)",
    "weight_decay": "interval(1e-5, 1e-1)",
    "num_layers": "int(interval(1, 5))",
    "max_units": "tag(log, int(interval(64, 1024)))",
    "max_dropout": "interval(0.0, 1.0)",
}
RPART_SPACE = {
    "cp": "tag(log, interval(0.0009118819655545162, 1.0))",
    "maxdepth": "int(interval(1, 30))",
    "minbucket": "int(interval(1, 100))",
    "minsplit": "int(interval(1, 100))",
    "impute": "choice(impute.hist, impute.mean, impute.median)",
}
EPOCHS = 52
SMALLEST_TRAINSIZE = 0.03
REPLICATIONS = 10.0
# Columns of LCBench's output: balanced accuracy, the only one that it has for validation and for test data.
VALIDATION_ACCURACY, TEST_ACCURACY = 3, 5
LCBENCH_NUMBERS = tuple(LCBENCH_SPACE)
RPART_NUMBERS = ("cp", "maxdepth", "minbucket", "minsplit")


@lru_cache(maxsize=4)
def session(folder: Path) -> Any:
    """Return the model of a scenario, loaded once in a process; one thread, as many processes run at once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])


def predict(folder: Path, categories: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the model's outputs, a row for each setting.

    Args:
        folder: the scenario's folder.
        categories: codes by encoding.json, in the order that the model was trained with.
        numbers: raw values, in the order that the model was trained with (not the alphabet's).
    """
    inputs = {"x_cat": categories.astype(np.int32), "x_cont": numbers.astype(np.float32)}
    return session(folder).run(None, inputs)[0]


@lru_cache(maxsize=4)
def encoding(folder: Path) -> dict[str, dict[str, int]]:
    """Return the codes of a scenario's categories."""
    return json.loads((folder / "encoding.json").read_text())


def lcbench(folder: Path, dataset: str, half: str) -> Task:
    """Return LCBench on one data set: a neural network's 7 parameters; fidelity: epochs of 52.

    Validation and test are 1 - balanced accuracy.
    """
    code = encoding(folder)["OpenML_task_id"][dataset]

    def score(settings: Sequence[Setting], fidelities: Sequence[float], seed: int) -> list[Result]:
        numbers = [
            [round(fidelity * EPOCHS), *(setting[name] for name in LCBENCH_NUMBERS)]
            for setting, fidelity in zip(settings, fidelities, strict=True)
        ]
        outputs = predict(folder, np.full((len(settings), 1), code), np.array(numbers))
        return [Result(share(1 - row[VALIDATION_ACCURACY]), share(1 - row[TEST_ACCURACY])) for row in outputs]

    return Task(
        name=f"lcbench/{dataset}", family="lcbench", half=half, resumable=True, score=score,
        space=parse_space(LCBENCH_SPACE, {}, "lcbench"), lowest=1 / EPOCHS,
        levels=tuple(epoch / EPOCHS for epoch in range(1, EPOCHS + 1)),
    )  # fmt: skip


def rpart(folder: Path, dataset: str, half: str) -> Task:
    """Return rbv2_rpart on one data set: a decision tree's 5 parameters; fidelity: share of the data.

    The surrogate has no output for test data, so `test` is the validation error at full scale whatever the
    fidelity asked for.
    """
    codes = encoding(folder)
    code, impute = codes["task_id"][dataset], codes["num.impute.selected.cpo"]

    def errors(settings: Sequence[Setting], fidelities: Sequence[float]) -> list[float]:
        categories = np.array([[code, impute[setting["impute"]]] for setting in settings])
        numbers = [
            [*(setting[name] for name in RPART_NUMBERS), fidelity, REPLICATIONS]
            for setting, fidelity in zip(settings, fidelities, strict=True)
        ]
        return [share(1 - row[0]) for row in predict(folder, categories, np.array(numbers))]

    def score(settings: Sequence[Setting], fidelities: Sequence[float], seed: int) -> list[Result]:
        count = len(settings)
        both = errors([*settings, *settings], [*fidelities, *[1.0] * count])
        return [Result(*pair) for pair in zip(both[:count], both[count:], strict=True)]

    return Task(
        name=f"rpart/{dataset}", family="rpart", half=half, resumable=False, score=score,
        space=parse_space(RPART_SPACE, {}, "rpart"), lowest=SMALLEST_TRAINSIZE,
    )  # fmt: skip


def share(value: float) -> float:
    """Return an error rate inside [0, 1], which a surrogate may leave by a little."""
    return min(max(float(value), 0.0), 1.0)
