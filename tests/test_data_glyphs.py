"""The generated characters: the same bytes for a seed, however they are asked for."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from orchestrator.data.glyphs import CHARACTERS, FONTS, _master, glyphs
from orchestrator.errors import UserError


def test_a_sample_depends_on_seed_and_index_alone() -> None:
    source = glyphs(samples=3000)
    everything = source.load(np.arange(3000))
    some = np.array([2999, 5, 5, 2050, 0])
    assert np.array_equal(source.load(some), everything[some])
    assert np.array_equal(glyphs(samples=70).load(np.arange(70)), everything[:70])
    assert not np.array_equal(glyphs(samples=70, seed=1).load(np.arange(70)), everything[:70])


def test_a_seed_gives_the_same_bytes_in_another_process() -> None:
    code = (
        "import hashlib, numpy as np; from orchestrator.data.glyphs import glyphs; "
        "print(hashlib.sha256(glyphs(samples=200, seed=3).load(np.arange(200)).tobytes()).hexdigest())"
    )
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    here = glyphs(samples=200, seed=3).load(np.arange(200))
    assert hashlib.sha256(here.tobytes()).hexdigest() == elsewhere.strip()


def test_images_are_grayscale_from_0_to_1_with_ink_and_noise() -> None:
    images = glyphs(samples=500).load(np.arange(500))
    assert images.shape == (500, 1, 28, 28)
    assert images.dtype == np.float32
    assert images.min() == 0
    assert images.max() == 1
    middle = images[:, 0, 8:20, 8:20].mean()
    border = images[:, 0, [0, -1]].mean()
    assert middle > 2 * border > 0
    assert len(np.unique(images.reshape(500, -1), axis=0)) == 500


def test_every_font_has_every_character() -> None:
    for font in FONTS:
        pictures = {_master(character, font).tobytes() for character in CHARACTERS}
        # A missing character would be drawn as the same box as any other one that is missing.
        assert len(pictures) == 62, font


def test_labels_are_balanced_or_as_unbalanced_as_asked() -> None:
    assert set(np.bincount(glyphs(samples=620).labels)) == {10}
    counts = np.bincount(glyphs(samples=10_000, num_classes=10, imbalance=20).labels)
    assert counts[0] / counts[-1] == pytest.approx(20, rel=0.1)
    assert (np.diff(counts) < 0).all()
    assert counts.sum() == 10_000


def test_labels_are_right() -> None:
    # A nearest-mean classifier, fitted on one half, does far better than the chance of 0.1.
    source = glyphs(samples=2000, num_classes=10)
    images = source.load(np.arange(2000)).reshape(2000, -1)
    means = np.stack([images[:1000][source.labels[:1000] == each].mean(axis=0) for each in range(10)])
    distances = ((images[1000:, None] - means) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == source.labels[1000:]).mean() > 0.3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 63}, "not from 2 to 62"),
        ({"imbalance": 0.5}, "below 1"),
        ({"samples": 61}, "1 of 62 classes have no sample"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        glyphs(**settings)
