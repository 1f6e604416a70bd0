"""From an exported folder to functions that predict: no pickle is read, and no code but this package's."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from orchestrator.data.resize import resize
from orchestrator.data.transforms import Transform
from orchestrator.errors import UserError, how_to_install, nearest
from orchestrator.export.manifest import NAME, Exported
from orchestrator.export.networks import BUILT_IN, LOGITS
from orchestrator.export.program import Finished
from orchestrator.export.vetting import load_program
from orchestrator.training.build import bare_network
from orchestrator.training.settings import read_job

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Preparation:
    """How raw samples are prepared for a network.

    Attributes:
        side: pixels that images are resized to; None: as they are.
        transform: as it was fitted; None where the samples come prepared.
        dtype: of what goes into the network.
    """

    side: int | None
    transform: Transform | None
    dtype: torch.dtype

    def __call__(self, raw: NDArray[Any]) -> Tensor:
        """Return raw samples (k, *raw shape) as they go into the network."""
        inputs = raw if self.side is None else resize(raw, self.side)
        if self.transform is not None:
            inputs = self.transform(inputs)
        return torch.from_numpy(np.array(inputs)).to(self.dtype)


@dataclass(frozen=True, slots=True)
class Predictor:
    """One network of an exported folder."""

    prepare: Preparation
    run: Run
    outputs: str

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities of classes, or values, of raw samples (k, *raw shape): (k, outputs)."""
        with torch.no_grad():
            outputs = self.run(self.prepare(raw)).double()
        if self.outputs == LOGITS:
            outputs = torch.softmax(outputs, dim=1)
        return outputs.reshape(len(raw), -1).numpy().astype(np.float32)


@dataclass(frozen=True, slots=True)
class Model:
    """What predicts: one network, or several that are combined."""

    predictors: tuple[Predictor, ...]
    combine: Callable[[list[NDArray[np.float32]]], NDArray[np.float32]]

    def __call__(self, raw: NDArray[Any]) -> NDArray[np.float32]:
        """Return probabilities of classes, or values, of raw samples (k, *raw shape): (k, outputs)."""
        return self.combine([predictor(raw) for predictor in self.predictors])


def load_model(exported: Exported, name: str, *, own_code: bool = False) -> Model:
    """Load a model of an exported folder.

    Args:
        exported: the folder.
        name: single, ensemble, soup or student.
        own_code: let a network be built by code that the manifest names, where it has no program.

    Raises:
        UserError: it has no such model, or a file of it is damaged or not what was written.
    """
    models = exported.manifest["models"]
    if name not in models:
        raise UserError(f"has no model '{name}'", file=exported.folder, hint=nearest(name, models))
    try:
        predictors = tuple(_predictor(exported, each, own_code) for each in models[name]["networks"])
        return Model(predictors, _combining(models[name]))
    except (KeyError, TypeError, AttributeError) as error:
        raise not_whole(exported, error) from error


def not_whole(exported: Exported, error: Exception) -> UserError:
    """Return what to raise where a manifest lacks what it should say."""
    why = f"is not a whole manifest ({type(error).__name__}: {error})"
    return UserError(why, file=exported.folder / NAME, hint="Export anew")


def _predictor(exported: Exported, name: str, own_code: bool) -> Predictor:
    network = exported.manifest["networks"][name]
    inputs = exported.manifest["inputs"][network["inputs"]]
    program = network["program"]
    if program is None:
        run = _rebuilt(exported, network, inputs, own_code)
    elif program.endswith(".onnx"):
        run = _onnx(exported.read(program), exported.folder / program)
    else:
        run = load_program(exported.read(program), exported.folder / program)
    return Predictor(_preparation(exported, inputs), run, network["outputs"])


def _preparation(exported: Exported, inputs: Mapping[str, Any]) -> Preparation:
    transform = None
    if files := inputs.get("transform"):
        content = json.loads(exported.read(files["steps"]))
        try:
            arrays = safetensors.numpy.load(exported.read(files["arrays"]))
        except SafetensorError as error:
            raise UserError(
                f"not readable as safetensors ({error})", file=exported.folder / files["arrays"]
            ) from error
        # Imported late: scikit-learn takes a second, and samples that come prepared need none of it.
        from orchestrator.export.preprocessing import restore

        transform = restore(content, arrays, exported.folder / files["steps"])
    dtype = torch.int64 if inputs["dtype"] == "int64" else torch.float32
    return Preparation(inputs.get("resolution"), transform, dtype)


def _rebuilt(
    exported: Exported, network: Mapping[str, Any], inputs: Mapping[str, Any], own_code: bool
) -> Run:
    """Build a network of the built-in job anew, and give it the weights.

    Raises:
        UserError: it is of somebody's own code.
    """
    why = f"it could not be made a program ({network['why_no_program']})"
    if exported.manifest["job"].get("jobs.predict") != BUILT_IN:
        named = exported.manifest["job"].get("jobs.setup") or exported.manifest["job"]["jobs._target_"]
        raise UserError(
            f"has weights alone: {why}",
            file=exported.folder,
            hint=f"Build the model with your own code ({named}; a copy is in code/) and load "
            f"{network['weights']} with safetensors.torch.load_file",
        )
    settings = read_job(network["job"])
    if settings.model.target is not None and not own_code:
        raise UserError(
            f"needs {settings.model.target}: {why}",
            file=exported.folder,
            hint="Say --own-code if you trust the code of that name on this machine",
        )
    classes = exported.manifest["classes"]
    model = bare_network(settings, tuple(inputs["shape"]), len(classes) or 1, inputs["vocabulary"])
    try:
        model.load_state_dict(safetensors.torch.load(exported.read(network["weights"])))
    except (SafetensorError, RuntimeError) as error:
        raise UserError(
            f"does not fit its network ({str(error).splitlines()[0]})",
            file=exported.folder / network["weights"],
        ) from error
    return Finished(model, network["scale"], network["center"]).eval()


def _onnx(content: bytes, file: object) -> Run:
    """Return what runs an ONNX program, on one thread: the same bits each time."""
    try:
        import onnxruntime
    except ImportError:
        raise UserError(
            "needs onnxruntime, which is not installed",
            file=file,
            hint=how_to_install("onnx"),
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(inputs: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: inputs.numpy()})[0])

    return run


def _combining(model: Mapping[str, Any]) -> Callable[[list[NDArray[np.float32]]], NDArray[np.float32]]:
    """Return what makes one prediction of those of a model's networks."""
    if "weights" not in model:
        return lambda each: each[0]
    if model.get("combination") is None:
        weights = np.asarray(model["weights"])

        def mean(each: list[NDArray[np.float32]]) -> NDArray[np.float32]:
            total: NDArray[np.float32] = np.tensordot(weights, np.asarray(each, np.float64), 1).astype(
                np.float32
            )
            return total

        return mean
    from orchestrator.ensemble.combine import Combination
    from orchestrator.ensemble.library import Arrays

    combination = Combination.from_json(model["combination"])
    return lambda each: combination.apply(Arrays(each))
