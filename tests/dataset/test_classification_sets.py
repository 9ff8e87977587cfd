"""Classification data sets: folders, the archives of CIFAR and Tiny ImageNet from a server on this machine."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from tests.runtime.loopback import Served, loopback_server
from tests.small_classes import COLOURS, coloured_square, write_small_classes
from utils.dataset import classification_dataset
from utils.dataset.classification_dataset import open_part, open_parts
from utils.user_error import UserError

CIFAR_NAMES = ["airplane", "automobile", "bird"]


def images(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Images (N, 3, 32, 32) uint8, channels first as CIFAR's files hold them, and their classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8), rng.integers(0, 3, count).tolist()


def tar(folder: str, files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def small_cifar(kind: type[CIFAR10], monkeypatch: pytest.MonkeyPatch) -> bytes:
    """An archive in the format of ``kind`` whose files are the published ones, as far as the reader knows."""
    hundred = kind is CIFAR100
    key, meta_key = ("fine_labels", "fine_label_names") if hundred else ("labels", "label_names")
    names = {
        "train": ["train"] if hundred else ["data_batch_1", "data_batch_2"],
        "test": ["test" if hundred else "test_batch"],
    }
    files: dict[str, bytes] = {}
    for part, batches in names.items():
        for number, name in enumerate(batches):
            data, classes = images(6 if part == "train" else 4, seed=number + 10 * (part == "test"))
            files[name] = pickle.dumps({"data": data.reshape(len(data), -1), key: classes}, protocol=2)
        monkeypatch.setattr(kind, f"{part}_list", [[name, md5(files[name])] for name in batches])
    meta = str(kind.meta["filename"])
    files[meta] = pickle.dumps({meta_key: CIFAR_NAMES}, protocol=2)
    monkeypatch.setattr(kind, "meta", {"filename": meta, "key": meta_key, "md5": md5(files[meta])})
    return tar(kind.base_folder, files)


def small_tiny_imagenet() -> bytes:
    """A zip archive laid out as Tiny ImageNet is distributed."""
    rng = np.random.default_rng(0)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:

        def add(name: str, colour: str) -> None:
            image = cv2.cvtColor(coloured_square(colour, rng, 64), cv2.COLOR_RGB2BGR)
            archive.writestr(f"tiny-imagenet-200/{name}", cv2.imencode(".jpg", image)[1].tobytes())

        classes = dict(zip(("n01443537", "n02123045", "n07753592"), COLOURS, strict=True))
        rows = []
        for wnid, colour in classes.items():
            for number in range(2):
                add(f"train/{wnid}/images/{wnid}_{number}.JPEG", colour)
            archive.writestr(f"tiny-imagenet-200/train/{wnid}/{wnid}_boxes.txt", f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
        for number, (wnid, colour) in enumerate(reversed(classes.items())):
            add(f"val/images/val_{number}.JPEG", colour)
            rows.append(f"val_{number}.JPEG\t{wnid}\t0\t10\t40\t62\n")
        add("test/images/test_0.JPEG", "red")
        archive.writestr("tiny-imagenet-200/val/val_annotations.txt", "".join(rows))
        archive.writestr("tiny-imagenet-200/wnids.txt", "\n".join(reversed(classes)))
        archive.writestr("tiny-imagenet-200/words.txt", "n01443537\tgoldfish\n")
    return stream.getvalue()


@contextmanager
def served(content: bytes, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The archive of the data set ``name`` on a server, its size and checksum known, data sets below ``folder``."""
    sets = classification_dataset
    archive = sets.CIFARS[name][0] if name in sets.CIFARS else sets.FOLDERS[name]
    archive = replace(archive, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    if name in sets.CIFARS:
        monkeypatch.setitem(sets.CIFARS, name, (archive, sets.CIFARS[name][1]))
    else:
        monkeypatch.setitem(sets.FOLDERS, name, archive)
    monkeypatch.setattr(classification_dataset, "DATASETS", folder)
    file = Served(content)
    with loopback_server({archive.file_name: file}) as server:
        monkeypatch.setenv(sets.MIRROR, server.address)
        yield file


@pytest.mark.parametrize(("name", "kind"), [("cifar10", CIFAR10), ("cifar100", CIFAR100)])
def test_cifar_from_its_archive(name: str, kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(small_cifar(kind, monkeypatch), name, tmp_path, monkeypatch) as file:
        parts = open_parts(name)
        assert len(file.requests) == 1
    again = open_parts(name)  # the server is gone
    for read in (parts, again):
        assert read.train.names == tuple(CIFAR_NAMES)
        assert (len(read.train), read.train.part) == (6 if name == "cifar100" else 12, "train")
        assert (len(read.evaluated), read.evaluated.part) == (4, "test")
    data, classes = images(4, seed=10)
    assert parts.evaluated.classes.tolist() == classes
    np.testing.assert_array_equal(parts.evaluated.image(2), data[2].transpose(1, 2, 0))
    assert [path.name for path in tmp_path.iterdir()] == [kind.base_folder]  # the archive is gone


def test_a_cifar_file_that_is_not_the_published_one_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(small_cifar(CIFAR10, monkeypatch), "cifar10", tmp_path, monkeypatch):
        open_parts("cifar10")
    (tmp_path / CIFAR10.base_folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'touch harmed'\ntR.")
    with pytest.raises(UserError, match=r"cifar-10-batches-py: files are missing or are not the published ones"):
        open_parts("cifar10")


def test_an_archive_with_a_wrong_checksum_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_cifar(CIFAR10, monkeypatch)
    with served(content, "cifar10", tmp_path, monkeypatch) as file:
        file.content = content[:-4] + b"evil"
        with pytest.raises(UserError, match="has sha256"):
            open_parts("cifar10")
    assert not any(path.is_dir() for path in tmp_path.iterdir())


def test_tiny_imagenet_as_distributed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = small_tiny_imagenet()
    with served(content, "tiny-imagenet", tmp_path, monkeypatch) as file:
        file.cuts = [len(content) // 2]  # the connection breaks once; the rest is asked for
        parts = open_parts("tiny-imagenet")
        assert len(file.requests) == 2 and file.requests[1].startswith("bytes=")
    assert parts.train.names == ("n01443537", "n02123045", "n07753592")
    assert np.bincount(parts.train.classes).tolist() == [2, 2, 2]
    assert parts.evaluated.part == "val"  # its test part has no labels
    assert parts.evaluated.classes.tolist() == [2, 1, 0]
    for index in range(3):  # the square of the class's colour is the brightest channel's
        colour = list(COLOURS.values())[parts.evaluated.classes[index]]
        image = parts.evaluated.image(index).astype(int)
        assert image.reshape(-1, 3).std(axis=0).argmax() == int(np.argmax(colour))


def test_a_wrong_line_of_the_annotations_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(small_tiny_imagenet(), "tiny-imagenet", tmp_path, monkeypatch):
        open_part("tiny-imagenet", "train")
    annotations = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    lines = annotations.read_text().splitlines()
    for wrong in ("val_1.JPEG", "val_1.JPEG\tn99999999\t0\t0\t1\t1", "../val_1.JPEG\tn01443537\t0\t0\t1\t1"):
        annotations.write_text("\n".join([lines[0], wrong, lines[2]]))
        with pytest.raises(UserError, match=r"val_annotations\.txt:2: "):
            open_part("tiny-imagenet", "evaluated")


def test_a_folder_of_folders(tmp_path: Path) -> None:
    parts = open_parts(str(write_small_classes(tmp_path, train=3, evaluated=2)))
    assert parts.train.names == parts.evaluated.names == ("blue", "green", "red")
    assert parts.train.classes.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert parts.evaluated.part == "val"
    kept = parts.train.kept_in_memory()
    (tmp_path / "train" / "red" / "002.png").unlink()
    assert kept.image(8).shape == (32, 32, 3)


def test_test_goes_before_val_as_in_yolov5(tmp_path: Path) -> None:
    write_small_classes(tmp_path, train=1, evaluated=1)
    (tmp_path / "val").rename(tmp_path / "test")
    assert open_part(str(tmp_path), "evaluated").part == "test"
    (tmp_path / "val" / "blue").mkdir(parents=True)
    assert open_part(str(tmp_path), "evaluated").part == "test"


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    write_small_classes(tmp_path, train=2, evaluated=1)
    bad = tmp_path / "train" / "green" / "000.png"
    bad.write_bytes(bad.read_bytes()[:60])
    part = open_part(str(tmp_path), "train")
    assert part.classes.tolist() == [0, 0, 1, 2, 2]
    assert len(part.problems) == 1 and str(bad) in part.problems[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "val").rename(folder / "validation"), "has no folder test or val"),
        (lambda folder: (folder / "val" / "red").rename(folder / "val" / "rad"), r"other classes \(rad, red\)"),
        (lambda folder: (folder / "train").rename(folder / "trian"), "has no folder train"),
    ],
)
def test_what_a_folder_may_lack(change: Any, message: str, tmp_path: Path) -> None:
    change(write_small_classes(tmp_path, train=1, evaluated=1))
    with pytest.raises(UserError, match=message) as caught:
        open_parts(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_told_the_near_ones() -> None:
    with pytest.raises(UserError, match=r"'cifar1': no such folder.*near: cifar10"):
        open_parts("cifar1")
