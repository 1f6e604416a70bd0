"""Initial values, by name (practice, C6). All are drawn from torch's global random state.

`auto` follows the activation: He et al. 2015 for the rectifiers, Glorot and Bengio 2010 (Xavier) for tanh
and for the last layer, so that the first loss is near log(classes); orthogonal (Saxe et al. 2014) for the
weights from state to state of recurrent layers, whose powers then neither vanish nor explode. Any other name
holds for all layers. Biases begin at zero, but an LSTM's forget gate at 1 (Gers et al. 2000, Jozefowicz et
al. 2015) and a highway's gate below zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from orchestrator.errors import UserError, nearest
from orchestrator.training.activations import slope
from orchestrator.training.heads import last_layer
from orchestrator.training.highway import Highway
from orchestrator.training.residual import Block
from orchestrator.training.settings import ModelSettings

AUTO = "auto"
SMALL_UNIFORM = 0.05
SMALL_NORMAL = 0.01  # Krizhevsky et al. 2012
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Fill = Callable[[Tensor], Tensor]


def fills(activation: str) -> dict[str, Fill]:
    """Return what sets a weight (outputs, inputs, ...), by name; He's know the activation's slope."""
    below = slope(activation)
    return {
        "xavier_uniform": nn.init.xavier_uniform_,
        "xavier_normal": nn.init.xavier_normal_,
        "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, a=below, nonlinearity="leaky_relu"),
        "he_normal": lambda weight: nn.init.kaiming_normal_(weight, a=below, nonlinearity="leaky_relu"),
        "orthogonal": lambda weight: (
            nn.init.orthogonal_(weight, gain=math.sqrt(2 / (1 + below**2)))
            if activation != "tanh"
            else nn.init.orthogonal_(weight)
        ),
        "uniform": lambda weight: nn.init.uniform_(weight, -SMALL_UNIFORM, SMALL_UNIFORM),
        "normal": lambda weight: nn.init.normal_(weight, std=SMALL_NORMAL),
    }


INITS = (AUTO, *fills("relu"))


def check_init(settings: ModelSettings) -> None:
    """Check the names of `init` and `output_bias`.

    Raises:
        UserError: a name that does not exist.
    """
    for key, choices in (("init", INITS), ("output_bias", ("zero", "data"))):
        value = getattr(settings, key)
        if value not in choices:
            raise UserError(f"there is no {key} '{value}'", key=f"model.{key}", hint=nearest(value, choices))


def initialize(model: nn.Module, settings: ModelSettings) -> None:
    """Set all initial values of a model; embeddings and normalizations keep torch's own.

    Args:
        model: changed in place.
        settings: init and activation.
    """
    fill = fills(settings.activation)
    usual = fill["xavier_uniform" if settings.activation == "tanh" else "he_normal"]
    chosen = fill.get(settings.init)
    layers = [module for module in model.modules() if isinstance(module, WEIGHTED)]
    for layer in layers:
        last = layer is layers[-1]
        (chosen or (fill["xavier_uniform"] if last else usual))(layer.weight)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for module in model.modules():
        if isinstance(module, nn.LSTM | nn.GRU | nn.RNN):
            # A gain above 1, as rectifiers want it, would make the state grow from step to step.
            across = nn.init.orthogonal_ if settings.init == "orthogonal" else chosen
            _recurrent(module, chosen or fill["xavier_uniform"], across or nn.init.orthogonal_)
        elif isinstance(module, Highway):
            nn.init.constant_(module.gate.bias, module.gate_bias)
    if chosen is None:
        _quiet_blocks(model)


def set_output_bias(model: nn.Module, targets: Tensor, num_classes: int | None) -> None:
    """Let the last bias begin at what the targets are on average, so that training need not find it first.

    Args:
        model: its last layer is changed in place.
        targets: of the training part; (n,) int64 classes, or (n,) float values.
        num_classes: None for values.

    Raises:
        UserError: the last layer has no bias, or one of another size.
    """
    last = last_layer(model)
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise UserError("data: the last layer has no bias to set", key="model.output_bias", hint="Say zero")
    if num_classes is None:
        start = targets.float().mean().reshape(1)
    else:
        # Half a sample stands for none: its logarithm is finite.
        counts = torch.bincount(targets, minlength=num_classes).double().clamp(min=0.5)
        start = (counts / counts.sum()).log().float()
    if last.bias.shape != start.shape:
        raise UserError(
            f"data: the last layer has {len(last.bias)} outputs, not {len(start)}",
            key="model.output_bias",
            hint="Say zero",
        )
    with torch.no_grad():
        last.bias.copy_(start)


def _recurrent(module: nn.RNNBase, inward: Fill, across: Fill) -> None:
    """Set the weights of each gate alone, so that fans and orthogonality are a gate's own."""
    for name, values in module.named_parameters():
        with torch.no_grad():
            if name.startswith("bias"):
                values.zero_()
                if isinstance(module, nn.LSTM) and name.startswith("bias_ih"):
                    # Order of gates: input, forget, cell, output. The other bias is added, and stays zero.
                    values[module.hidden_size : 2 * module.hidden_size] = 1.0
                continue
            for gate in torch.split(values, module.hidden_size):
                (across if name.startswith("weight_hh") else inward)(gate)


def _quiet_blocks(model: nn.Module) -> None:
    """Keep the sum of residual blocks that have no normalization from growing with their number."""
    blocks = [module for module in model.modules() if isinstance(module, Block)]
    for block in blocks:
        if block.second.bias is not None:  # the sign of a block without normalization
            with torch.no_grad():
                block.second.weight.mul_(len(blocks) ** -0.5)
