"""What is done to inputs before a network sees them: shapes, arithmetic, odd data, the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.stats import skew
from threadpoolctl import threadpool_info, threadpool_limits

from orchestrator.data import transforms, transforms_columns, transforms_components
from orchestrator.data.transforms import TRANSFORMS, Transform
from orchestrator.data.transforms_columns import skewed_columns
from orchestrator.errors import UserError

COLUMNWISE = [
    *("unit", "symmetric", "standardize", "robust"),
    *("log", "uniform_quantiles", "normal_quantiles", "power"),
]
COMPONENTS = ["pca", "pca_whiten", "zca_whiten"]
IMAGES = ["global_contrast", "local_contrast"]

Floats = NDArray[np.float32]


def table(samples: int = 200, columns: int = 4, seed: int = 0) -> Floats:
    """Return columns of which the first is normal and the others are skewed."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(0, 1, (samples, columns)) * 10.0 ** np.arange(columns)
    values[:, 0] = rng.normal(5, 2, samples)
    return values.astype(np.float32)


def pictures(samples: int = 40, channels: int = 3) -> Floats:
    """Return images (n, channels, 6, 7) whose neighbouring pixels are alike."""
    rng = np.random.default_rng(0)
    noise = rng.random((samples, channels, 6, 7))
    return (noise + np.roll(noise, 1, 2) + np.roll(noise, 1, 3)).astype(np.float32)


def test_every_transform_is_tested_here() -> None:
    assert set(TRANSFORMS) == {"none", *COLUMNWISE, *COMPONENTS, *IMAGES}


@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("shape", [(4,), (5, 3), (3, 6, 7)])
def test_shapes_are_as_announced(name: str, shape: tuple[int, ...]) -> None:
    inputs = np.random.default_rng(0).gamma(2, 2, (30, *shape)).astype(np.float32)
    if name in IMAGES and len(shape) != 3:
        with pytest.raises(UserError, match="takes images"):
            Transform(name).fit(inputs)
        return
    transform = Transform(name).fit(inputs)
    out = transform(inputs[:7])
    assert out.shape == (7, *transform.shape)
    assert out.dtype == np.float32 and out.flags.c_contiguous
    if not name.startswith("pca"):
        assert transform.shape == shape
    assert transform(inputs[:0]).shape == (0, *transform.shape)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_only_training_data_decide(name: str) -> None:
    inputs = pictures() ** 3
    transform = Transform(name).fit(inputs[:30])
    before = transform(inputs[:5]).copy()
    transform(inputs[30:] * 5)
    assert np.array_equal(transform(inputs[:5]), before)
    if name not in ("none", *IMAGES):
        others = Transform(name).fit(inputs[30:])(inputs[:5])
        assert others.shape != before.shape or not np.allclose(others, before)


def test_columns_are_scaled_each_by_itself() -> None:
    values = table()
    robust, wide = Transform("robust").fit(values)(values), Transform("symmetric").fit(values)(values)
    low, middle, high = np.percentile(robust, (25, 50, 75), axis=0)
    assert middle == pytest.approx(0, abs=1e-5)
    assert high - low == pytest.approx(1, abs=1e-5)
    assert wide.min(axis=0) == pytest.approx(-1) and wide.max(axis=0) == pytest.approx(1)


def test_channels_of_images_and_features_of_sequences_are_the_columns() -> None:
    images, sequences = pictures(), table(60).reshape(12, 5, 4)
    scaled = Transform("standardize").fit(images)(images)
    assert scaled.mean(axis=(0, 2, 3)) == pytest.approx(0, abs=1e-5)
    ratio = (scaled[1:] - scaled[:-1]) / (images[1:] - images[:-1])
    assert ratio.std(axis=(0, 2, 3)) == pytest.approx(0, abs=1e-3), "one scale for all pixels"
    steps = Transform("standardize").fit(sequences)(sequences)
    assert steps.mean(axis=(0, 1)) == pytest.approx(0, abs=1e-5)
    assert steps.std(axis=(0, 1)) == pytest.approx(1, abs=1e-5)


def test_log_takes_the_skewed_columns_alone_and_no_unit_matters() -> None:
    values = table()
    assert skewed_columns(values).tolist() == [False, True, True, True]
    logged = Transform("log").fit(values)(values)
    assert np.array_equal(logged[:, 0], values[:, 0])
    assert (skew(values[:, 1:]) > 1).all() and (np.abs(skew(logged[:, 1:])) < 1).all()
    metres = values.copy()
    metres[:, 1:] /= 1000
    assert np.allclose(Transform("log").fit(metres)(metres)[:, 1:], logged[:, 1:], rtol=1e-4)
    negative = values - values.mean(axis=0)
    assert np.array_equal(Transform("log").fit(negative)(negative), negative)


@pytest.mark.parametrize(
    ("name", "mean", "deviation"), [("uniform_quantiles", 0.5, 12**-0.5), ("power", 0, 1)]
)
def test_skewed_columns_are_spread(name: str, mean: float, deviation: float) -> None:
    values = table()
    out = Transform(name).fit(values)(values)
    assert out.mean(axis=0) == pytest.approx(mean, abs=0.01)
    assert out.std(axis=0) == pytest.approx(deviation, abs=0.01)
    assert (np.abs(skew(out)) < 0.35).all()


def test_quantiles_of_columns_that_are_mostly_zero() -> None:
    values = table()
    values[:150, 1] = 0
    out = Transform("normal_quantiles").fit(values)(values)
    assert out[:150, 1] == pytest.approx(-0.3186, abs=1e-3), "the middle of the share of zeros: 3/8"
    assert np.abs(out).max() < 2.82, "one of 200 is no further out than its middle, 1/400"
    assert (np.argsort(out[150:, 1]) == np.argsort(values[150:, 1])).all()


@pytest.mark.parametrize("name", COLUMNWISE)
def test_constant_columns_and_values_far_outside(name: str) -> None:
    values = table()
    values[:, 2] = 3
    other = values.copy()
    other[:, 2] = 1e6
    other[0, 1], other[1, 1], other[2, 1] = 1e30, -1e30, 0
    transform = Transform(name).fit(values)
    inside, out = transform(values), transform(other)
    assert np.isfinite(out).all()
    assert np.array_equal(out[:, 2], inside[:, 2]), "what never varied says nothing"
    assert len(np.unique(inside[:, 2])) == 1
    reach = float(np.ptp(values[:, 1]))
    limits = other[:3].copy()
    limits[0, 1], limits[1, 1] = values[:, 1].max() + reach, values[:, 1].min() - reach
    assert transform(limits)[:, 1] == pytest.approx(out[:3, 1], rel=1e-4)


AMOUNTS = st.floats(0, 2.0**20, width=32)


@settings(max_examples=15, deadline=None)
@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 8), st.integers(1, 3)), elements=st.floats(0, 2.0**20, width=32)
    ),
    st.sampled_from(COLUMNWISE),
)
def test_any_small_table_can_be_scaled(values: Floats, name: str) -> None:
    out = Transform(name).fit(values)(values)
    assert np.isfinite(out).all()
    for column in range(values.shape[1]):
        order = np.argsort(values[:, column], kind="stable")
        slack = 1e-5 * (1 + np.abs(out[:, column]).max())
        assert (np.diff(out[order, column]) >= -slack).all(), "the order of values stays"


def test_components_explain_the_variance() -> None:
    rng = np.random.default_rng(0)
    values = (rng.normal(0, 1, (300, 2)) @ rng.normal(0, 1, (2, 6))).astype(np.float32)
    values += rng.normal(0, 0.01, values.shape).astype(np.float32)
    plain, white = (Transform(name).fit(values) for name in ("pca", "pca_whiten"))
    assert plain.shape == white.shape == (2,)
    assert plain(values).var(axis=0).sum() == pytest.approx(values.var(axis=0).sum(), rel=0.01)
    assert np.cov(white(values).T) == pytest.approx(np.eye(2), abs=1e-4)
    few = Transform("pca").fit(values[:3] + rng.normal(0, 1, (3, 6)).astype(np.float32))
    assert few.shape == (2,), "three samples have two directions"


def test_zca_makes_pixels_uncorrelated_and_keeps_them_in_place() -> None:
    images = np.concatenate([pictures(400, 1), pictures(400, 1)[:, :, ::-1] + 0.3])
    white = Transform("zca_whiten").fit(images)(images)
    flat, before = white.reshape(len(white), -1), images.reshape(len(images), -1)

    def between(rows: Floats) -> float:
        matrix = np.atleast_2d(np.corrcoef(rows.T))
        return float(np.abs(matrix - np.eye(len(matrix))).mean())

    assert between(flat) < 0.15 * between(before)
    own = [np.corrcoef(flat[:, pixel], before[:, pixel])[0, 1] for pixel in range(flat.shape[1])]
    assert min(own) > 0.3
    few = Transform("zca_whiten").fit(images[:5])(images)
    assert np.isfinite(few).all() and np.abs(few).max() < 100


def test_contrast_of_each_image_by_itself() -> None:
    images = pictures()
    changed = images * 3 + 7
    whole = Transform("global_contrast").fit(images)
    assert whole(images).mean(axis=(1, 2, 3)) == pytest.approx(0, abs=1e-6)
    assert whole(images).std(axis=(1, 2, 3)) == pytest.approx(1, abs=1e-6)
    near = Transform("local_contrast").fit(images)
    for transform in (whole, near):
        assert np.allclose(transform(changed), transform(images), atol=1e-4), "brightness and contrast go"
        assert np.abs(transform(np.full_like(images, 0.7))).max() < 1e-5, "a blank image stays blank"
    halves = np.random.default_rng(0).normal(0, 1, (20, 1, 16, 32)).astype(np.float32)
    halves[..., :16] *= 10
    even = Transform("local_contrast").fit(halves)(halves)
    assert even[..., :10].std() == pytest.approx(1, abs=0.1)
    assert even[..., 22:].std() == pytest.approx(1 / 5, abs=0.1), "flat parts are not blown up"
    slope = images + np.linspace(0, 20, 7, dtype=np.float32)
    assert np.abs(near(slope)[..., 2:5] - near(images)[..., 2:5]).mean() < 1
    assert np.abs(whole(slope) - whole(images)).mean() > np.abs(near(slope) - near(images)).mean()


def test_lists_are_applied_in_order() -> None:
    values = table()
    both = Transform(["log", "none", "standardize"]).fit(values)
    logged = Transform("log").fit(values)(values)
    assert np.allclose(both(values), Transform("standardize").fit(logged)(logged), atol=1e-6)
    assert both.names == ("log", "standardize")
    assert not np.allclose(both(values), Transform(["standardize", "log"]).fit(values)(values))
    images = pictures()
    assert Transform(["global_contrast", "pca", "standardize"]).fit(images)(images).ndim == 2
    for empty in ("none", [], ["none"]):
        assert Transform(empty).fit(values)(values) is values


def test_tokens_go_through_none_alone() -> None:
    tokens = np.arange(12).reshape(3, 4)
    same = Transform("none").fit(tokens)
    assert same(tokens) is tokens and same.shape == (4,)
    with pytest.raises(UserError, match=r"tokens or codes \(int64\).*Say transform: none"):
        Transform(["standardize"]).fit(tokens)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("standardise", table(), "no transform 'standardise'. Did you mean 'standardize'"),
        (["log", "pca_whitening"], table(), "no transform 'pca_whitening'. Did you mean 'pca_whiten'"),
        ("unit", table()[:0], "no training samples"),
        ("unit", np.where(table() > 5, np.nan, table()), r"training samples have values that are missing"),
        ("pca", table()[:1], "training samples that differ, and there are 1"),
        ("zca_whiten", np.ones((4, 1, 3, 3), np.float32), "there are 4, all equal"),
        (["pca", "local_contrast"], pictures(), r"takes images .* shape is \("),
    ],
)
def test_what_cannot_be_is_said(name: Any, values: Floats, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Transform(name).fit(values)


def test_too_many_components_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms_components, "_MOST_COMPONENTS", 3)
    with pytest.raises(UserError, match="pca of 4 values in a sample takes too much memory"):
        Transform("pca").fit(table())


def test_chunks_and_fewer_samples_change_little(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = pictures(200)
    whole = {name: Transform(name).fit(images)(images) for name in TRANSFORMS}
    np.save(tmp_path / "images.npy", images)
    stored = np.load(tmp_path / "images.npy", mmap_mode="r")
    monkeypatch.setattr(transforms, "_CHUNK", 1000)
    for name in COLUMNWISE + IMAGES:
        assert np.array_equal(Transform(name).fit(stored)(stored), whole[name])
    monkeypatch.setattr(transforms, "_MOST_FITTED", images.size // 2)
    monkeypatch.setattr(transforms_columns, "_MOST_SORTED", 500)
    for name in COLUMNWISE:
        assert np.abs(Transform(name).fit(stored)(stored) - whole[name]).mean() < 0.1, name


@pytest.mark.parametrize("name", COMPONENTS)
def test_components_are_computed_on_one_thread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On several, sums have another order and so other bits; on how small a machine differs."""
    threads: list[int] = []

    def spied(rows: Any) -> Any:
        threads.extend(lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas")
        return original(rows)

    original = transforms_components._rows
    images = pictures()
    with threadpool_limits(2):
        expected = Transform(name).fit(images)(images)
        monkeypatch.setattr(transforms_components, "_rows", spied)
        assert np.array_equal(Transform(name).fit(images)(images), expected)
    assert len(threads) >= 2 and set(threads) == {1}
