"""A folder with one folder of images for each class."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orchestrator.data.files import folder_of
from orchestrator.data.images import choose_format, load_images
from orchestrator.data.source import Source
from orchestrator.errors import UserError

SUFFIXES = (
    *(".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".ppm", ".tga", ".tif", ".tiff", ".webp"),
)


def image_folder(*, path: str, resolution: int | None = None, mode: str | None = None) -> Source:
    """Return the images below a folder, whose folders are the classes: shape (channels, side, side), 0 to 1.

    Samples are numbered by class and, in it, by file name. Images are decoded when they are loaded.

    Args:
        path: of the folder; its class folders may have folders of their own.
        resolution: pixels of a side; None takes the power of two nearest to the images' median side.
        mode: "grey", "color", or None for what most of the images are.

    Raises:
        UserError: there is no such folder, it has fewer than two class folders, one of them has no image, or
            an image is damaged.
    """
    names, files, labels = list_images(path)
    root = Path(path)

    def opener(index: int) -> tuple[Path, str]:
        file = root / files[index]
        return file, str(file)

    wanted = choose_format(len(files), opener, resolution=resolution, mode=mode)
    return Source(
        labels=labels,
        class_names=names,
        shape=wanted.shape,
        load=lambda indices: load_images(indices, opener, wanted),
    )


def list_images(path: str) -> tuple[tuple[str, ...], list[str], NDArray[np.int64]]:
    """List a folder's images; none is opened.

    Returns:
        The classes' names; the images' paths relative to the folder, class by class; the class of each (n,).

    Raises:
        UserError: as `image_folder`, but for damaged images.
    """
    root = folder_of(path, named="a folder with one folder of images for each class")
    names = sorted(each.name for each in os.scandir(root) if each.is_dir() and not _hidden(each.name))
    if len(names) < 2:
        found = f"the folder of one class, '{names[0]}'" if names else "no folders"
        raise UserError(f"has {found}; each of two or more classes needs its own", file=path)
    files: list[str] = []
    counts = []
    for name in names:
        own = sorted(_images_below(root / name))
        if not own:
            kinds = ", *".join(SUFFIXES)
            raise UserError("the folder has no image", file=root / name, hint=f"Images are *{kinds}")
        files += [str(Path(name) / each) for each in own]
        counts.append(len(own))
    return tuple(names), files, np.repeat(np.arange(len(names), dtype=np.int64), counts)


def _images_below(folder: Path) -> list[str]:
    """Return the paths of a class's images, relative to its folder."""
    return [
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, _, found in os.walk(folder)
        for name in found
        if not _hidden(name) and os.path.splitext(name)[1].lower() in SUFFIXES
    ]


def _hidden(name: str) -> bool:
    """Say whether it is a file that systems leave about, such as .DS_Store or __MACOSX."""
    return name.startswith((".", "__"))
