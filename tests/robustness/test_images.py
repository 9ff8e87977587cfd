"""Images that are damaged, strange, or in the way: through detect.py and, with labels, val.py."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.robustness.running import Outcome, run, slug, succeeds
from utils.inference.file_source import is_video

pytestmark = pytest.mark.slow
AREA = "Images"


def pixels(height: int = 48, width: int = 64, channels: int = 3, seed: int = 1) -> np.ndarray:
    """Smooth noise (H, W, C) uint8, which JPEG keeps nearly as it is."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, channels), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


RGB = Image.fromarray(pixels())
JPEG, PNG = encoded(RGB), encoded(RGB, "PNG")


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(RGB, exif=exif)


def sixteen_bit() -> bytes:
    done, content = cv2.imencode(".png", pixels().astype(np.uint16) * 257)
    assert done
    return content.tobytes()


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(pixels(seed=seed)) for seed in (1, 2, 3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=40)


# name, bytes, frames that detect.py gives (0: named and skipped)
FILES: tuple[tuple[str, str, Callable[[], bytes], int], ...] = (
    ("truncated JPEG", "x.jpg", lambda: JPEG[: len(JPEG) // 2], 0),
    ("JPEG cut in its header", "x.jpg", lambda: JPEG[:20], 0),
    ("JPEG without its last two bytes", "x.jpg", lambda: JPEG[:-2], 0),
    ("JPEG with bytes behind its end", "x.jpg", lambda: JPEG + b"motion photo" * 100, 1),
    ("truncated PNG", "x.png", lambda: PNG[: len(PNG) // 2], 0),
    ("PNG with a wrong checksum", "x.png", lambda: PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], 0),
    ("empty file", "x.jpg", lambda: b"", 0),
    ("text named .jpg", "x.jpg", lambda: b"this is not an image\n", 0),
    ("PNG named .jpg", "x.jpg", lambda: PNG, 1),
    ("16-bit PNG", "x.png", sixteen_bit, 1),
    ("greyscale JPEG", "x.jpg", lambda: encoded(RGB.convert("L")), 1),
    ("greyscale with alpha", "x.png", lambda: encoded(RGB.convert("LA"), "PNG"), 1),
    ("one bit per pixel", "x.png", lambda: encoded(RGB.convert("1"), "PNG"), 1),
    ("RGBA PNG", "x.png", lambda: encoded(RGB.convert("RGBA"), "PNG"), 1),
    ("CMYK JPEG", "x.jpg", lambda: encoded(RGB.convert("CMYK")), 1),
    ("palette PNG", "x.png", lambda: encoded(RGB.convert("P"), "PNG"), 1),
    ("16-bit TIFF", "x.tif", lambda: encoded(Image.fromarray(pixels()[..., 0].astype(np.uint16) * 257), "TIFF"), 1),
    ("progressive JPEG", "x.jpg", lambda: encoded(RGB, progressive=True), 1),
    ("BMP", "x.bmp", lambda: encoded(RGB, "BMP"), 1),
    ("WebP", "x.webp", lambda: encoded(RGB, "WEBP"), 1),
    ("AVIF", "x.avif", lambda: encoded(RGB, "AVIF"), 1),
    ("JPEG 2000", "x.jp2", lambda: encoded(RGB, "JPEG2000"), 1),
    ("text named .avif", "x.avif", lambda: b"no", 0),
    ("animated WebP", "x.webp", lambda: animation("WEBP"), 1),
    ("animated GIF", "x.gif", lambda: animation("GIF"), 3),
    ("text named .gif", "x.gif", lambda: b"no", 0),
    ("text named .mp4", "x.mp4", lambda: b"no video at all", 0),
    ("empty video", "x.avi", lambda: b"", 0),
    ("1 x 1", "x.png", lambda: encoded(Image.new("RGB", (1, 1)), "PNG"), 1),
    ("1 x 3000", "x.png", lambda: encoded(Image.new("RGB", (1, 3000)), "PNG"), 1),
    ("3000 x 1", "x.png", lambda: encoded(Image.new("RGB", (3000, 1)), "PNG"), 1),
    ("20000 x 20", "x.png", lambda: encoded(Image.new("RGB", (20000, 20)), "PNG"), 1),
    ("spaces and other letters in its name", "ein Bild – 写真 %20'\"&.jpg", lambda: JPEG, 1),
    ("a name like a glob", "x[1]*.jpg", lambda: JPEG, 1),
    ("a name with a line break", "x\ny.jpg", lambda: JPEG, 1),
    ("a name that starts with a dash", "-x.jpg", lambda: JPEG, 1),
    ("a name that is no UTF-8", os.fsdecode(b"x\xff\xfe.jpg"), lambda: JPEG, 1),
    ("truncated WebP", "x.webp", lambda: encoded(RGB, "WEBP")[:200], 0),
    ("truncated BMP", "x.bmp", lambda: encoded(RGB, "BMP")[:2000], 0),
    ("upper-case ending", "X.JPG", lambda: JPEG, 1),
    ("broken orientation tag", "x.jpg", lambda: encoded(RGB, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), 1),
)


def digests(folder: Path) -> dict[str, str]:
    """The user's own files by content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".cache.npz"))
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def detect(folder: Path, weights: Path, *flags: object) -> Outcome:
    """detect.py over ``folder``, whose files have to be the same afterwards."""
    before = digests(folder)
    outcome = succeeds("detect", "--weights", weights, "--source", folder, "--img", 64, *flags, folder=folder.parent)
    assert digests(folder) == before
    return outcome


@pytest.mark.parametrize(
    ("name", "content", "frames"),
    [
        pytest.param(
            name, content, frames, id=slug(case),
            marks=pytest.mark.case(AREA, case, f"{frames} detected on" if frames else "named, the rest is done"),
        )
        for case, name, content, frames in FILES
    ],
)  # fmt: skip
def test_a_strange_file_among_good_ones(
    name: str, content: Callable[[], bytes], frames: int, tmp_path: Path, weights: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    (folder / "0 good.png").write_bytes(PNG)
    (folder / "z good.png").write_bytes(PNG)
    (folder / name).write_bytes(content())
    outcome = detect(folder, weights)
    unit = "frame" if is_video(Path(name)) else "image"
    assert f"{frames + 2} {unit}s" in outcome.output, outcome.output
    named = [line for line in outcome.output.splitlines() if line.startswith("WARNING") and str(folder / name) in line]
    assert bool(named) == (frames == 0), outcome.output
    unread = f"1 {'image' if unit == 'image' else 'file or frame'} could not be read"
    assert (unread in outcome.output) == (frames == 0)


@pytest.mark.parametrize(
    ("name", "content", "frames"),
    [
        pytest.param(
            name, content, frames, id=slug(case),
            marks=pytest.mark.case(f"{AREA} of a data set", case, "used" if frames else "named, the rest is evaluated"),
        )
        for case, name, content, frames in FILES
        if not name.endswith((".gif", ".mp4", ".avi"))
    ],
)  # fmt: skip
def test_a_strange_file_in_a_data_set(
    name: str,
    content: Callable[[], bytes],
    frames: int,
    tmp_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for kind in ("images", "labels"):
        (tmp_path / "set" / kind).mkdir(parents=True)
    for file, data in (("0.png", PNG), ("1.png", PNG), (name, content())):
        (tmp_path / "set" / "images" / file).write_bytes(data)
        (tmp_path / "set" / "labels" / file).with_suffix(".txt").write_text("0 0.5 0.5 0.5 0.5\n", encoding="utf-8")
    (tmp_path / "d.yaml").write_text("path: set\ntrain: images\nval: images\nnames: [a, b, c]\n", encoding="utf-8")
    before = digests(tmp_path / "set")
    monkeypatch.setattr("utils.verbs.evaluate.write_evaluation_plots", lambda *_: None)  # the same for all
    outcome = succeeds(
        "val", "--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0, "--name", "v", folder=tmp_path
    )
    metrics = json.loads((tmp_path / "runs" / "val" / "v" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["images"] == metrics["objects"] == 2 + frames
    assert digests(tmp_path / "set") == before
    if not frames:
        listed = (tmp_path / "runs" / "val" / "v" / "problems.txt").read_text(encoding="utf-8")
        assert f"{name}: " in listed and "1 problem in the data set is listed" in outcome.output


@pytest.mark.parametrize(
    "orientation",
    [
        pytest.param(n, marks=pytest.mark.case(AREA, f"EXIF orientation {n}", "applied; boxes lie in the turned image"))
        for n in range(1, 9)
    ],
)
def test_the_orientation_is_applied(orientation: int, tmp_path: Path, weights: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.jpg").write_bytes(turned(orientation))
    detect(tmp_path / "images", weights, "--exist-ok", "--hide-labels", "--conf-thres", 1)
    drawn = Image.open(tmp_path / "runs" / "detect" / "exp" / "x.jpg")
    assert drawn.size == ((48, 64) if orientation > 4 else (64, 48))
    by_pillow = pixels()
    by_pillow = {
        1: by_pillow, 2: by_pillow[:, ::-1], 3: by_pillow[::-1, ::-1], 4: by_pillow[::-1],
        5: by_pillow.transpose(1, 0, 2), 6: np.rot90(by_pillow, -1), 7: np.rot90(by_pillow, 2).transpose(1, 0, 2),
        8: np.rot90(by_pillow),
    }[orientation]  # fmt: skip
    assert np.abs(np.asarray(drawn).astype(int) - by_pillow).mean() < 6


@pytest.mark.acceptance  # seven seconds and 2 GB
@pytest.mark.case(AREA, "20000 x 20000", "detected on")
def test_a_very_large_image(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "x.png").write_bytes(encoded(Image.new("1", (20000, 20000)), "PNG"))
    outcome = detect(tmp_path / "images", weights, "--nosave")
    assert "1 image," in outcome.output


@pytest.mark.case(AREA, "a decompression bomb (60000 x 60000)", "named, the rest is done")
def test_an_image_beyond_reason(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "images").mkdir()
    done, small = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))
    assert done
    header = bytearray(small.tobytes())
    header[16:24] = (60000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    (tmp_path / "images" / "bomb.png").write_bytes(bytes(header))
    (tmp_path / "images" / "good.png").write_bytes(PNG)
    outcome = detect(tmp_path / "images", weights)
    assert "1 image," in outcome.output and "bomb.png" in outcome.output


@pytest.mark.case(AREA, "symlink loops below a data set", "each image counted once")
def test_symlink_loops(tmp_path: Path, weights: Path) -> None:
    folder = tmp_path / "set" / "images"
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(PNG)
    (folder / "up").symlink_to(folder, target_is_directory=True)
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "gone.png").symlink_to(folder / "nothing.png")
    (tmp_path / "d.yaml").write_text("path: set\ntrain: images\nval: images\nnames: [a, b, c]\n", encoding="utf-8")
    flags = ("--weights", weights, "--data", "d.yaml", "--img", 64, "--workers", 0)
    succeeds("val", *flags, folder=tmp_path)
    metrics = json.loads((tmp_path / "runs" / "val" / "exp" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["images"] == 1
    outcome = succeeds("detect", "--weights", weights, "--source", folder, "--img", 64, folder=tmp_path)
    assert "1 image," in outcome.output


@pytest.mark.case(AREA, "a folder named like an image", "not an image; the rest is done")
def test_a_folder_named_like_an_image(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "images" / "x.jpg").mkdir(parents=True)
    (tmp_path / "images" / "good.png").write_bytes(PNG)
    assert "1 image," in detect(tmp_path / "images", weights).output


@pytest.mark.case(AREA, "no permission to read", "named, the rest is done")
def test_no_permission(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "good.png").write_bytes(PNG)
    (tmp_path / "images" / "x.png").write_bytes(PNG)
    # Root reads what it likes; the system's answer to others is put in its place.
    real = np.fromfile

    def refusing(file: Path, *arguments: object, **options: object) -> np.ndarray:
        if Path(file).name == "x.png":
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(np, "fromfile", refusing)
    outcome = detect(tmp_path / "images", weights)
    assert "1 image," in outcome.output and "x.png: cannot be read: Permission denied" in outcome.output


@pytest.mark.parametrize(
    ("source", "line"),
    [
        pytest.param(source, line, id=slug(case), marks=pytest.mark.case("Sources", case, f"exit 1: “{line}”"))
        for case, source, line in (
            ("not there", "nowhere", "nowhere: no such file or folder"),
            ("empty folder", "empty", "empty: no images or videos there"),
            ("folder of other files", "other", "other: no images or videos there"),
            ("glob that matches nothing", "other/*.jpg", "no images or videos there"),
            ("file of another kind", "other/a.pdf", "neither an image nor a video by its name"),
            ("empty list", "empty.txt", "empty.txt: no images or videos there"),
            ("list that names a file that is not there", "list.txt", "list.txt, line 2: gone.jpg: no such file"),
            ("list that is no text", "binary.txt", "binary.txt, line 1"),
            ("nothing but unreadable images", "broken", "none of 2 files could be read"),
            ("empty text", "", "no images or videos there"),
            ("list of no streams", "none.streams", "none.streams: lists no stream"),
            ("list of streams that names an image", "yard.streams", "yard.streams, line 2: a.jpg: neither a stream's"),
            ("page instead of a stream", "https://youtu.be/x", "a page, not a stream"),
            ("address of a kind that nothing here reads", "gopher://x/y", "not an address that can be read"),
            ("part of a screen in a wrong form", "screen 1 2", "not of the form screen [number]"),
        )
    ],
)
def test_sources_without_images(source: str, line: str, tmp_path: Path, weights: Path) -> None:
    for name in ("empty", "other", "broken"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / "a.pdf").write_bytes(b"%PDF")
    (tmp_path / "broken" / "a.jpg").write_bytes(b"no")
    (tmp_path / "broken" / "b.jpg").write_bytes(b"")
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    (tmp_path / "list.txt").write_text("broken/a.jpg\ngone.jpg\n", encoding="utf-8")
    (tmp_path / "none.streams").write_text("# none yet\n", encoding="utf-8")
    (tmp_path / "yard.streams").write_text("rtsp://127.0.0.1/1\na.jpg\n", encoding="utf-8")
    (tmp_path / "binary.txt").write_bytes(bytes(range(1, 256)))
    outcome = run("detect", "--weights", weights, "--source", source, "--img", 64, folder=tmp_path)
    assert outcome.code == 1, outcome
    assert line in outcome.error_lines[-1] and len(outcome.error_lines) == 1, outcome.errors
