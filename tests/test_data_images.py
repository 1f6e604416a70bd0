"""Images: folders, tables and datasets of them, of any format, mode and size."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_sources import Pairs, refused

from orchestrator.data.dataset import open_dataset
from orchestrator.data.folders import image_folder
from orchestrator.data.images import Format, decode
from orchestrator.data.map_style import map_style
from orchestrator.data.resize import power_of_two, resize
from orchestrator.data.size import dataset_size, trained_samples

FOLDER = {"_target_": "orchestrator.data.sources.image_folder"}
TABLE = {"_target_": "orchestrator.data.sources.parquet", "label": "label"}


def picture(shade: int | tuple[int, int, int], side: int = 30, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (side, side), shade)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two classes of ten images, named with what sorts badly: birds are bright, cats are dark."""
    root = tmp_path / "images"
    for name, shade in (("cats", 51), ("birds", 204)):
        (root / name / "more").mkdir(parents=True)
        for number in range(10):
            where = root / name / ("more" if number % 2 else "")
            kind = ("png", "jpg", "bmp")[number % 3]
            picture((shade, shade, shade), side=26 + number).save(where / f"{number}.{kind}")
        (root / name / "Thumbs.db").write_bytes(b"no image")
    (root / ".cache").mkdir()
    return root


def test_a_folder_of_images(folder: Path) -> None:
    data = open_dataset(FOLDER | {"path": str(folder)})
    # 30 pixels in the middle: 32 is the power of two nearest to it.
    assert (data.class_names, data.shape) == (("birds", "cats"), (3, 32, 32))
    for each, label in zip(data.train.inputs, data.train.targets, strict=True):
        assert each == pytest.approx((0.8, 0.2)[label], abs=0.01)
    config = FOLDER | {"path": str(folder), "resolution": 8, "mode": "grey", "fraction": 0.5}
    small = open_dataset(config)
    assert small.shape == (1, 8, 8)
    assert set(small.train.ids) <= set(data.train.ids)
    assert trained_samples(dataset_size(config), 0.5, None) == len(small.train.ids)


def test_only_the_images_that_are_asked_for_are_decoded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.data import images

    asked: list[str] = []
    original = images.decode

    def watched(content: Any, name: str, wanted: Format) -> Any:
        asked.append(name)
        return original(content, name, wanted)

    monkeypatch.setattr(images, "decode", watched)
    data = open_dataset(FOLDER | {"path": str(folder), "fraction": 0.25})
    assert asked == []
    assert len(data.train.ids) == len(asked) == 3


def test_bad_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    def opened(path: Path, **changes: Any) -> Callable[[], Any]:
        return lambda: image_folder(path=str(path), **changes)

    refused("no such file. Did you mean 'images'", opened(tmp_path / "image"))
    refused("is a file, not a folder with one folder", opened(folder / "cats" / "0.png"))
    refused("has no folders", opened(folder / "cats" / "more"))
    refused("no mode 'gray'. Did you mean 'grey'", opened(folder, mode="gray"))
    (tmp_path / "one" / "cats").mkdir(parents=True)
    refused("has the folder of one class, 'cats'", opened(tmp_path / "one"))
    (tmp_path / "one" / "dogs").mkdir()
    refused("cats: the folder has no image", opened(tmp_path / "one"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"])
def test_a_half_written_image_is_named(folder: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    whole = encoded(Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)), kind)
    for length in (0, 5, len(whole) // 2):
        (folder / "cats" / "0.png").write_bytes(whole[:length])
        with pytest.raises(Exception, match=r"0\.png: not readable as an image .* half-written"):
            _ = open_dataset(FOLDER | {"path": str(folder), "split": {"validation": 0.0, "test": 0.0}}).train


def train_of(config: dict[str, Any]) -> Any:
    return open_dataset(config).train


def mean_of(image: Image.Image, mode: str, kind: str = "PNG", **options: Any) -> Any:
    array = decode(encoded(image, kind, **options), "it", Format((4, 4), mode))
    assert array.dtype == np.float32
    return array.mean(axis=(1, 2))


def test_every_mode_comes_as_0_to_1() -> None:
    assert mean_of(picture((255, 0, 51)), "color") == pytest.approx([1, 0, 0.2], abs=0.01)
    assert mean_of(picture(102, mode="L"), "color") == pytest.approx([0.4] * 3)
    assert mean_of(picture((255, 255, 255)), "grey") == pytest.approx([1])
    assert mean_of(picture(1, mode="1"), "grey") == pytest.approx([1])
    deep = Image.fromarray(np.full((6, 6), 32768, dtype=np.uint16))
    assert mean_of(deep, "grey") == pytest.approx([0.5], abs=0.001)
    assert mean_of(deep, "color") == pytest.approx([0.5] * 3, abs=0.001)
    clear = Image.new("RGBA", (6, 6), (0, 0, 0, 0))  # what is transparent is white, not what lies below
    assert mean_of(clear, "color") == pytest.approx([1] * 3)
    palette = picture((0, 255, 0)).convert("P")
    assert mean_of(palette, "color") == pytest.approx([0, 1, 0], abs=0.01)
    assert mean_of(palette, "color", transparency=b"\0" * 256) == pytest.approx([1] * 3, abs=0.01)
    assert mean_of(picture((0, 0, 0)).convert("CMYK"), "grey", "JPEG") == pytest.approx([0], abs=0.02)


def test_photographs_are_turned_upright() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:16] = 255  # bright at the top
    exif = Image.Exif()
    exif[274] = 3  # upside down
    shown = decode(
        encoded(Image.fromarray(pixels), "JPEG", exif=exif, quality=95), "it", Format((2, 2), "grey")
    )
    assert shown[0] == pytest.approx(np.array([[0, 0], [1, 1]]), abs=0.02)


def test_a_table_of_encoded_images(tmp_path: Path) -> None:
    labels = [index % 2 for index in range(24)]
    images = [encoded(picture(20 + 10 * index, 16, "L")) for index in range(24)]
    plain, nested = tmp_path / "plain.parquet", tmp_path / "nested.parquet"
    names = [str(label) for label in labels]
    pq.write_table(pa.table({"image": images, "label": labels, "name": names}), plain, row_group_size=5)
    pq.write_table(
        pa.table({"image": [{"bytes": each, "path": ""} for each in images], "label": labels}), nested
    )
    one, other = (open_dataset(TABLE | {"path": str(path), "transform": "none"}) for path in (plain, nested))
    assert one.shape == other.shape == (1, 16, 16)
    assert np.array_equal(one.train.inputs, other.train.inputs)
    assert one.train.inputs[:, 0, 0, 0] == pytest.approx((20 + 10 * one.train.ids) / 255)
    color = TABLE | {"path": str(plain), "mode": "color", "resolution": 4, "features": ["image"]}
    assert open_dataset(color).train.inputs.shape[1:] == (3, 4, 4)
    for content, message in ((images[0][:40], "not readable as an image"), (None, "there is no image")):
        pq.write_table(pa.table({"image": [*images[:9], content], "label": labels[:10]}), plain)
        config = TABLE | {"path": str(plain), "split": {"validation": 0.0, "test": 0.0}}
        refused(rf"row 9 of column 'image': {message}", train_of, config)


def test_mixed_sizes_are_refused_without_a_resolution() -> None:
    pictures = Pairs([(picture((10 * index,) * 3, 16 + index // 8), index % 2) for index in range(12)])
    refused("one sample is 16x16 and sample 8 is 17x17.*datasets.resolution", lambda: map_style(pictures))
    resized = map_style(pictures, resolution=8).load(np.arange(12))
    assert resized[:, 0, 0, 0] == pytest.approx(np.arange(12) * 10 / 255, abs=0.01)
    arrays = Pairs([(np.ones((1, 8, 8 + index % 2)), index // 6) for index in range(12)])
    refused("is 1x8x8 and sample 1 is 1x8x9.*datasets.resolution", lambda: map_style(arrays))
    assert map_style(arrays, resolution=4).load(np.arange(3)).shape == (3, 1, 4, 4)
    # Where only those that nobody looked at are of another size, loading says so.
    items = [(np.ones(2 if index < 399 else 3), index % 2) for index in range(400)]
    late = map_style(Pairs(items, targets=[0, 1] * 200))
    refused("sample 399 is 3", late.load, np.array([399]))


def test_a_stage_sees_smaller_images() -> None:
    config = {"_target_": "orchestrator.data.sources.digits", "transform": "none"}
    whole, small = open_dataset(config), open_dataset(config | {"resolution": 4})
    assert (small.shape, whole.shape) == ((1, 4, 4), (1, 8, 8))
    squares = whole.train.inputs.reshape(-1, 1, 4, 2, 4, 2).mean(axis=(3, 5))
    assert small.train.inputs == pytest.approx(squares, abs=1e-6)
    assert open_dataset(config | {"resolution": 16}).train.inputs.shape[1:] == (1, 16, 16)
    refused("0 is no number of pixels", lambda: open_dataset(config | {"resolution": 0}))


def test_sides() -> None:
    sides = [1, 8, 28, 30, 45, 46, 224, 3000]
    assert [power_of_two(side) for side in sides] == [8, 8, 32, 32, 32, 64, 256, 256]
    stripes = np.tile(np.array([0.0, 1.0]), (1, 1, 9, 4))  # (1, 1, 9, 8)
    assert resize(stripes, 4) == pytest.approx(0.5)  # no pixel is overlooked
