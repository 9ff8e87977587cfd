"""What a data set holds, and what follows from it for training: figures first, then sentences."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from models.yolo import load_architecture
from utils.config.dataset_file import SPLITS
from utils.config.dataset_yaml import DatasetSpec
from utils.dataset.anchor_fitting import AnchorFit, anchor_fit, object_sizes
from utils.dataset.detection_dataset import DetectionDataset, open_part
from utils.dataset.image_checks import ImageChecks, ImagePair, alike, check_images, labels_without_images
from utils.dataset.image_lists import label_path
from utils.dataset.label_files import LabelProblem
from utils.dataset.label_index import LabelIndex
from utils.runtime.console_log import counted
from utils.user_error import typed

LOGGER = logging.getLogger(__name__)
AP_S_BORDER = 32  # pixels on disk: COCO's small objects have less area than its square
BORDERS = (8, 16, 32)  # pixels at the training size: one, two and four cells of the P3 grid
ANCHOR_THRESHOLD = 4.0  # the hyperparameter anchor_t


@dataclass(frozen=True, slots=True)
class InspectionSettings:
    """What a data set is inspected for."""

    imgsz: int = 640  # pixels of the longer side at training
    architecture: str = "yolov5s.yaml"  # whose anchors are measured
    decode_images: bool = True  # decode every one; without it only labels and headers are read


@dataclass(frozen=True, slots=True)
class PartInspection:
    """One part (train, val, test) of a data set."""

    name: str
    dataset: DetectionDataset
    checks: ImageChecks | None  # None if images were not decoded
    sides: np.ndarray  # (N,) square root of each object's area, pixels at the training size
    fit: AnchorFit | None  # None if the architecture has no anchors, or leaves their sizes open
    orphans: tuple[Path, ...]  # label files without an image
    near_copies: tuple[ImagePair, ...]

    @property
    def index(self) -> LabelIndex:
        return self.dataset.index

    @property
    def problems(self) -> tuple[LabelProblem, ...]:
        return (*self.index.problems, *(self.checks.problems if self.checks else ()))

    @property
    def broken_files(self) -> int:
        return sum(problem.whole_file for problem in self.problems)

    @property
    def bad_rows(self) -> int:
        """Rows of label files and objects of annotation files that are left out."""
        return sum(not problem.whole_file for problem in self.problems)

    @property
    def out_of_range(self) -> int:
        """Rows with a coordinate outside the image."""
        return sum("is outside 0 to 1" in p.text or "leaves the image" in p.text for p in self.problems)

    @property
    def objects_per_image(self) -> np.ndarray:
        return np.diff(self.index.row_ends, prepend=0)

    def class_counts(self) -> np.ndarray:
        """Objects (C,) of each class."""
        return np.bincount(self.index.rows[:, 0].astype(np.int64), minlength=len(self.dataset.names))

    def share_below(self, border: float) -> float:
        """Share of the objects of less than ``border`` pixels a side (root of the area) at the training size."""
        return float((self.sides < border).mean()) if len(self.sides) else 0.0

    def small_on_disk(self) -> np.ndarray:
        """(N,) bool, objects that AP_S counts."""
        small: np.ndarray = self.index.object_sizes().prod(axis=1) < AP_S_BORDER**2
        return small


@dataclass(frozen=True, slots=True)
class Inspection:
    """A data set and what is found in it."""

    spec: DatasetSpec
    settings: InspectionSettings
    parts: Mapping[str, PartInspection]
    leak: tuple[ImagePair, ...]  # of train and val
    same_images: bool  # train and val name the same files
    advice: tuple[str, ...] = field(default=())


def inspect_dataset(spec: DatasetSpec, settings: InspectionSettings, *, progress: bool = True) -> Inspection:
    """Read every label and image of a data set.

    Raises:
        UserError: a part without any image that can be read, an unknown architecture.
    """
    anchors = load_architecture(settings.architecture).anchors
    parts = {
        name: _inspect_part(spec, name, settings, anchors, progress)
        for name in SPLITS
        if spec.split(name) and _is_there(spec, name)
    }
    train, val = parts["train"], parts["val"]
    same = set(map(str, train.index.paths)) == set(map(str, val.index.paths))
    leak: list[ImagePair] = []
    if train.checks is not None and val.checks is not None and not same:
        leak = alike(train.checks, val.checks)
    found = Inspection(spec, settings, parts, tuple(leak), same)
    return Inspection(spec, settings, parts, tuple(leak), same, tuple(_advice(found)))


def _is_there(spec: DatasetSpec, part: str) -> bool:
    """Whether a part can be inspected: exports often name a test part that they lack."""
    missing = [source for source in spec.test if not source.exists()] if part == "test" else []
    if missing:
        LOGGER.warning("%s: test: %s does not exist; the part is left out", spec.file, missing[0])
    return not missing


def _inspect_part(
    spec: DatasetSpec,
    name: str,
    settings: InspectionSettings,
    anchors: tuple[tuple[float, ...], ...] | int,
    progress: bool,
) -> PartInspection:
    title = f"{name}: labels" if progress else ""
    dataset = open_part(spec, name, title=title)
    index = dataset.index
    checks = check_images(index, title=f"{name}: images" if progress else "") if settings.decode_images else None
    sizes = object_sizes(index, settings.imgsz)
    fit = None
    if not isinstance(anchors, int):
        fit = anchor_fit(sizes, np.array(anchors, dtype=np.float64).reshape(-1, 2), ANCHOR_THRESHOLD)
    labels = [label_path(index.paths[row]) for row in range(len(index))]
    return PartInspection(
        name=name,
        dataset=dataset,
        checks=checks,
        sides=np.sqrt(sizes.prod(axis=1)),
        fit=fit,
        orphans=tuple(labels_without_images(index, labels)),
        near_copies=tuple(alike(checks)) if checks is not None else (),
    )


def _advice(found: Inspection) -> list[str]:
    return [
        sentence
        for found_by in (
            _what_is_broken,
            _what_is_twice,
            _what_is_small,
            _what_anchors_miss,
            _what_is_rare,
            _what_is_crowded,
        )
        for sentence in found_by(found)
    ]


def _what_is_broken(found: Inspection) -> list[str]:
    said = []
    for part in found.parts.values():
        if part.broken_files:
            said.append(f"{part.name}: {counted(part.broken_files, 'file')} cannot be read and will be left out.")
        if part.bad_rows:
            outside = f", {part.out_of_range} of them for reaching out of the image" if part.out_of_range else ""
            said.append(f"{part.name}: {counted(part.bad_rows, 'label')} will be left out{outside}.")
        if part.orphans:
            said.append(
                f"{part.name}: {counted(len(part.orphans), 'label file')} without an image, such as "
                f"{part.orphans[0].name}: images may have been lost or renamed."
            )
        if part.index.unlabelled > 0.1 * len(part.index):
            share = part.index.unlabelled / len(part.index)
            said.append(
                f"{part.name}: {counted(part.index.unlabelled, 'image')} ({share:.0%}) without a label file count as "
                "background; where they show objects, the model learns to overlook these."
            )
    return said


def _what_is_twice(found: Inspection) -> list[str]:
    said = []
    train, val = found.parts["train"], found.parts["val"]
    if found.same_images:
        said.append("val has the same images as train: its figures say how well they are remembered, no more.")
    elif found.leak:
        seen = len({pair.second for pair in found.leak})
        splitting = f"{typed('python -m utils.dataset.split')} {shlex.quote(str(found.spec.file))}"
        said.append(
            f"{seen} of {len(val.index)} val images ({seen / len(val.index):.1%}) look the same as a train image: "
            f"val's figures will be too good; {splitting} makes other parts, which keep such images together."
        )
    copies = sum(len(group) - 1 for group in train.checks.copies()) if train.checks else 0
    near = len({pair.second for pair in train.near_copies}) - copies
    if copies or near > 0:
        said.append(
            f"train: {counted(copies, 'image')} more than once byte for byte, {max(near, 0)} more that look the same "
            "as another."
        )
    if train.index.duplicates:
        said.append(f"train: {counted(train.index.duplicates, 'label row')} repeated; each object is used once.")
    return said


def _what_is_small(found: Inspection) -> list[str]:
    part, size = found.parts["train"], found.settings.imgsz
    if not len(part.sides):
        return ["train has no objects."]
    share = part.share_below(16)
    longest = float(np.median(part.index.sizes.max(axis=1)))
    ways = []
    if share >= 0.25:
        factor = next((k for k in (1.5, 2, 3, 4) if part.share_below(16 / k) < 0.25), 4)
        better = round(size * factor / 32) * 32
        ways = [f"train at {better}", "use a model for small objects (--cfg yolov5n-small.yaml)"]
        if longest > 1.5 * size:
            ways.append(f"cut images into windows (--tile {size}) and detect in tiles (--slice {size})")
    said = []
    if ways:
        said.append(f"{share:.0%} of your objects are under 16 px at {size}, two cells of the P3 grid: {_or(ways)}.")
    else:
        said.append(f"{share:.0%} of your objects are under 16 px at {size}: this size shows them well.")
        if longest > 2 * size and part.share_below(32) >= 0.25:
            said.append(
                f"Half of the images have {longest:.0f} px or more a side: windows (--tile {size}) would show "
                "objects in full size."
            )
    small = int(found.parts["val"].small_on_disk().sum())
    if 0 < small < 50:
        said.append(f"AP_S on val rests on {counted(small, 'object')}: differences of some points are chance.")
    return said


def _what_anchors_miss(found: Inspection) -> list[str]:
    fit, name = found.parts["train"].fit, found.settings.architecture
    if fit is None:
        return [f"{name} has no anchors of given sizes, so that there is no fit of them to show."]
    reached = f"The anchors of {name} reach {fit.best_possible_recall:.1%} of the objects at {found.settings.imgsz}"
    if fit.best_possible_recall < 0.98:
        return [f"{reached}: leave out --noautoanchor, so that train.py fits others."]
    return [f"{reached}: no need for others."]


def _what_is_rare(found: Inspection) -> list[str]:
    counts, names = found.parts["train"].class_counts(), found.spec.names
    said = []
    none = [names[i] for i in np.flatnonzero(counts == 0)]
    if none:
        said.append(f"{counted(len(none), 'class')} without an object in train: {_some(none)}.")
    few = [f"{names[i]} {counts[i]}" for i in np.argsort(counts, kind="stable") if 0 < counts[i] < 100]
    if few:
        said.append(f"{counted(len(few), 'class')} with fewer than 100 objects in train: {_some(few)}.")
    present = counts[counts > 0]
    if len(present) > 1 and present.max() >= 50 * present.min():
        said.append(
            f"{names[int(counts.argmax())]} occurs {present.max() / present.min():.0f} times as often as the rarest "
            "class: --image-weights draws images of classes that are found badly more often."
        )
    return said


def _what_is_crowded(found: Inspection) -> list[str]:
    most = max(int(part.objects_per_image.max(initial=0)) for part in found.parts.values())
    if most <= 300:
        return []
    return [f"An image has {most} objects, val.py keeps 300 detections per image: evaluate with --max-det {most * 2}."]


def _some(words: Sequence[str], most: int = 8) -> str:
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _or(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"{', '.join(ways[:-1])}, or {ways[-1]}"
