"""Classification data sets that are known by name: where they come from, and what lies in them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from utils.runtime.archives import unpack
from utils.runtime.downloads import fetch
from utils.user_error import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
DATASETS = REPOSITORY / "datasets"
MIRROR = "SPD_DATA_URL"  # environment variable: address of a folder with the same archives
YOLOV5_ASSETS = "https://github.com/ultralytics/yolov5/releases/download/v1.0"
FROM_YOLOV5 = (
    "caltech101",
    "caltech256",
    "fashion-mnist",
    "imagenette",
    "imagenette160",
    "imagenette320",
    "imagewoof",
    "imagewoof160",
    "imagewoof320",
    "mnist",
)


@dataclass(frozen=True, slots=True)
class Archive:
    """A data set on the web."""

    url: str
    folder: str  # that the archive unpacks to
    size: int | None = None  # bytes
    sha256: str | None = None

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[1]

    def fetched(self, datasets: Path) -> Path:
        """The folder below ``datasets``, which is left as it is if it is there, fetched and unpacked otherwise.

        Raises:
            UserError: it cannot be fetched, or is not what was expected.
        """
        place = datasets / self.folder
        if place.is_dir():
            return place
        mirror = os.environ.get(MIRROR, "").strip()
        address = f"{mirror.rstrip('/')}/{self.file_name}" if mirror else self.url
        archive = fetch(address, datasets / self.file_name, size=self.size, sha256=self.sha256)
        unpack(archive, datasets)
        if not place.is_dir():
            raise UserError(f"{archive}: has no folder {self.folder}")
        archive.unlink()
        return place


@dataclass(frozen=True, slots=True)
class ArrayImages:
    """Images that a few files hold together: (N, H, W, 3) uint8 RGB, classes (N,) int64."""

    images: np.ndarray
    classes: np.ndarray
    names: tuple[str, ...]
    origin: str  # for messages


CifarReader = Callable[[Path, bool], ArrayImages]  # folder above the archive's; whether the training part
TORONTO = "https://www.cs.toronto.edu/~kriz"
CIFAR10_ARCHIVE = Archive(
    f"{TORONTO}/cifar-10-python.tar.gz",
    "cifar-10-batches-py",
    170_498_071,
    "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
)
CIFAR100_ARCHIVE = Archive(
    f"{TORONTO}/cifar-100-python.tar.gz",
    "cifar-100-python",
    169_001_437,
    "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
)
TINY_IMAGENET_ARCHIVE = Archive(
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "tiny-imagenet-200",
    248_100_043,
    "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
)
CIFARS = {"cifar10": (CIFAR10_ARCHIVE, CIFAR10), "cifar100": (CIFAR100_ARCHIVE, CIFAR100)}
FOLDERS = {
    "tiny-imagenet": TINY_IMAGENET_ARCHIVE,
    **{name: Archive(f"{YOLOV5_ASSETS}/{name}.zip", name) for name in FROM_YOLOV5},
}
NAMES = (*CIFARS, *FOLDERS)


def cifar_images(kind: type[CIFAR10], datasets: Path, *, train: bool) -> ArrayImages:
    """A part of CIFAR-10 or CIFAR-100 out of the unpacked archive below ``datasets``, by torchvision's reader.

    Its files are pickles; the reader opens them only if their checksums are those of the published ones.

    Raises:
        UserError: files are missing or have other checksums.
    """
    folder = datasets / kind.base_folder
    try:
        content = kind(root=datasets, train=train, download=False)
    except RuntimeError:
        raise UserError(f"{folder}: files are missing or are not the published ones; remove the folder") from None
    classes = np.array(content.targets, dtype=np.int64)
    return ArrayImages(content.data, classes, tuple(content.classes), str(folder))
