"""COCO's twelve figures on a synthetic set of val2017's size, hotcoco beside pycocotools.

python -m benchmarks.coco_evaluation                    5 000 images, 36 000 objects, 500 000 detections
python -m benchmarks.coco_evaluation --images 500     the same, smaller
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from utils.dataset.coco_annotations import CocoTruth
from utils.evaluation.coco_average_precision import CocoFigures, CocoFindings, coco_figures

OBJECTS_PER_IMAGE, DETECTIONS_PER_IMAGE = 7.2, 100
CLASSES = 80


def synthetic_set(image_count: int, seed: int = 0) -> tuple[CocoTruth, CocoFindings]:
    """Objects of all sizes with crowd regions, as many per image as COCO has; detections near them and nowhere."""
    rng = np.random.default_rng(seed)
    objects, found = int(image_count * OBJECTS_PER_IMAGE), image_count * DETECTIONS_PER_IMAGE
    images = np.sort(rng.integers(0, image_count, objects))
    classes = np.minimum(rng.geometric(0.06, objects) - 1, CLASSES - 1)
    sides = np.exp(rng.normal(np.log(60), 1.0, (objects, 2))).clip(2, 400)
    corners = rng.uniform(0, 640 - sides)
    boxes = np.column_stack((corners, corners + sides))
    areas = sides.prod(axis=1) * rng.uniform(0.4, 1, objects)
    truth = CocoTruth(image_count, images, classes, boxes, areas, rng.random(objects) < 0.01)

    near = rng.integers(0, objects, found // 2)
    shifts = rng.normal(0, 0.1, (len(near), 4)) * np.tile(sides[near], 2)
    shifted = np.column_stack((corners[near] + shifts[:, :2], (sides[near] + shifts[:, 2:]).clip(1)))
    shifted[:, 2:] += shifted[:, :2]
    kinds = np.where(rng.random(len(near)) < 0.8, classes[near], rng.integers(0, CLASSES, len(near)))
    rest = found - len(near)
    away = np.column_stack((rng.uniform(0, 500, (rest, 2)), rng.uniform(5, 200, (rest, 2))))
    away[:, 2:] += away[:, :2]
    findings = CocoFindings(
        images=np.concatenate((images[near], rng.integers(0, image_count, rest))),
        classes=np.concatenate((kinds, rng.integers(0, CLASSES, rest))),
        boxes=np.concatenate((shifted, away)),
        scores=np.concatenate((rng.beta(2, 3, len(near)), rng.beta(1, 8, rest))),
    )
    return truth, findings


def main() -> None:
    """Time both, print medians and the ratio, and the largest difference of a figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5, help="of hotcoco; pycocotools runs once")
    flags = parser.parse_args()
    truth, findings = synthetic_set(flags.images)
    print(f"{truth.image_count} images, {len(truth.images)} objects, {len(findings.images)} detections")

    def timed(engine: str) -> tuple[float, CocoFigures]:
        start = time.perf_counter()
        figures = coco_figures(truth, findings, engine)
        return time.perf_counter() - start, figures

    runs = [timed("hotcoco") for _ in range(flags.rounds)]
    fast = statistics.median(seconds for seconds, _ in runs)
    print(f"hotcoco      {fast:8.2f} s, median of {flags.rounds}")
    slow, reference = timed("pycocotools")
    figures = runs[0][1]
    gap = float(np.abs(np.subtract(figures.summary, reference.summary)).max())
    print(f"pycocotools  {slow:8.2f} s")
    print(
        f"ratio {fast / slow:.4f} ({slow / fast:.0f} times faster); largest difference of the twelve figures {gap:.1e}"
    )


if __name__ == "__main__":
    main()
