"""How the objects of a COCO annotation file fit the images and the classes of a split: the truth of COCO's figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from utils.dataset.coco_files import CocoAnnotations
from utils.dataset.image_files import ORIENTATION_TAG
from utils.dataset.label_files import LabelProblem, plain_name
from utils.dataset.label_index import LabelIndex
from utils.geometry.boxes import box_area, cxcywh_to_xyxy
from utils.user_error import UserError

LOGGER = logging.getLogger(__name__)

NO_CLASS = -1
MISSPELLED = 0.1  # part of the categories that may be named unlike any class
FAR_BEYOND = 1.1  # times a side of the image: boxes that reach further are not of an image of that size


@dataclass(frozen=True, slots=True)
class CocoTruth:
    """Ground truth of a data set as columns; images are numbered from 0, classes by their index."""

    image_count: int
    images: np.ndarray  # (M,) int64
    classes: np.ndarray  # (M,) int64
    boxes: np.ndarray  # (M, 4) float64 xyxy, source pixels; float32 would round what an annotation file gives
    areas: np.ndarray  # (M,) float64, square source pixels; need not be those of the boxes
    crowd: np.ndarray  # (M,) bool: a region that may hold many objects, where detections are not counted as wrong

    def as_one_class(self) -> CocoTruth:
        return replace(self, classes=np.zeros_like(self.classes))


@dataclass(frozen=True, slots=True)
class ImageAnnotations:
    """An annotation file seen from a split and a model: its images in their order, its classes by their index."""

    file: Path
    truth: CocoTruth  # a category that is no class of the data set is numbered after the last class
    image_ids: tuple[int | str, ...]  # of each image; a negative number (-1, -2, ... by place) if the file lacks it
    category_ids: tuple[int, ...]  # of each class; -1 if the file lacks it
    has_objects: bool = True  # whether the file has any, of whatever images

    def lists(self, place: int) -> bool:
        """Whether the file has this image."""
        number = self.image_ids[place]
        return isinstance(number, str) or number >= 0

    def listed(self) -> np.ndarray:
        """Places (F',) of the images that the file has."""
        return np.flatnonzero([self.lists(place) for place in range(len(self.image_ids))])


def annotated(
    index: LabelIndex, annotations: CocoAnnotations, names: Sequence[str]
) -> tuple[LabelIndex, ImageAnnotations]:
    """The annotations of the index's images, and the index with those that cannot be used as problems.

    Where no image has a label file, the objects are the index's labels too.

    Raises:
        UserError: as `fit_to_images`; or an image of another shape than the file says, whose boxes cannot be scaled.
    """
    image_of = _images_of(annotations, index.paths)
    annotations, index = _usable(annotations, index, image_of)
    class_of = classes_of(annotations, names)
    if index.unlabelled == len(index) and annotations.has_objects:
        index = _with_labels(index, annotations, image_of, class_of, len(names))
    return index, _fitted(annotations, index.paths, len(names), image_of, class_of)


def _usable(
    annotations: CocoAnnotations, index: LabelIndex, image_of: np.ndarray
) -> tuple[CocoAnnotations, LabelIndex]:
    """The objects of the index's images, in pixels of these images as they are read.

    Boxes of a file that was made for images of another size are scaled, with the sides swapped also turned. An object
    without area or beside its image is left out and is a problem in the index that is given back. An area that the
    object cannot have becomes that of the box.
    """
    row_of = np.full(len(annotations.image_ids), -1)
    row_of[image_of[image_of >= 0]] = np.flatnonzero(image_of >= 0)
    own = annotations.part(np.flatnonzero(row_of[annotations.images] >= 0))

    sides = own.boxes[:, 2:] - own.boxes[:, :2]
    flat = (sides <= 0).any(axis=1)
    problems = [
        _problem(own, row, f"width {sides[row, 0]:g} and height {sides[row, 1]:g}: the object has no area")
        for row in np.flatnonzero(flat).tolist()
    ]
    own, sides = own.part(np.flatnonzero(~flat)), sides[~flat]
    said = own.areas
    # A box and an area that were rounded apart differ by a pixel on each side at most.
    strange = (said <= 0) | (said > (sides + 1).prod(axis=1))
    own = _at_sizes_of(own, index, row_of)

    limits = index.sizes[row_of[own.images]][:, ::-1]
    inside = own.boxes.clip(0, np.tile(limits, 2))
    areas = (inside[:, 2:] - inside[:, :2]).prod(axis=1)
    beside = areas <= 0
    for row in np.flatnonzero(beside).tolist():
        x1, y1, x2, y2 = own.boxes[row].tolist()
        text = f"the box from {x1:g} {y1:g} to {x2:g} {y2:g} lies beside its image of {_size(limits[row, ::-1])}"
        problems.append(_problem(own, row, text))
    far = np.maximum(-own.boxes[:, :2], own.boxes[:, 2:] - limits).max(axis=1, initial=0) * ~beside
    if (far > 1).any():
        row = int((far > 1).argmax())
        LOGGER.warning(
            "%s: annotations[%d]: the box reaches %.0f pixels beyond its image; %d such labels are clipped to it",
            *(own.file, own.places[row], far[row], (far > 1).sum()),
        )
    strange = ~beside & (strange | (own.areas > (limits + 1).prod(axis=1)))
    if strange.any():
        row = int(strange.argmax())
        LOGGER.warning(
            "%s: annotations[%d]: area %g, but its box has %g square pixels; %d such areas are taken from the boxes",
            *(own.file, own.places[row], said[row], areas[row], strange.sum()),
        )
        own = replace(own, areas=np.where(strange, areas, own.areas))
    return own.part(np.flatnonzero(~beside)), replace(index, problems=(*index.problems, *problems))


def _at_sizes_of(annotations: CocoAnnotations, index: LabelIndex, row_of: np.ndarray) -> CocoAnnotations:
    """The objects in pixels of the index's images where the file gives other sizes; ``row_of`` (I,): place in it."""
    stated, images, boxes = annotations.image_sizes, annotations.images, annotations.boxes.copy()
    sizes, reach = index.sizes[row_of].astype(np.float64), np.zeros_like(stated)
    np.maximum.at(reach, images, boxes[:, [3, 2]])
    counts = np.bincount(images, minlength=len(sizes))
    other = np.flatnonzero((counts > 0) & (stated > 0).all(axis=1) & (stated != sizes).any(axis=1)).tolist()
    if not other:
        return annotations
    beyond = (reach > FAR_BEYOND * stated + 1).any(axis=1) & (reach <= sizes + 1).all(axis=1)
    swapped = {i for i in other if not _alike(stated[i], sizes[i]) and _alike(stated[i][::-1], sizes[i])}
    # The sizes were read without regard to the orientation tag, the boxes drawn in the upright image.
    upright = any(beyond[image] for image in swapped)
    areas, outlines = annotations.areas.copy(), list(annotations.outlines)
    order, ends = np.argsort(images, kind="stable"), np.cumsum(counts)
    ways: dict[str, list[int]] = {}
    for image in other:
        size, frame = sizes[image], stated[image]
        orientation = _orientation(index.paths[int(row_of[image])]) if image in swapped and not upright else 1
        if image in swapped:
            refusal = "" if upright or orientation > 4 else "the sides are swapped and no orientation tag says how"
        elif beyond[image]:
            refusal = f"its boxes reach to {reach[image, 1]:g} x {reach[image, 0]:g}"
        else:
            refusal = "" if _alike(frame, size) else "that is another shape"
        if refusal:
            raise UserError(
                f"{annotations.file}: images[{image}]: {annotations.image_names[image]} is {_size(size)}, but the file "
                f"says {_size(frame)}; {refusal}: correct width and height, or leave them out if the boxes fit"
            )
        way = "scaled" if image not in swapped else "turned as its orientation tag says" if not upright else "kept"
        ways.setdefault(way, []).append(image)

        rows = order[ends[image] - counts[image] : ends[image]]
        final = frame[::-1] if image in swapped else frame
        scale = (size / final)[::-1]
        corners = _turned(boxes[rows].reshape(-1, 2, 2), orientation, frame) * scale
        boxes[rows] = np.concatenate((corners.min(axis=1), corners.max(axis=1)), axis=1)
        areas[rows] *= scale.prod()
        for row in rows.tolist():
            outline = outlines[row]
            if outline is not None:
                outlines[row] = (_turned(outline, orientation, frame) * scale).astype(np.float32)
    for way, changed in ways.items():
        name, size, frame = annotations.image_names[changed[0]], sizes[changed[0]], stated[changed[0]]
        LOGGER.warning(
            "%s: says %s for %s, which is %s: the boxes of %d such images are %s",
            *(annotations.file, _size(frame), name, _size(size), len(changed), way),
        )
    return replace(annotations, boxes=boxes, areas=areas, outlines=tuple(outlines))


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two sizes are of one shape, up to a pixel."""
    (height, width), (other_height, other_width) = one.tolist(), other.tolist()
    return bool(abs(height * other_width - width * other_height) <= max(height, width, other_height, other_width))


def _orientation(path: Path) -> int:
    """The orientation tag where it turns the image by 90 or 270 degrees (5 to 8), 1 otherwise."""
    try:
        with Image.open(path) as image:
            tag = image.getexif().get(ORIENTATION_TAG)
    except (OSError, Image.DecompressionBombError, ValueError, SyntaxError, KeyError, TypeError, IndexError):
        return 1  # a broken tag block
    return int(tag) if tag in (5, 6, 7, 8) else 1


def _turned(points: np.ndarray, orientation: int, size: np.ndarray) -> np.ndarray:
    """Points (..., 2) of an image of that height and width as it is stored, in the image as its tag turns it."""
    if orientation <= 4:
        return points
    (height, width), x, y = size.tolist(), points[..., 0], points[..., 1]
    return np.stack((height - y if orientation in (6, 7) else y, width - x if orientation in (7, 8) else x), axis=-1)


def _size(size: np.ndarray) -> str:
    height, width = size.tolist()
    return f"{width:g} x {height:g}"


def fit_to_images(annotations: CocoAnnotations, paths: Sequence[Path], names: Sequence[str]) -> ImageAnnotations:
    """The annotations of these images, with classes numbered as in ``names``.

    Images are found by file name, with as many folders as the file gives; categories by name. Where no name is
    the same but there are as many categories as classes, they are taken in order of their ids.

    Raises:
        UserError: no image is in the file, a name fits several images, or no category fits a class.
    """
    return _fitted(annotations, paths, len(names), _images_of(annotations, paths), classes_of(annotations, names))


def _fitted(
    annotations: CocoAnnotations,
    paths: Sequence[Path],
    class_count: int,
    image_of: np.ndarray,
    class_of: np.ndarray,
) -> ImageAnnotations:
    if (image_of < 0).all():
        raise UserError(
            f"{annotations.file}: none of the images that it lists is in the data set, such as {paths[0].name}"
        )
    missing, more = int((image_of < 0).sum()), len(annotations.image_ids) - int((image_of >= 0).sum())
    if missing:
        LOGGER.warning("%s: has no entry for %d of %d images", annotations.file, missing, len(paths))
    if more and annotations.has_objects:
        LOGGER.warning("%s: %d of its images are not among the images evaluated", annotations.file, more)
    place_of = np.full(len(annotations.image_ids), -1)
    place_of[image_of[image_of >= 0]] = np.flatnonzero(image_of >= 0)
    kept = place_of[annotations.images] >= 0
    truth = CocoTruth(
        image_count=len(paths),
        images=place_of[annotations.images][kept],
        classes=class_of[annotations.categories][kept],
        boxes=annotations.boxes[kept],
        areas=annotations.areas[kept],
        crowd=annotations.crowd[kept],
    )
    ids = annotations.image_ids
    category_of = {int(index): int(annotations.category_ids[place]) for place, index in enumerate(class_of)}
    return ImageAnnotations(
        file=annotations.file,
        truth=truth,
        image_ids=tuple(ids[image] if image >= 0 else -1 - place for place, image in enumerate(image_of.tolist())),
        category_ids=tuple(category_of.get(index, NO_CLASS) for index in range(class_count)),
        has_objects=annotations.has_objects,
    )


def _with_labels(
    index: LabelIndex, annotations: CocoAnnotations, image_of: np.ndarray, class_of: np.ndarray, class_count: int
) -> LabelIndex:
    """The index of the same images with the objects, which have to be usable, as their labels.

    Crowd regions are no objects and are left out, as COCO's own tools do for training. A category that is no class
    is a problem in the result.
    """
    objects = np.flatnonzero(~annotations.crowd)
    objects = objects[np.argsort(annotations.images[objects], kind="stable")]
    of_entry = np.bincount(annotations.images[objects], minlength=len(annotations.image_ids))
    counts = np.where(image_of >= 0, of_entry[image_of], 0)
    firsts = (np.cumsum(of_entry) - of_entry)[image_of]
    places = np.repeat(np.arange(len(index)), counts)
    # Entry by entry as images stand in the index: the first of its image's objects and those behind it.
    rows = objects[np.repeat(firsts - (np.cumsum(counts) - counts), counts) + np.arange(len(places))]

    classes = class_of[annotations.categories[rows]]
    strangers = [
        _problem(
            annotations, row, f"{annotations.category_names[annotations.categories[row]]!r} is no class of the data set"
        )
        for row in rows[classes >= class_count].tolist()
    ]
    known = classes < class_count
    rows, places, classes = rows[known], places[known], classes[known]
    frames = np.tile(index.sizes[places][:, ::-1].astype(np.float64), 2)  # width and height, twice
    boxes = annotations.boxes[rows].clip(0, frames)
    centres, sides = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    outlines = [annotations.outlines[row] for row in rows.tolist()]
    points = [
        outline / frame
        for outline, frame in zip(outlines, frames[:, :2].astype(np.float32), strict=True)
        if outline is not None
    ]
    return replace(
        index,
        rows=np.column_stack((classes, centres / frames[:, :2], sides / frames[:, :2])).astype(np.float32),
        row_ends=np.cumsum(np.bincount(places, minlength=len(index)), dtype=np.int64),
        points=np.concatenate(points) if points else np.zeros((0, 2), np.float32),
        point_ends=np.cumsum([0 if outline is None else len(outline) for outline in outlines], dtype=np.int64),
        unlabelled=int((counts == 0).sum()),
        problems=(*index.problems, *strangers),
    )


def truth_with_ignored(index: LabelIndex) -> CocoTruth | None:
    """Labels with the regions to ignore as crowd regions; None where there are none of these.

    A detection that lies in such a region is not counted as wrong (VOC's difficult objects).
    """
    if not len(index.ignored):
        return None
    rows = np.concatenate((index.rows, index.ignored))
    places = np.arange(len(index))
    images = np.concatenate([np.repeat(places, np.diff(e, prepend=0)) for e in (index.row_ends, index.ignored_ends)])
    scale = np.tile(index.sizes[images][:, ::-1].astype(np.float64), 2)
    boxes = cxcywh_to_xyxy(rows[:, 1:].astype(np.float64)).clip(0, 1) * scale
    return CocoTruth(
        image_count=len(index),
        images=images,
        classes=rows[:, 0].astype(np.int64),
        boxes=boxes,
        areas=box_area(boxes),
        crowd=np.arange(len(rows)) >= len(index.rows),
    )


def _images_of(annotations: CocoAnnotations, paths: Sequence[Path]) -> np.ndarray:
    """Place (F,) in the file of each image's entry, -1 where there is none."""
    by_name: dict[str, list[int]] = {}
    for place, name in enumerate(annotations.image_names):
        by_name.setdefault(name.rpartition("/")[2], []).append(place)
    found = np.full(len(paths), -1)
    for row, path in enumerate(paths):
        candidates = by_name.get(path.name, [])
        if len(candidates) > 1:
            parts = [PurePosixPath(annotations.image_names[place]).parts for place in candidates]
            fitting = [c for c, own in zip(candidates, parts, strict=True) if path.parts[-len(own) :] == own]
            longest = max((len(own) for own in parts), default=0)
            exact = [c for c in fitting if len(PurePosixPath(annotations.image_names[c]).parts) == longest]
            candidates = exact or fitting
        if len(candidates) > 1:
            raise UserError(f"{annotations.file}: {len(candidates)} of its images could be {path}")
        if candidates:
            found[row] = candidates[0]
    return found


def classes_of(annotations: CocoAnnotations, names: Sequence[str]) -> np.ndarray:
    """Class index (K,) of each category; categories that are no class are numbered after the last class.

    Categories are classes by name. Where there are as many of both and none is named alike, or all but a tenth are
    and stand in the order of their ids, all are taken in that order: names are spelled differently.
    """
    index_of = {plain_name(name): index for index, name in enumerate(names)}
    known = [index_of.get(plain_name(name), -1) for name in annotations.category_names]
    if known and max(known) < 0 and len(known) != len(names):
        raise UserError(
            f"{annotations.file}: none of its categories ({', '.join(annotations.category_names[:5])}) is a class "
            f"of the data set ({', '.join(names[:5])})"
        )
    order = np.empty(len(known), dtype=np.int64)
    order[np.argsort(annotations.category_ids)] = np.arange(len(known))
    other = [annotations.category_names[i] for i, index in enumerate(known) if index < 0]
    in_order = all(index in (-1, place) for index, place in zip(known, order.tolist(), strict=True))
    few = len(other) in (0, len(known)) or len(other) <= MISSPELLED * len(known)
    if len(known) == len(names) and in_order and few:
        if other:
            shown = ", ".join(other[:5])
            LOGGER.warning("%s: categories not named like a class, taken in order of ids: %s", annotations.file, shown)
        return order
    spare = iter(range(len(names), len(names) + len(known)))
    classes = [index if index >= 0 else next(spare) for index in known]
    if other and annotations.has_objects:
        shown = ", ".join(other[:5])
        LOGGER.warning("%s: categories that are no class, and count as never found: %s", annotations.file, shown)
    return np.array(classes, dtype=np.int64)


def _problem(annotations: CocoAnnotations, row: int, text: str) -> LabelProblem:
    return LabelProblem(str(annotations.file), 0, f"annotations[{annotations.places[row]}]: {text}")
