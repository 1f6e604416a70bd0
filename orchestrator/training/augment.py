"""Random changes of training batches: flips, shifts, turns, noise and mixing.

They happen on the device, to a whole batch at a time, each sample by chances of its own. What a change brings
in from outside an image is the image's edge, continued: after a transform 0 need not be the background.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from orchestrator.errors import UserError
from orchestrator.training.settings import AugmentationSettings

Augment = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def build_augment(
    settings: AugmentationSettings, shape: tuple[int, ...], num_classes: int | None
) -> Augment | None:
    """Build the changes that a job asks for.

    Args:
        settings: the job's `augmentation`.
        shape: of one sample; flips, shifts and turns are for images (channels, height, width) alone.
        num_classes: for the probabilities that mixup makes of classes; None for values, which are mixed as
            they are.

    Returns:
        A function of inputs (n, *shape) and targets (n,) that gives both anew; targets are (n, classes)
        float32 after mixup of classes. It draws from torch's global generators. None where nothing changes.

    Raises:
        UserError: a number out of range, or a change that these samples have no sense for. Tokens are refused
            when the first batch comes.
    """
    _check(settings, shape)
    if not settings.enabled:
        return None
    changes: list[Callable[[Tensor], Tensor]] = []
    if settings.flip or settings.shift:
        changes.append(lambda inputs: _moved(inputs, settings.flip, settings.shift))
    if settings.rotate:
        changes.append(lambda inputs: _turned(inputs, settings.rotate))
    if settings.noise:
        changes.append(lambda inputs: inputs + settings.noise * torch.randn_like(inputs))
    if not changes and not settings.mixup:
        return None

    def augment(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        if not inputs.is_floating_point():
            raise UserError("tokens cannot be changed a little", key="augmentation", hint="Leave it out")
        for change in changes:
            inputs = change(inputs)
        return _mixed(inputs, targets, settings.mixup, num_classes) if settings.mixup else (inputs, targets)

    return augment


def _moved(inputs: Tensor, flip: bool, shift: int) -> Tensor:
    """Mirror images half of the time and move them by whole pixels, without interpolation."""
    samples, _, height, width = inputs.shape
    down, right = torch.randint(-shift, shift + 1, (2, samples, 1))
    rows = (torch.arange(height) + down).clamp(0, height - 1)
    columns = (torch.arange(width) + right).clamp(0, width - 1)
    if flip:
        mirrored = torch.rand(samples, 1) < 0.5
        columns = torch.where(mirrored, width - 1 - columns, columns)
    each = torch.arange(samples)[:, None, None]
    places = [part.to(inputs.device) for part in (each, rows[:, :, None], columns[:, None, :])]
    # Indices around a slice put the channels last.
    return inputs[places[0], :, places[1], places[2]].permute(0, 3, 1, 2).contiguous()


def _turned(inputs: Tensor, degrees: float) -> Tensor:
    """Turn images about their middle by up to so many degrees, with bilinear interpolation."""
    samples, _, height, width = inputs.shape
    angle = math.radians(degrees) * (2 * torch.rand(samples) - 1)
    sine, cosine, nothing = angle.sin(), angle.cos(), torch.zeros(samples)
    # affine_grid counts each side from -1 to 1, so lengths along different sides differ by their ratio.
    across = torch.stack([cosine, -sine * height / width, nothing], dim=1)
    along = torch.stack([sine * width / height, cosine, nothing], dim=1)
    maps = torch.stack([across, along], dim=1).to(inputs)
    grid = functional.affine_grid(maps, list(inputs.shape), align_corners=False)
    return functional.grid_sample(inputs, grid, padding_mode="border", align_corners=False)


def _mixed(inputs: Tensor, targets: Tensor, alpha: float, num_classes: int | None) -> tuple[Tensor, Tensor]:
    """Blend each sample and its target with another of the batch (Zhang et al. 2018, "mixup").

    The share of the other one is the same for the whole batch, as in the paper's code.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    other = torch.randperm(len(inputs)).to(inputs.device)
    if not targets.is_floating_point():
        targets = functional.one_hot(targets, num_classes or -1).float()
    return torch.lerp(inputs[other], inputs, share), torch.lerp(targets[other], targets, share)


def _check(settings: AugmentationSettings, shape: tuple[int, ...]) -> None:
    """Refuse numbers out of range, and changes of images where there are none."""
    for key in ("shift", "rotate", "noise", "mixup"):
        value = getattr(settings, key)
        if not math.isfinite(value) or value < 0:
            raise UserError(f"{value} is below 0 or no number", key=f"augmentation.{key}", hint="0 is none")
    for key in ("flip", "shift", "rotate"):
        if getattr(settings, key) and len(shape) != 3:
            raise UserError(
                f"is for images (channels, height, width), and a sample's shape is {shape}",
                key=f"augmentation.{key}",
                hint="noise and mixup are for any numbers",
            )
    if len(shape) == 3 and settings.shift >= min(shape[1:]):
        raise UserError(
            f"{settings.shift} pixels are as many as the images have ({shape[1]}x{shape[2]})",
            key="augmentation.shift",
        )
