"""Random changes of training batches."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from orchestrator.errors import UserError
from orchestrator.training.augment import Augment, build_augment
from orchestrator.training.settings import AugmentationSettings as Settings

SHAPE = (2, 6, 8)


def built(settings: Settings, shape: tuple[int, ...] = SHAPE, classes: int | None = 4) -> Augment:
    augment = build_augment(settings, shape, classes)
    assert augment is not None
    return augment


def images(samples: int = 64, shape: tuple[int, ...] = SHAPE) -> tuple[Tensor, Tensor]:
    """Return images of which every pixel has a value of its own, and their classes."""
    draw = torch.Generator().manual_seed(3)
    return torch.rand(samples, *shape, generator=draw), torch.arange(samples) % 4


@pytest.mark.parametrize("settings", [Settings(), Settings(enabled=False, flip=True, mixup=0.4)])
def test_none_where_nothing_changes(settings: Settings) -> None:
    assert build_augment(settings, SHAPE, 4) is None


def test_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    inputs, targets = images(200)
    out, same = built(Settings(flip=True))(inputs, targets)
    assert torch.equal(same, targets)
    flipped = (out == inputs.flip(3)).all(dim=3).all(dim=2).all(dim=1)
    kept = (out == inputs).all(dim=3).all(dim=2).all(dim=1)
    assert bool((flipped ^ kept).all())
    assert 70 < int(flipped.sum()) < 130


def test_images_are_moved_by_whole_pixels_and_edges_go_on() -> None:
    torch.manual_seed(0)
    inputs, targets = images()
    before = inputs.clone()
    out, _ = built(Settings(shift=2))(inputs, targets)
    assert torch.equal(inputs, before), "the data themselves stay"
    padded = torch.nn.functional.pad(inputs, (2, 2, 2, 2), mode="replicate")
    seen = set()
    for image, wide in zip(out, padded, strict=True):
        places = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(image, wide[:, down : down + 6, right : right + 8])
        ]
        assert len(places) == 1
        seen.add(places[0])
    assert len(seen) > 15, "of 25 places; each image by chances of its own"


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 7, 15)])
def test_images_are_turned_about_their_middle(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, targets = images(4, shape)
    monkeypatch.setattr(torch, "rand", lambda samples: torch.ones(samples))
    half, _ = built(Settings(rotate=180.0), shape)(inputs, targets)
    assert torch.allclose(half, inputs.flip((2, 3)), atol=1e-4)
    quarter, _ = built(Settings(rotate=90.0), shape)(inputs, targets)
    # A quarter turn keeps the square in the middle within itself, also where sides differ.
    side, (height, width) = min(shape[1:]), shape[1:]
    top, left = (height - side) // 2, (width - side) // 2
    square = inputs[:, :, top : top + side, left : left + side]
    turned = quarter[:, :, top : top + side, left : left + side]
    assert any(torch.allclose(turned, square.rot90(k, (2, 3)), atol=1e-4) for k in (1, 3))


def test_turns_are_within_their_limit() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 21).expand(500, 1, 21, 21).contiguous()
    out, _ = built(Settings(rotate=20.0), (1, 21, 21))(ramp, torch.zeros(500, dtype=torch.int64))
    middle = out[:, 0, 7:14, 7:14]
    along, across = middle.diff(dim=2).mean((1, 2)), middle.diff(dim=1).mean((1, 2))
    degrees = torch.rad2deg(torch.atan2(across, along))
    assert float(degrees.abs().max()) <= 20.01
    assert float(degrees.min()) < -15 and float(degrees.max()) > 15


def test_noise_has_its_deviation() -> None:
    torch.manual_seed(0)
    inputs = torch.zeros(500, 3)
    out, _ = built(Settings(noise=0.3), (3,))(inputs, torch.zeros(500, dtype=torch.int64))
    assert float(out.std()) == pytest.approx(0.3, rel=0.1)
    assert not inputs.any()


def test_mixup_mixes_inputs_and_targets_alike() -> None:
    torch.manual_seed(0)
    augment = built(Settings(mixup=1.0), (4,))
    inputs = torch.eye(4).repeat(8, 1)
    targets = torch.arange(4).repeat(8)
    shares = []
    for _ in range(20):
        mixed, soft = augment(inputs, targets)
        assert torch.allclose(mixed, soft), "the inputs are their own targets here"
        assert torch.allclose(soft.sum(1), torch.ones(32))
        shares.append(float(soft[0].max()))
    assert len({round(share, 3) for share in shares}) > 10


def test_values_are_mixed_as_they_are() -> None:
    torch.manual_seed(0)
    numbers = torch.randn(50)
    mixed, targets = built(Settings(mixup=0.5), (1,), None)(numbers[:, None], numbers)
    assert targets.shape == (50,)
    assert torch.allclose(mixed[:, 0], targets)
    assert not torch.equal(targets, numbers)


ALL = Settings(flip=True, shift=1, rotate=10.0, noise=0.1, mixup=0.4)


def test_chance_is_in_torchs_global_state() -> None:
    augment, (inputs, targets) = built(ALL), images()
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = augment(inputs, targets), augment(inputs, targets)
    torch.set_rng_state(state)
    again = augment(inputs, targets)
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], second[0])
    assert first[0].shape == inputs.shape and first[0].dtype == torch.float32
    assert first[0].is_contiguous() and first[1].shape == (64, 4)


def test_a_batch_of_one() -> None:
    inputs, targets = images(1)
    out, soft = built(ALL)(inputs, targets)
    assert out.shape == inputs.shape and soft.tolist() == [[1, 0, 0, 0]]


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        (Settings(flip=True), (5,), r"augmentation.flip: is for images .* sample's shape is \(5,\)"),
        (Settings(rotate=5.0), (7, 3), "augmentation.rotate: is for images"),
        (Settings(shift=6), SHAPE, r"augmentation.shift: 6 pixels are as many as the images have \(6x8\)"),
        (Settings(noise=-0.1), SHAPE, "augmentation.noise: -0.1 is below 0"),
        (Settings(mixup=math.nan), SHAPE, "augmentation.mixup: nan is below 0 or no number"),
    ],
)
def test_what_cannot_be_is_said(settings: Settings, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_augment(settings, shape, 4)


def test_tokens_are_refused_when_they_come() -> None:
    augment = built(Settings(noise=0.1), (12,))
    with pytest.raises(UserError, match="tokens cannot be changed a little"):
        augment(torch.ones(3, 12, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
