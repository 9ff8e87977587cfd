"""Image files: lists, sizes from headers, pixels."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.dataset.images import write_image
from utils.dataset.image_files import ImageReadError, image_size, read_image
from utils.dataset.image_lists import LabelFiles, label_path, list_images
from utils.user_error import UserError

GRADIENT = np.add.outer(np.arange(30) * 3, np.arange(40) * 2).astype(np.uint8)
COLOURED = np.stack([GRADIENT, 255 - GRADIENT, GRADIENT // 2], axis=-1)


def test_label_path_replaces_the_last_images_folder() -> None:
    assert label_path(Path("/a/images/b/images/c/d.JPG")) == Path("/a/images/b/labels/c/d.txt")
    assert label_path(Path("/a/b/d.tar.png")) == Path("/a/b/d.tar.txt")


def test_labels_are_looked_for_in_their_order(tmp_path: Path) -> None:
    image = tmp_path / "set" / "images" / "b" / "d.tar.png"
    places = [
        "labels/b/d.tar.xml",
        "images/b/d.tar.xml",
        "Annotations/b/d.tar.xml",
        "annotations/b/d.tar.xml",
        "images/b/d.tar.txt",
    ]
    for file in (tmp_path / "set" / place for place in places):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    for place in places:
        files = LabelFiles()
        assert files.own(str(image)) == str(label_path(image))
        assert files.elsewhere(str(image)) == str(tmp_path / "set" / place)
        (tmp_path / "set" / place).unlink()
    assert files.elsewhere(str(image)) is None


def test_folders_are_listed_sorted_and_recursive(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a.png", "b/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [path.relative_to(tmp_path).as_posix() for path in list_images([tmp_path])]
    assert found == ["a.png", "b/10.png", "b/2.PNG"]


def test_list_files_are_relative_to_themselves(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeff./x/é 1.png\r\n\r\n/abs/2.png\r\n", encoding="utf-8")
    assert list_images([tmp_path / "list.txt"]) == [Path("/abs/2.png"), tmp_path / "x" / "é 1.png"]


def test_sources_that_give_nothing_are_named(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match=str(source)):
            list_images([source])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tif"])
def test_size_and_pixels_of_each_format(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a{suffix}", COLOURED)
    assert image_size(path) == (30, 40)
    assert np.abs(read_image(path).astype(int) - COLOURED).mean() < (6 if suffix in (".jpg", ".webp") else 1e-9)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_other_kinds_of_pixels_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(GRADIENT.astype(np.uint16) * 256 + 7).save(path)
    else:
        Image.fromarray(COLOURED).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8
    if mode == "I;16":
        np.testing.assert_array_equal(image[..., 0], GRADIENT)
    if mode == "RGBA":
        np.testing.assert_array_equal(image, COLOURED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_orientation_is_applied_and_the_size_agrees(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOURED).save(path, exif=exif)
    image = read_image(path)
    assert image_size(path) == image.shape[:2]
    if suffix != ".tif":  # OpenCV leaves TIFF as stored
        assert image.shape[:2] == ((40, 30) if orientation > 4 else (30, 40))
        upright = {1: COLOURED, 3: COLOURED[::-1, ::-1], 6: np.rot90(COLOURED, -1), 8: np.rot90(COLOURED)}
        if orientation in upright:
            assert np.abs(image.astype(int) - upright[orientation]).mean() < 6


def test_reduced_images_are_means(tmp_path: Path) -> None:
    checks = np.zeros((64, 64, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = 200
    for suffix in (".jpg", ".png"):
        path = tmp_path / f"a{suffix}"
        assert cv2.imwrite(str(path), checks, [cv2.IMWRITE_JPEG_QUALITY, 100])
        for reduction in (2, 4, 8):
            assert np.abs(read_image(path, reduction).astype(int) - 100).max() < 6


def test_reduced_images_are_rgb(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png", np.full((16, 16, 3), (250, 10, 90), np.uint8))
    np.testing.assert_array_equal(read_image(path, 2), np.full((8, 8, 3), (250, 10, 90)))


def _jpeg_with_thumbnail(path: Path) -> bytes:
    """A JPEG whose header holds a whole JPEG, end mark included."""
    write_image(path, COLOURED)
    content = path.read_bytes()
    inner = b"Exif\0\0" + content
    return content[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + content[2:]


def test_truncated_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    whole = _jpeg_with_thumbnail(path)
    path.write_bytes(whole[:-40])
    with pytest.raises(ImageReadError, match=r"a\.jpg: cut short"):
        image_size(path)
    png = write_image(tmp_path / "a.png", COLOURED)
    png.write_bytes(png.read_bytes()[:-20])
    with pytest.raises(ImageReadError, match=r"a\.png"):
        image_size(png)


def test_bytes_after_the_end_are_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg_with_thumbnail(path) + b"motion" * 9)
    before = path.read_bytes()
    assert image_size(path) == (30, 40)
    assert read_image(path).shape == (30, 40, 3)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM" + b"\0" * 60])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x y.jpg"
    path.write_bytes(content)
    for reader in (image_size, read_image):
        with pytest.raises(ImageReadError) as caught:
            reader(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_absent_image_is_named(tmp_path: Path) -> None:
    for reader in (image_size, read_image):
        with pytest.raises(ImageReadError, match=r"gone\.png: cannot be read: No such file"):
            reader(tmp_path / "gone.png")


def test_extreme_shapes(tmp_path: Path) -> None:
    for shape in ((1, 1, 3), (20, 20000, 3), (9, 3, 3)):
        for suffix in (".png", ".jpg"):
            path = write_image(tmp_path / f"a{suffix}", np.zeros(shape, np.uint8))
            assert image_size(path) == shape[:2]
            for reduction in (2, 4, 8):
                assert read_image(path, reduction).shape[:2] == tuple(math.ceil(side / reduction) for side in shape[:2])
