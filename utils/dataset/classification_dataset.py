"""Images of one class each: folders, and data sets known by name; their parts and what is in them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torchvision.datasets import CIFAR10, CIFAR100

from utils.config.dataset_file import DATASETS, dataset_folder
from utils.dataset.image_files import ImageReadError, image_size, read_image
from utils.dataset.image_lists import list_images
from utils.runtime.archives import unpack
from utils.runtime.console_log import counted, with_progress
from utils.runtime.downloads import fetch
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)
EVALUATED_PARTS = ("test", "val")  # as YOLOv5: the first that is there
TINY_IMAGENET_LABELS = "val_annotations.txt"
SCAN_THREADS = 8
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
TORONTO = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True, slots=True)
class ClassificationDataset:
    """The images of one part, files or an array of them."""

    part: str  # train, val or test
    names: tuple[str, ...]
    classes: np.ndarray  # (N,) int64
    images: Sequence[Path] | np.ndarray  # files, or (N, H, W, 3) uint8 RGB
    problems: tuple[str, ...] = ()  # one line for each file that cannot be read and is left out
    memory: tuple[np.ndarray, ...] = ()  # decoded images, if they are kept

    def __len__(self) -> int:
        return len(self.classes)

    def image(self, index: int) -> np.ndarray:
        """Image (H, W, 3) uint8 RGB."""
        if self.memory:
            return self.memory[index]
        entry = self.images[index]
        return read_image(entry) if isinstance(entry, Path) else np.asarray(entry)

    def kept_in_memory(self) -> ClassificationDataset:
        """The same part with every image decoded; an array is in memory already."""
        if isinstance(self.images, np.ndarray) or self.memory:
            return self
        with ThreadPoolExecutor(SCAN_THREADS) as pool:
            decoded = pool.map(self.image, range(len(self)))
            shown = with_progress(decoded, len(self), "image", f"{self.part}: decoding")
            return replace(self, memory=tuple(shown))


@dataclass(frozen=True, slots=True)
class ClassificationParts:
    """What is learned from and what is evaluated on."""

    train: ClassificationDataset
    evaluated: ClassificationDataset


def open_parts(data: str) -> ClassificationParts:
    """The training part and the part to evaluate on of ``--data``, of the same classes.

    Raises:
        UserError: no such data set, a part is missing, or the parts have other classes.
    """
    train, evaluated = open_part(data, "train"), open_part(data, "evaluated")
    if train.names != evaluated.names:
        other = sorted({*train.names} ^ {*evaluated.names})
        raise UserError(f"{data}: {train.part} and {evaluated.part} have other classes ({', '.join(other[:5])})")
    return ClassificationParts(train, evaluated)


def open_part(data: str, part: str) -> ClassificationDataset:
    """One part of ``--data``: ``train``, or ``evaluated``, which is test or val, whichever is there first.

    Raises:
        UserError: no such data set or part, or a part without readable images.
    """
    named = data.strip("/")
    if named in CIFARS and not Path(data).is_dir():
        archive, kind = CIFARS[named]
        folder = archive.fetched(dataset_folder(DATASETS / archive.folder).parent).parent
        return from_array(cifar_images(kind, folder, train=part == "train"), "train" if part == "train" else "test")
    return from_folder(data_folder(data), part)


def data_folder(data: str) -> Path:
    """The folder of ``--data``: as given, in the folder of data sets (`dataset_folder`), or fetched to there.

    Raises:
        UserError: there is none, and no data set is known by that name.
    """
    for folder in (Path(data), dataset_folder(DATASETS / data)):
        if data and folder.is_dir():
            return folder
    if data in FOLDERS:
        return FOLDERS[data].fetched(dataset_folder(DATASETS / FOLDERS[data].folder).parent)
    near = difflib.get_close_matches(data, NAMES, n=3)
    raise UserError(
        f"{data!r}: no such folder, nor a data set known by name{'; near: ' + ', '.join(near) if near else ''}"
    )


def from_array(images: ArrayImages, part: str) -> ClassificationDataset:
    """A part whose images are in memory."""
    return ClassificationDataset(part, images.names, images.classes, images.images)


def from_folder(folder: Path, part: str) -> ClassificationDataset:
    """A part of a folder with ``train`` and ``val`` or ``test``, each with a folder per class; or Tiny ImageNet's.

    Raises:
        UserError: the part or its classes are missing, or none of its images can be read.
    """
    annotations = folder / "val" / TINY_IMAGENET_LABELS
    if annotations.is_file() and part != "train":  # its test part has no labels
        names = class_folders(folder / "train")
        files, classes = tiny_imagenet_images(annotations, names)
        return scanned("val", names, files, classes)
    wanted = ("train",) if part == "train" else EVALUATED_PARTS
    found = next((name for name in wanted if (folder / name).is_dir()), None)
    if found is None:
        raise UserError(f"{folder}: has no folder {' or '.join(wanted)}")
    names = class_folders(folder / found)
    files = []
    counts = []
    for name in names:
        own = list_images([folder / found / name])
        files += own
        counts.append(len(own))
    return scanned(found, names, files, np.repeat(np.arange(len(names)), counts))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Names of the folders in ``folder``, sorted: the classes.

    Raises:
        UserError: there are none.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir()) if folder.is_dir() else []
    if not names:
        raise UserError(f"{folder}: holds no folders; one for each class is needed")
    return tuple(names)


def tiny_imagenet_images(annotations: Path, names: tuple[str, ...]) -> tuple[list[Path], np.ndarray]:
    """Files and classes out of ``val_annotations.txt``: file, class, box, between tabs.

    Raises:
        UserError: naming file and line.
    """
    place = {name: index for index, name in enumerate(names)}
    files: list[Path] = []
    classes: list[int] = []
    for number, line in enumerate(annotations.read_text(encoding="utf-8").splitlines(), 1):
        words = line.split("\t")
        if len(words) < 2 or words[1] not in place or Path(words[0]).name != words[0]:
            raise UserError(f"{annotations}:{number}: {line[:60]!r} is not a file and one of the {len(names)} classes")
        files.append(annotations.parent / "images" / words[0])
        classes.append(place[words[1]])
    return files, np.array(classes, dtype=np.int64)


def scanned(part: str, names: tuple[str, ...], files: Sequence[Path], classes: np.ndarray) -> ClassificationDataset:
    """The part without the files that cannot be read, which are counted and named in the log.

    Raises:
        UserError: nothing is left.
    """
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        found = with_progress(pool.map(_problem, files), len(files), "image", f"{part}: scanning")
        reasons = list(found)
    good = [index for index, reason in enumerate(reasons) if not reason]
    problems = tuple(reason for reason in reasons if reason)
    if not good:
        raise UserError(f"{part}: none of {len(files)} images can be read{'; ' + problems[0] if problems else ''}")
    images, kinds = counted(len(good), "image"), counted(len(names), "class")
    LOGGER.info("%s: %s of %s, %d unreadable", part, images, kinds, len(problems))
    kept = classes[good].astype(np.int64)
    return ClassificationDataset(part, names, kept, [files[index] for index in good], problems)


def _problem(path: Path) -> str:
    try:
        image_size(path)
    except ImageReadError as error:
        return str(error)
    return ""


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
