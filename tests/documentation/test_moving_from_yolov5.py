"""docs/moving-from-yolov5.md against the flags of YOLOv5 7.0 and against the program."""

from __future__ import annotations

import re

import pytest

from tests.documentation.tiny import SCRIPTS
from tests.shared_data import REPOSITORY
from utils.user_error import UsageError

YOLOV5 = {
    "train.py": """weights cfg data hyp epochs batch-size imgsz rect resume nosave noval noautoanchor noplots evolve
        evolve_population resume_evolve bucket cache image-weights device multi-scale single-cls optimizer sync-bn
        workers project name exist-ok quad cos-lr label-smoothing patience freeze save-period seed local_rank entity
        upload_dataset bbox_interval artifact_alias ndjson-console ndjson-file""",
    "val.py": """data weights batch-size imgsz conf-thres iou-thres max-det task device workers single-cls augment
        verbose save-txt save-hybrid save-conf save-json project name exist-ok half dnn""",
    "detect.py": """weights source data imgsz conf-thres iou-thres max-det device view-img save-txt save-format save-csv
        save-conf save-crop nosave classes agnostic-nms augment visualize update project name exist-ok line-thickness
        hide-labels hide-conf half dnn vid-stride""",
    "classify/train.py": """model data epochs batch-size imgsz nosave cache device workers project name exist-ok
        pretrained optimizer lr0 decay label-smoothing cutoff dropout verbose seed local_rank""",
    "classify/val.py": """data weights batch-size imgsz device workers verbose project name exist-ok half dnn""",
    "classify/predict.py": """weights source data imgsz device view-img save-txt nosave augment visualize update project
        name exist-ok half dnn vid-stride""",
    "export.py": """data weights imgsz batch-size device half inplace keras optimize int8 per-tensor dynamic cache
        simplify mlmodel opset verbose workspace nms agnostic-nms topk-per-class topk-all iou-thres
        conf-thres include""",
}


def section(script: str) -> str:
    text = (REPOSITORY / "docs" / "moving-from-yolov5.md").read_text(encoding="utf-8")
    return text.split(f"### {script}\n")[1].split("\n#")[0]


def rows(script: str) -> dict[str, str]:
    """What the page says of each flag: the right cell of its row."""
    found: dict[str, str] = {}
    for line in section(script).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `--") and len(cells) == 2:
            found |= dict.fromkeys(re.findall(r"--[\w-]+", cells[0]), cells[1])
    return found


@pytest.mark.parametrize("script", YOLOV5)
def test_every_flag_of_yolov5_has_a_row(script: str) -> None:
    assert [flag for flag in YOLOV5[script].split() if f"--{flag}" not in rows(script)] == []


@pytest.mark.parametrize("script", YOLOV5)
def test_a_row_says_what_the_program_does(script: str) -> None:
    """Flags said to be the same are taken; those said to be refused are; those not there are unknown."""
    for flag, said in rows(script).items():
        try:
            SCRIPTS[script].parse([flag])
            message = ""
        except UsageError as error:
            message = str(error)
        is_unknown = "unknown flag" in message
        # A flag that is taken complains about its missing value at most.
        is_refused = bool(message) and not is_unknown and "expected" not in message
        assert is_refused == said.startswith("refused"), f"{flag}: {said}: {message}"
        assert is_unknown == said.startswith("not there"), f"{flag}: {said}: {message}"
