"""What the evaluation server would refuse is refused here."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.test_val_flags import parse
from utils.reporting.coco_submission import COCO_CATEGORY_IDS, check_results, submission_name, write_zip
from utils.user_error import UserError

GOOD: dict[str, object] = {"image_id": 5, "category_id": 90, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.5}


def test_eighty_categories() -> None:
    assert len(COCO_CATEGORY_IDS) == 80 and {1, 90} <= COCO_CATEGORY_IDS and 12 not in COCO_CATEGORY_IDS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 6}, "image_id 6"),
        ({"category_id": 12}, "category_id 12"),
        ({"bbox": [1.0, 2.0, 3.0]}, "four finite numbers"),
        ({"bbox": [1.0, 2.0, float("inf"), 4.0]}, "four finite numbers"),
        ({"bbox": [1.0, 2.0, 0.0, 4.0]}, "no area"),
        ({"score": 1.2}, "score 1.2"),
        ({"score": float("nan")}, "score nan"),
        ({"extra": 1}, "has the keys"),
    ],
)
def test_wrong_entries(change: dict[str, object], message: str) -> None:
    check_results([GOOD], {5}, COCO_CATEGORY_IDS)
    with pytest.raises(UserError, match=message) as caught:
        check_results([GOOD, GOOD | change], {5}, COCO_CATEGORY_IDS)
    assert "entry 1" in str(caught.value)


def test_a_hundred_per_image() -> None:
    check_results([GOOD] * 100, {5}, COCO_CATEGORY_IDS)
    with pytest.raises(UserError, match="more than 100"):
        check_results([GOOD] * 101, {5}, COCO_CATEGORY_IDS)


def test_the_zip_holds_a_json_of_its_name(tmp_path: Path) -> None:
    write_zip(tmp_path / "a_results.zip", [GOOD])
    with zipfile.ZipFile(tmp_path / "a_results.zip") as archive:
        assert archive.namelist() == ["a_results.json"]
        assert json.loads(archive.read("a_results.json")) == [GOOD]


def test_its_name() -> None:
    assert submission_name(parse("--weights", "runs/best.pt")) == "best"
    assert submission_name(parse("--weights", "runs/best.pt", "--name", "mine")) == "mine"
