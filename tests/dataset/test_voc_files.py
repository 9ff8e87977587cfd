"""Pascal VOC's XML read as labels: corners counted from 1, difficult objects to be ignored, mistakes named by line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.dataset.images import write_image
from utils.dataset.detection_dataset import open_dataset
from utils.dataset.label_cache import read_label_index
from utils.evaluation.coco_average_precision import CocoFindings, coco_figures

NAMES = ("dog", "tv monitor")


def voc_object(name: str, corners: tuple[float, float, float, float], difficult: int = 0) -> str:
    sides = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True))
    return f"""
  <object>
    <name>{name}</name>
    <pose>Left</pose>
    <truncated>1</truncated>
    <difficult>{difficult}</difficult>
    <bndbox>{sides}</bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>"""


def voc_text(*objects: str, size: tuple[int, int] = (100, 200)) -> str:
    height, width = size
    return f"""<annotation>
  <folder>VOC2007</folder>
  <filename>000001.jpg</filename>
  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>
  <segmented>0</segmented>{"".join(objects)}
</annotation>
"""


def voc_set(root: Path, **files: str) -> Path:
    """VOC's folders with an image of 200 x 100 pixels for each file; the list of ``ImageSets/Main``."""
    for name, text in files.items():
        write_image(root / "JPEGImages" / f"{name}.jpg", np.zeros((100, 200, 3), np.uint8))
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(text, encoding="utf-8")
    listed = root / "ImageSets" / "Main" / "trainval.txt"
    listed.parent.mkdir(parents=True)
    listed.write_text("".join(f"{name}\n" for name in files))
    return listed


def test_corners_classes_and_the_lists_of_names(tmp_path: Path) -> None:
    listed = voc_set(
        tmp_path,
        a=voc_text(voc_object("dog", (1, 1, 200, 100)), voc_object("TV  Monitor", (11, 21, 50, 60.5))),
        b=voc_text(),
    )
    index = read_label_index((listed,), NAMES)
    assert [path.name for path in index.paths] == ["a.jpg", "b.jpg"]
    labels = index.labels(0)
    # The first covers the image; the second begins behind ten columns and twenty rows.
    np.testing.assert_allclose(labels.boxes, [[0.0, 0.0, 200.0, 100.0], [10.0, 20.0, 50.0, 60.5]], atol=1e-4)
    assert labels.classes.tolist() == [0, 1]
    assert (len(index.labels(1)), index.unlabelled, index.problems) == (0, 0, ())


def test_other_class_names_are_read_anew(tmp_path: Path) -> None:
    listed = voc_set(tmp_path, a=voc_text(voc_object("dog", (1, 1, 20, 20)), voc_object("cat", (1, 1, 30, 20))))
    assert read_label_index((listed,), ("dog",)).rows[:, 0].tolist() == [0]
    both = read_label_index((listed,), ("cat", "dog"))
    assert both.rows[:, 0].tolist() == [1, 0]
    assert both.problems == ()


def test_mistakes_name_file_and_line(tmp_path: Path) -> None:
    objects = (
        voc_object("dog", (1, 1, 20, 20)),
        voc_object("cat", (1, 1, 20, 20)),
        voc_object("dog", (150, 1, 260, 20)),
        voc_object("dog", (50, 1, 40, 20)),
        voc_object("dog", (50, 1, 60, 20)).replace("<xmax>60<", "<xmax>sixty<"),
    )
    listed = voc_set(tmp_path, a=voc_text(*objects))
    index = read_label_index((listed,), NAMES)
    assert len(index.rows) == 1
    # The first <object> is in line 6, each takes eight lines.
    assert sorted((problem.line, problem.text[:24]) for problem in index.problems) == [
        (14, "'cat' is no class of the"),
        (22, "the box 150 1 260 20 lea"),
        (30, "xmax 40, ymax 20: the ob"),
        (38, "bndbox: xmin, ymin, xmax"),
    ]
    assert {problem.file for problem in index.problems} == {str(tmp_path / "Annotations" / "a.xml")}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<annotation><object></annotation>", "not XML"),
        ("<html></html>", "not a Pascal VOC annotation"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "document type"),
        (voc_text(size=(50, 200)), "is for an image of 200 x 50, this one is 200 x 100"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, reason: str) -> None:
    index = read_label_index((voc_set(tmp_path, a=text),), NAMES)
    assert [(problem.line, reason in problem.text) for problem in index.problems] == [(0, True)]


def test_difficult_objects_are_not_learned_and_count_neither_way(tmp_path: Path) -> None:
    content = voc_text(voc_object("dog", (11, 11, 30, 30)), voc_object("dog", (101, 11, 140, 50), difficult=1))
    listed = voc_set(tmp_path, a=content, b=voc_text())
    for _ in range(2):  # the second time from the cache
        dataset = open_dataset((listed,), NAMES)
        np.testing.assert_allclose(dataset.source_labels(0).boxes, [[10, 10, 30, 30]], atol=1e-4)
        truth = dataset.coco_truth
        assert truth is not None
        np.testing.assert_allclose(truth.boxes, [[10, 10, 30, 30], [100, 10, 140, 50]], atol=1e-4)
        assert truth.crowd.tolist() == [False, True]

    def figures(second: list[float]) -> float:
        assert truth is not None
        boxes = np.array([second, [10.0, 10, 30, 30]])
        return coco_figures(
            truth, CocoFindings(np.zeros(2, int), np.zeros(2, int), boxes, np.array([0.9, 0.8]))
        ).summary.AP

    # Ranked above the true detection, a false one halves the precision; one on the difficult object does not.
    assert figures([100.0, 10, 140, 50]) == pytest.approx(1)
    assert figures([100.0, 60, 140, 100]) == pytest.approx(0.5)


def test_a_yolo_label_file_comes_before_xml(tmp_path: Path) -> None:
    listed = voc_set(tmp_path, a=voc_text(voc_object("dog", (1, 1, 20, 20))))
    (tmp_path / "JPEGImages" / "a.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    assert read_label_index((listed,), NAMES).rows[:, 0].tolist() == [1]
