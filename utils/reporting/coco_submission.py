"""Results for COCO's evaluation server: what it takes, and the zip that it is sent."""

from __future__ import annotations

import math
import zipfile
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

from utils.config.val_flags import ValConfig
from utils.dataset.coco_annotations import ImageAnnotations
from utils.evaluation.evaluate import EvaluationObserver
from utils.geometry.records import Detections, Labels
from utils.reporting.detection_files import coco_results, compact_json
from utils.runtime.atomic_files import atomic_file
from utils.user_error import UserError

MOST_PER_IMAGE = 100  # detections that the server takes for one image
COCO_CATEGORY_IDS = frozenset(range(1, 91)) - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # the 80 of detection


class BestDetections(EvaluationObserver):
    """The best hundred detections of each image, without boxes that rounding leaves no area."""

    def __init__(self, image_ids: Sequence[int | str], annotations: ImageAnnotations) -> None:
        self.image_ids = image_ids
        self.category_ids = annotations.category_ids
        self.entries: list[dict[str, object]] = []

    def on_image(self, index: int, path: Path, detections: Detections, labels: Labels) -> None:
        rows = coco_results(detections, self.image_ids[index], self.category_ids)  # best first
        self.entries += [row for row in rows if min(row["bbox"][2:]) > 0][:MOST_PER_IMAGE]  # type: ignore[index]


def submission_name(config: ValConfig) -> str:
    """What the server knows the results by: ``--name``, or the weights where it is left at its default."""
    return config.name if config.name != "exp" else Path(config.weights[0]).stem


def check_results(
    entries: Sequence[dict[str, object]], image_ids: Collection[int | str], category_ids: Collection[int]
) -> None:
    """Hold results to what the evaluation server takes.

    Raises:
        UserError: naming the first entry that it would refuse, and why.
    """
    per_image: Counter[object] = Counter()
    for place, entry in enumerate(entries):
        problem = _problem(entry, image_ids, category_ids)
        per_image[entry.get("image_id")] += 1
        if not problem and per_image[entry["image_id"]] > MOST_PER_IMAGE:
            problem = f"image {entry['image_id']} has more than {MOST_PER_IMAGE} detections"
        if problem:
            raise UserError(f"results, entry {place}: {problem}")


def _problem(entry: dict[str, object], image_ids: Collection[int | str], category_ids: Collection[int]) -> str:
    if set(entry) != {"image_id", "category_id", "bbox", "score"}:
        return f"has the keys {', '.join(sorted(entry))}"
    if entry["image_id"] not in image_ids:
        return f"image_id {entry['image_id']} is not in the image-info file"
    if entry["category_id"] not in category_ids:
        return f"category_id {entry['category_id']} is none of the file's"
    box, score = entry["bbox"], entry["score"]
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(n, float) and math.isfinite(n) for n in box):
        return f"bbox {box} is not four finite numbers"
    if box[2] <= 0 or box[3] <= 0:
        return f"bbox {box} has no area"
    if not isinstance(score, float) or not 0 <= score <= 1:
        return f"score {score} is not in 0 to 1"
    return ""


def valid_categories(annotations: ImageAnnotations) -> frozenset[int]:
    """COCO's 80 where the file is COCO's own, otherwise the file's."""
    own = frozenset(annotations.category_ids)
    return own & COCO_CATEGORY_IDS if annotations.file.stem == "image_info_test-dev2017" else own


def write_zip(path: Path, entries: Sequence[dict[str, object]]) -> None:
    """A zip that holds one JSON of the same name."""
    with atomic_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{path.stem}.json", compact_json(entries))
