"""Residual networks for images, activations before weights (He et al. 2016, Identity Mappings)."""

from __future__ import annotations

from torch import Tensor, nn

from orchestrator.training.activations import ACTIVATIONS, pieces
from orchestrator.training.settings import ModelSettings


class Block(nn.Module):
    """x + conv(act(norm(conv(act(norm(x)))))): (n, channels, h, w) to (n, width, h / stride, w / stride).

    Dropout lies between the convolutions (Zagoruyko and Komodakis 2016), as a dropped channel of the sum
    would be lost to all later blocks. Where the shape changes, the input passes a 1x1 convolution.
    """

    def __init__(self, settings: ModelSettings, channels: int, width: int, stride: int) -> None:
        super().__init__()
        kernel, wide = settings.kernel, width * pieces(settings.activation)
        plain = not settings.batch_norm
        self.before = activated(settings, channels)
        taken = channels // pieces(settings.activation)
        self.first = nn.Conv2d(taken, wide, kernel, stride, kernel // 2, bias=plain)
        self.between = nn.Sequential(
            *activated(settings, wide), *([nn.Dropout2d(settings.dropout)] if settings.dropout else [])
        )
        self.second = nn.Conv2d(width, width, kernel, 1, kernel // 2, bias=plain)
        changes = stride != 1 or channels != width
        self.shortcut = nn.Conv2d(taken, width, 1, stride, bias=plain) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        """Return (n, width, h / stride, w / stride)."""
        ready = self.before(inputs)
        kept = inputs if self.shortcut is None else self.shortcut(ready)
        changed: Tensor = self.second(self.between(self.first(ready)))
        return kept + changed


def activated(settings: ModelSettings, channels: int) -> nn.Sequential:
    """Return batch normalization, if wanted, and the activation."""
    norm = [nn.BatchNorm2d(channels)] if settings.batch_norm else []
    return nn.Sequential(*norm, ACTIVATIONS[settings.activation]())


def residual(settings: ModelSettings, shape: tuple[int, ...], outputs: int) -> nn.Sequential:
    """Build a residual network of `depth` blocks, whose channels double from block to block.

    Every block but the first halves the sides, until one is down to a pixel. Its last features are averaged
    over the image.
    """
    channels, *sides = shape
    pad = settings.kernel // 2
    # A sum of blocks that is fed into maxout has an even number of channels, as its width is doubled.
    width = settings.width * pieces(settings.activation)
    layers: list[nn.Module] = [nn.Dropout(settings.input_dropout)] if settings.input_dropout else []
    layers.append(nn.Conv2d(channels, width, settings.kernel, padding=pad, bias=not settings.batch_norm))
    channels = width
    for number in range(settings.depth):
        stride = 2 if number and min(sides) >= 2 else 1
        layers.append(Block(settings, channels, width * 2**number, stride))
        channels, sides = width * 2**number, [-(-side // stride) for side in sides]
    last = channels // pieces(settings.activation)
    layers += [activated(settings, channels), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(last, outputs))
