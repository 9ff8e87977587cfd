"""The label index and the cache that it comes from."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tests.dataset.images import write_image, write_labels
from tests.shared_data import SHARED, needs_shared
from utils.dataset import label_cache
from utils.dataset.label_cache import read_label_index
from utils.dataset.label_index import LabelIndex, PathList
from utils.user_error import UserError


@pytest.fixture
def split(tmp_path: Path) -> Path:
    for i, side in enumerate((20, 30, 40)):
        write_image(tmp_path / "images" / f"{i}.png", np.zeros((side, 2 * side, 3), np.uint8))
    write_labels(tmp_path / "labels" / "0.txt", "0 0.5 0.5 0.5 0.5", "1 0.1 0.1 0.3 0.1 0.3 0.5")
    write_labels(
        tmp_path / "labels" / "2.txt", "1 0.9 0.5 0.4 0.2", "7 0.5 0.5 0.1 0.1", "1 oops 0 0 0", "1 0.9 0.5 0.4 0.2"
    )
    return tmp_path


def _index(split: Path, class_count: int = 2) -> LabelIndex:
    return read_label_index((split / "images",), [f"class {i}" for i in range(class_count)])


def _same(a: LabelIndex, b: LabelIndex) -> bool:
    arrays = ("sizes", "rows", "row_ends", "points", "point_ends", "ignored", "ignored_ends")
    return (
        list(a.paths) == list(b.paths)
        and all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays)
        and (a.unlabelled, a.duplicates, a.problems) == (b.unlabelled, b.duplicates, b.problems)
    )


def test_index_by_hand(split: Path) -> None:
    index = _index(split)
    assert [path.name for path in index.paths] == ["0.png", "1.png", "2.png"]
    assert index.sizes.tolist() == [[20, 40], [30, 60], [40, 80]]
    first = index.labels(0)
    # 20 x 40: the box is 0.25-0.75 of each side; the outline spans x 4-12, y 2-10.
    np.testing.assert_allclose(first.boxes, [[10, 5, 30, 15], [4, 2, 12, 10]], rtol=1e-5)
    assert first.classes.tolist() == [0, 1]
    assert first.polygons[0] is None
    np.testing.assert_allclose(first.polygons[1], [[4, 2], [12, 2], [12, 10]], rtol=1e-5)  # type: ignore[arg-type]
    assert len(index.labels(1)) == 0
    # Centre 72, width 32: reaches to 88, clipped to the image.
    np.testing.assert_allclose(index.labels(2).boxes, [[56, 16, 80, 24]], rtol=1e-5)
    assert (index.unlabelled, index.duplicates) == (1, 1)
    label = split / "labels" / "2.txt"
    assert [(p.file, p.line) for p in index.problems] == [(str(label), 2), (str(label), 3)]
    assert "class 7, but the classes are 0 to 1" in index.problems[0].text
    assert index.summary() == (
        "3 images, 3 objects, 1 without labels, 2 bad label rows left out, 1 repeated row dropped"
    )


def test_a_second_reading_opens_no_file(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _index(split)
    monkeypatch.setattr(label_cache, "_scan_one", lambda *_: pytest.fail("a file was read again"))
    assert _same(_index(split), first)
    # The class count is no part of the cache.
    assert len(_index(split, class_count=8).problems) == 1


def test_only_what_changed_is_read_again(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _index(split)
    label = split / "labels" / "0.txt"
    before = label.stat()
    content = label.read_text().replace("0 0.5 0.5 0.5 0.5", "0 0.5 0.5 0.5 0.4")
    label.write_text(content)
    os.utime(label, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (label.stat().st_size, label.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    write_image(split / "images" / "3.png", np.zeros((8, 8, 3), np.uint8))
    (split / "images" / "1.png").unlink()
    seen = []
    scan_one = label_cache._scan_one

    def watched(image: Path, labels: Path, class_of: Mapping[str, int]) -> label_cache._Scanned:
        seen.append(image.name)
        return scan_one(image, labels, class_of)

    monkeypatch.setattr(label_cache, "_scan_one", watched)
    changed = _index(split)
    assert sorted(seen) == ["0.png", "3.png"]
    (tmp,) = split.glob("*.cache.npz")
    tmp.unlink()
    assert _same(changed, _index(split))
    np.testing.assert_allclose(changed.labels(0).boxes[0], [10, 6, 30, 14], rtol=1e-5)


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "ends", "version"])
def test_a_cache_that_cannot_be_used_is_built_again(split: Path, damage: str) -> None:
    first = _index(split)
    (cache,) = split.glob("*.cache.npz")
    with np.load(cache) as stored:
        arrays = dict(stored)
    if damage == "cut":
        cache.write_bytes(cache.read_bytes()[:-200])
    elif damage == "text":
        cache.write_text("hello")
    elif damage == "pickle":
        arrays["rows"] = np.array([Bomb()], dtype=object)
        with cache.open("wb") as out:
            np.savez(out, **arrays)
    else:
        arrays["row_ends" if damage == "ends" else "version"] = (
            np.array([1, 9, 2], np.int64) if damage == "ends" else np.int64(99)
        )
        with cache.open("wb") as out:
            np.savez(out, **arrays)
    assert _same(_index(split), first)


class Bomb:
    """Fails the test if it is ever unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the cache was unpickled",)


def test_the_bomb_would_go_off() -> None:
    with pytest.raises(pytest.fail.Exception):
        pickle.loads(pickle.dumps(Bomb()))  # noqa: S301


def test_a_bad_image_is_left_out_and_listed(split: Path) -> None:
    (split / "images" / "1.png").write_bytes(b"x")
    for _ in range(2):  # the second time from the cache
        index = _index(split)
        assert [path.name for path in index.paths] == ["0.png", "2.png"]
        assert len(index.labels(1)) == 1
        assert index.problems[0] == (str(split / "images" / "1.png"), 0, "not an image that can be read")
    assert "1 unreadable file left out" in index.summary()


def test_nothing_readable_is_one_line(split: Path) -> None:
    for path in (split / "images").iterdir():
        path.write_bytes(b"x")
    with pytest.raises(UserError, match="none of 3 images can be read") as caught:
        _index(split)
    assert "\n" not in str(caught.value)


def test_a_read_only_folder_is_left_alone(split: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    split.chmod(0o555)
    try:
        _index(split)
    finally:
        split.chmod(0o755)
    assert not list(split.glob("*.npz"))
    assert len(list((tmp_path / "home" / "yolov5-spd").glob("*.cache.npz"))) == 1


def test_paths_come_back() -> None:
    names = ["/a/b.png", "/ü/c d.png", "/a/\udcff.png"]
    paths = PathList(names)
    assert [str(path) for path in paths] == names
    assert len(paths) == 3


@needs_shared
def test_bccd_counts(tmp_path: Path) -> None:
    folder = SHARED / "data" / "bccd"
    index = read_label_index((folder / "images" / "val",), ("a", "b", "c"), cache_folder=tmp_path)
    rows = sum(len(set(f.read_text().splitlines())) for f in (folder / "labels" / "val").glob("*.txt"))
    assert len(index) == 87
    assert len(index.rows) == rows
    assert index.problems == ()
