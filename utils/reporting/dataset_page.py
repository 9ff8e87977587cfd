"""The page that `utils.dataset.inspect` writes: figures, images, and what follows from them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from utils.dataset.image_checks import ImagePair
from utils.dataset.image_files import ImageReadError
from utils.dataset.inspect import AP_S_BORDER, BORDERS, Inspection, PartInspection
from utils.geometry.letterbox import FrameSize
from utils.reporting.box_drawing import WHITE, Stroke, draw_labels
from utils.reporting.curve_plots import plot_class_counts, plot_training_sizes
from utils.reporting.detection_files import write_image
from utils.reporting.html_page import PageContent, Section, Table, images_of, write_page
from utils.reporting.image_grid import filled_rows, stacked_rows
from utils.reporting.labelled_images import captioned_cut
from utils.runtime.atomic_files import write_text

PAGE, FIGURES, PROBLEMS = "report.html", "inspection.json", "problems.txt"
WIDTH, ROW, GAP = 1200, 280, 4  # of the sheets of images: their width, what their rows are near in height, pixels
SHOWN = 8  # images of a sheet
SHOWN_PROBLEMS = 100
CONTEXT = 4.0  # a cut-out is so many times its object's longer side ...
SMALLEST_CUT = 48  # ... and at least so many pixels


def write_inspection(folder: Path, found: Inspection) -> list[str]:
    """Write page, figures and problems into ``folder``; the lines for the console."""
    train = found.parts["train"]
    plot_training_sizes(
        folder / "object_sizes.png", train.sides, BORDERS, _border_at_training(train, found.settings.imgsz)
    )
    plot_class_counts(
        folder / "classes.png", {name: part.class_counts() for name, part in found.parts.items()}, found.spec.names
    )
    _write_sheet(folder / "samples.jpg", [_sample(train, row) for row in _spread(train)])
    _write_sheet(folder / "smallest.jpg", [_cut_out(train, row) for row in np.argsort(train.sides)[:SHOWN]])
    _write_sheet(folder / "leak.jpg", _pairs(found.leak, train, found.parts["val"]))
    _write_sheet(folder / "copies.jpg", _pairs(train.near_copies, train, train))
    _write_problems(folder / PROBLEMS, found)
    write_text(folder / FIGURES, json.dumps(figures(found), indent=2) + "\n")
    content = PageContent(_headline(found), found.advice, _tables(found), _sections(folder))
    counts = "; ".join(f"{name}: {part.index.summary()}" for name, part in found.parts.items())
    write_page(
        folder / PAGE,
        "dataset.html.j2",
        content,
        data=found.spec.file.name,
        summary=counts,
        imgsz=found.settings.imgsz,
        anchors="" if train.fit is None else f"; anchors of {found.settings.architecture}",
    )
    lines = [f"{name}: {part.index.summary()}" for name, part in found.parts.items()]
    return [*lines, *found.advice, f"page: {folder / PAGE}"]


def figures(found: Inspection) -> dict[str, object]:
    """All figures, as JSON can hold them."""
    return {
        "data": str(found.spec.file),
        "imgsz": found.settings.imgsz,
        "parts": {name: _part_figures(part) for name, part in found.parts.items()},
        "train_and_val_are_the_same": found.same_images,
        "leak": [
            [str(found.parts["train"].index.paths[a]), str(found.parts["val"].index.paths[b]), distance]
            for a, b, distance in found.leak
        ],
        "advice": list(found.advice),
    }


def _part_figures(part: PartInspection) -> dict[str, object]:
    sizes = part.index.sizes
    return {
        "images": len(part.index),
        "objects": len(part.index.rows),
        "without_labels": part.index.unlabelled,
        "without_objects": int((part.objects_per_image == 0).sum()),
        "broken_files": part.broken_files,
        "bad_rows": part.bad_rows,
        "out_of_range": part.out_of_range,
        "repeated_rows": part.index.duplicates,
        "labels_without_images": [str(path) for path in part.orphans],
        "copies": [
            [str(part.index.paths[i]) for i in group] for group in (part.checks.copies() if part.checks else [])
        ],
        "near_copies": len(part.near_copies),
        "classes": dict(zip(part.dataset.names, part.class_counts().tolist(), strict=True)),
        "share_under": {str(border): round(part.share_below(border), 4) for border in BORDERS},
        "small_on_disk": int(part.small_on_disk().sum()),
        "most_objects_in_an_image": int(part.objects_per_image.max(initial=0)),
        "median_height_width": np.median(sizes, axis=0).tolist(),
    } | _fit_figures(part)


def _fit_figures(part: PartInspection) -> dict[str, object]:
    """How well the anchors fit, where there are any."""
    if part.fit is None:
        return {}
    return {
        "best_possible_recall": round(part.fit.best_possible_recall, 4),
        "anchors_per_object": round(part.fit.anchors_per_object, 3),
    }


def _headline(found: Inspection) -> list[tuple[str, str]]:
    train = found.parts["train"]
    headline = [(f"{name} images", f"{len(part.index)}") for name, part in found.parts.items()]
    headline += [("train objects", f"{len(train.index.rows)}"), ("classes", f"{len(found.spec.names)}")]
    headline += [(f"under 16 px at {found.settings.imgsz}", f"{train.share_below(16):.0%}")]
    if train.fit is not None:
        headline += [("best possible recall", f"{train.fit.best_possible_recall:.3f}")]
    if train.checks is not None:
        leak = "all" if found.same_images else str(len({pair.second for pair in found.leak}))
        headline += [("val images seen in train", leak)]
    return headline


def _tables(found: Inspection) -> list[Table]:
    names = list(found.parts)
    rows = [
        ("images", *(f"{len(part.index)}" for part in found.parts.values())),
        ("objects", *(f"{len(part.index.rows)}" for part in found.parts.values())),
        ("objects in the fullest image", *(f"{p.objects_per_image.max(initial=0)}" for p in found.parts.values())),
        ("images without a label file", *(f"{part.index.unlabelled}" for part in found.parts.values())),
        ("images without an object", *(f"{(p.objects_per_image == 0).sum()}" for p in found.parts.values())),
        ("files that cannot be read", *(f"{part.broken_files}" for part in found.parts.values())),
        ("labels left out", *(f"{part.bad_rows}" for part in found.parts.values())),
        ("of these out of the image", *(f"{part.out_of_range}" for part in found.parts.values())),
        ("label rows repeated", *(f"{part.index.duplicates}" for part in found.parts.values())),
        ("label files without an image", *(f"{len(part.orphans)}" for part in found.parts.values())),
        ("regions to ignore", *(f"{len(part.index.ignored)}" for part in found.parts.values())),
        ("images that look the same as another", *(_looked(p, len(p.near_copies)) for p in found.parts.values())),
    ]
    sizes = [
        (
            f"under {border} px ({border // 8} cells of P3)",
            *(f"{p.share_below(border):.1%}" for p in found.parts.values()),
        )
        for border in BORDERS
    ]
    sizes += [
        (f"that AP_S counts (under {AP_S_BORDER}² px on disk)", *(_share(p) for p in found.parts.values())),
    ]
    fits = [part.fit for part in found.parts.values() if part.fit is not None]  # of all parts, or of none
    if fits:
        sizes += [
            ("best possible recall of the anchors", *(f"{fit.best_possible_recall:.4f}" for fit in fits)),
            ("anchors per object", *(f"{fit.anchors_per_object:.2f}" for fit in fits)),
        ]
    counts = [part.class_counts() for part in found.parts.values()]
    order = np.argsort(-counts[0], kind="stable")
    classes = [(found.spec.names[i], *(f"{count[i]}" for count in counts)) for i in order]
    tables = [
        Table("What is there", ("", *names), rows),
        Table(f"Objects at {found.settings.imgsz} px", ("", *names), sizes),
        Table("Objects of each class", ("class", *names), classes),
    ]
    problems = [(part.name, problem) for part in found.parts.values() for problem in part.problems]
    if problems:
        listed = [(name, str(problem)) for name, problem in problems[:SHOWN_PROBLEMS]]
        title = f"What cannot be used ({len(problems)}; all of it in {PROBLEMS})"
        tables.append(Table(title, ("part", "file, line and reason"), listed))
    return tables


def _looked(part: PartInspection, count: int) -> str:
    return "-" if part.checks is None else str(count)


def _share(part: PartInspection) -> str:
    small = part.small_on_disk()
    return f"{small.sum()} ({small.mean():.1%})" if len(small) else "0"


def _sections(folder: Path) -> list[Section]:
    return [
        Section("Object sizes and classes", "", images_of(folder, ("object_sizes.png", "classes.png")), True),
        Section("Images with their labels", "", images_of(folder, ("samples.jpg",)), False),
        Section("The smallest objects of train", "", images_of(folder, ("smallest.jpg",)), False),
        Section(
            "In train and in val",
            "Each train image with the val image that looks the same, and the bits of 256 that they differ in.",
            images_of(folder, ("leak.jpg",)),
            False,
        ),
        Section("More than once in train", "", images_of(folder, ("copies.jpg",)), False),
    ]


def _write_problems(path: Path, found: Inspection) -> None:
    problems = dict.fromkeys(str(problem) for part in found.parts.values() for problem in part.problems)
    if problems:
        write_text(path, "".join(f"{' '.join(line.split())}\n" for line in problems))


def _border_at_training(part: PartInspection, imgsz: int) -> float:
    """Side of an object on AP_S's border in the median image, pixels at the training size."""
    return AP_S_BORDER * imgsz / float(np.median(part.index.sizes.max(axis=1)))


def _spread(part: PartInspection) -> list[int]:
    """Images with objects, spread over the part."""
    full = np.flatnonzero(part.objects_per_image > 0)
    places = np.linspace(0, len(full) - 1, min(len(full), SHOWN)).round().astype(np.int64)
    return full[places].tolist() if len(full) else []


class _Cell(NamedTuple):
    """An image or a part of one, and what is drawn on it once it is scaled by a factor."""

    image: np.ndarray
    drawn: Callable[[np.ndarray, float], np.ndarray]


def _sample(part: PartInspection, row: int) -> _Cell | None:
    def drawn(image: np.ndarray, factor: float) -> np.ndarray:
        labels = part.dataset.source_labels(row).scaled(factor)
        return draw_labels(image, replace(labels, size=FrameSize(*image.shape[:2])), part.dataset.names)

    image = _image(part, row)
    return None if image is None else _Cell(image, drawn)


def _cut_out(part: PartInspection, row: int) -> _Cell | None:
    """An object with its surroundings, enlarged."""
    place = int(np.searchsorted(part.index.row_ends, row, side="right"))
    image = _image(part, place)
    if image is None:
        return None
    start = int(part.index.row_ends[place - 1]) if place else 0
    x1, y1, x2, y2 = part.dataset.source_labels(place).boxes[row - start].tolist()
    side = round(max(CONTEXT * max(x2 - x1, y2 - y1), SMALLEST_CUT))
    # At the border of the image the cut is moved, not narrowed.
    left = min(max(round((x1 + x2 - side) / 2), 0), max(image.shape[1] - side, 0))
    top = min(max(round((y1 + y2 - side) / 2), 0), max(image.shape[0] - side, 0))
    kind = part.dataset.names[int(part.index.rows[row, 0])]

    def drawn(cut: np.ndarray, factor: float) -> np.ndarray:
        target = np.array([x1 - left, y1 - top, x2 - left, y2 - top]) * factor
        return captioned_cut(cut, [(target, Stroke(WHITE))], f"{kind} {x2 - x1:.0f} x {y2 - y1:.0f}")

    return _Cell(image[top : top + side, left : left + side], drawn)


def _pairs(pairs: Sequence[ImagePair], first: PartInspection, second: PartInspection) -> list[_Cell | None]:
    cells = []
    for pair in pairs[: SHOWN // 2]:
        for part, row in ((first, pair.first), (second, pair.second)):
            title = f"{part.name} {part.index.paths[row].name} ({pair.distance})"
            image = _image(part, row)
            cells.append(None if image is None else _Cell(image, partial(_titled, title)))
    return cells


def _titled(title: str, image: np.ndarray, factor: float) -> np.ndarray:
    return captioned_cut(image, [], title)


def _image(part: PartInspection, row: int) -> np.ndarray | None:
    try:
        return part.dataset.source_image(row)
    except ImageReadError:  # it is among the problems already
        return None


def _write_sheet(path: Path, cells: Sequence[_Cell | None]) -> None:
    shown = [cell for cell in cells if cell is not None]
    if not shown:
        return
    rows = filled_rows([cell.image.shape[1] / cell.image.shape[0] for cell in shown], WIDTH, ROW, GAP)
    waiting = iter(shown)
    drawn = [[_at_size(next(waiting), size) for size in row] for row in rows]
    write_image(path, stacked_rows(drawn, GAP))


def _at_size(cell: _Cell, size: FrameSize) -> np.ndarray:
    factor = size.width / cell.image.shape[1]
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cell.drawn(cv2.resize(cell.image, (size.width, size.height), interpolation=interpolation), factor)
