"""Every image of a split decoded once, by all cores: does it open, is it there twice, what does it look like."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.dataset.image_files import ImageReadError, read_image
from utils.dataset.label_files import LabelProblem
from utils.dataset.label_index import LabelIndex
from utils.runtime.console_log import with_progress
from utils.runtime.threads import one_opencv_thread, usable_processors
from utils.user_error import UserError

HASH_SIDE = 16  # the hash has this many bits squared
SMALLEST_DECODED = 96  # pixels of the shorter side that a reduced reading leaves
NEAR = 16  # of 256 bits that two hashes of the same view differ in, at most
FEATURELESS = 24  # set or unset bits below which a hash says nothing (a black frame looks like any other)
_COMPARISONS = 2**24  # of images at once, 64 MiB of distances


class ImagePair(NamedTuple):
    """Two images that look the same; rows of their splits."""

    first: int
    second: int
    distance: int  # bits of 256 in which their hashes differ


@dataclass(frozen=True, slots=True)
class ImageChecks:
    """What decoding the F images of an index gave."""

    hashes: np.ndarray  # (F, 256) bool
    digests: tuple[bytes, ...]  # F, of the file's bytes; empty for a file that could not be read
    problems: tuple[LabelProblem, ...]  # images that do not open

    @property
    def readable(self) -> np.ndarray:
        """(F,) bool."""
        return np.array([bool(digest) for digest in self.digests], dtype=bool)

    @property
    def telling(self) -> np.ndarray:
        """(F,) bool, images whose hash says something."""
        bits = self.hashes.sum(axis=1)
        telling: np.ndarray = self.readable & (bits >= FEATURELESS) & (bits <= HASH_SIDE**2 - FEATURELESS)
        return telling

    def distance(self, first: int, second: int) -> int:
        """Bits of 256 in which the hashes of two images differ."""
        return int((self.hashes[first] != self.hashes[second]).sum())

    def copies(self) -> list[list[int]]:
        """Groups of images whose files are the same byte for byte."""
        groups: dict[bytes, list[int]] = {}
        for row, digest in enumerate(self.digests):
            if digest:
                groups.setdefault(digest, []).append(row)
        return [group for group in groups.values() if len(group) > 1]


def check_images(index: LabelIndex, *, title: str = "") -> ImageChecks:
    """Decode every image of ``index``; ``title`` is the progress bar's, without it there is none."""

    def check(row: int) -> tuple[np.ndarray, bytes, str]:
        return _check(index.paths[row], min(index.sizes[row].tolist()))

    with one_opencv_thread(), ThreadPoolExecutor(usable_processors()) as pool:
        results = pool.map(check, range(len(index)))
        found = list(with_progress(results, len(index), "image", title, shown=bool(title)))
    problems = [LabelProblem(str(index.paths[row]), 0, text) for row, (_, _, text) in enumerate(found) if text]
    return ImageChecks(
        hashes=np.array([bits for bits, _, _ in found], dtype=bool).reshape(-1, HASH_SIDE**2),
        digests=tuple(digest for _, digest, _ in found),
        problems=tuple(problems),
    )


def _check(path: Path, shorter_side: int) -> tuple[np.ndarray, bytes, str]:
    """Hash, digest and problem of one image."""
    reduction = max((r for r in (2, 4, 8) if shorter_side // r >= SMALLEST_DECODED), default=1)
    try:
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
        bits = difference_hash(read_image(path, reduction))
    except OSError as error:
        return np.zeros(HASH_SIDE**2, dtype=bool), b"", f"cannot be read: {error.strerror}"
    except ImageReadError as error:
        return np.zeros(HASH_SIDE**2, dtype=bool), b"", str(error).removeprefix(f"{path}: ")
    return bits, digest, ""


def difference_hash(image: np.ndarray) -> np.ndarray:
    """(256,) bool of an image (H, W, 3) uint8: where brightness grows from left to right, on a grid of 16 x 16.

    Nearly equal images (stored anew, scaled, a little brighter) differ in few bits, others in about half.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)  # fractions, so that neighbours are seldom equal
    small = cv2.resize(grey, (HASH_SIDE + 1, HASH_SIDE), interpolation=cv2.INTER_AREA)
    bits: np.ndarray = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return bits


def alike(first: ImageChecks, second: ImageChecks | None = None) -> list[ImagePair]:
    """Each image of ``second`` that looks the same as one of ``first``, with the one that it is closest to.

    Within one split, if ``second`` is left out, it is compared with the images before it. Closest pairs first.
    """
    left, right = _signs(first), _signs(second or first)
    closest = np.full(len(right.rows), np.inf, dtype=np.float32)
    partner = np.zeros(len(right.rows), dtype=np.int64)
    step = max(_COMPARISONS // max(len(right.rows), 1), 1)
    for start in range(0, len(left.rows), step):
        rows = left.rows[start : start + step]
        others = slice(start if second is None else 0, None)
        # Signs multiply to 1 where bits agree: the sum is 256 less twice the bits that differ.
        distance = (HASH_SIDE**2 - left.signs[start : start + step] @ right.signs[others].T) / 2
        if second is None:
            distance[rows[:, None] >= right.rows[None, others]] = np.inf
        nearest = distance.argmin(axis=0)
        found = np.take_along_axis(distance, nearest[None], axis=0)[0]
        nearer = found < closest[others]
        closest[others][nearer], partner[others][nearer] = found[nearer], rows[nearest[nearer]]
    pairs = [
        ImagePair(int(partner[i]), int(right.rows[i]), round(float(closest[i])))
        for i in np.flatnonzero(closest <= NEAR)
    ]
    return sorted(pairs, key=lambda pair: (pair.distance, pair.first, pair.second))


def all_alike(checks: ImageChecks, most_bits: int = NEAR) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each image with the later ones (K,) whose hashes differ in at most ``most_bits``, and these distances (K,)."""
    own = _signs(checks)
    step = max(_COMPARISONS // max(len(own.rows), 1), 1)
    for start in range(0, len(own.rows), step):
        distance = (HASH_SIDE**2 - own.signs[start : start + step] @ own.signs[start:].T) / 2
        near = np.triu(distance <= most_bits, 1)
        for place in np.flatnonzero(near.any(axis=1)):
            others = np.flatnonzero(near[place])
            yield int(own.rows[start + place]), own.rows[start + others], distance[place, others]


class _Signs(NamedTuple):
    signs: np.ndarray  # (K, 256) float32, 1 or -1
    rows: np.ndarray  # (K,) of the images whose hash says something


def _signs(checks: ImageChecks) -> _Signs:
    rows = np.flatnonzero(checks.telling)
    return _Signs(np.where(checks.hashes[rows], 1, -1).astype(np.float32), rows)


def labels_without_images(index: LabelIndex, label_files: Sequence[Path]) -> list[Path]:
    """Label files in the folders of ``label_files`` that no image beside those of ``index`` belongs to."""
    images: dict[Path, set[str]] = {}
    for row, label in enumerate(label_files):
        folder = index.paths[row].parent
        if label.parent != folder:  # labels beside images share the folder with other texts
            images.setdefault(label.parent, set()).add(str(folder))
    orphans: list[Path] = []
    for labels, folders in images.items():
        try:
            stems = {Path(name).stem for folder in folders for name in os.listdir(folder)}  # noqa: PTH208
            orphans += [file for file in labels.glob("*.txt") if file.stem not in stems]
        except OSError as error:
            raise UserError(f"{labels}: cannot be listed: {error.strerror}") from error
    return sorted(orphans)
