"""Flags: unknown ones, values of a wrong type or out of range, sources and devices that are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.robustness.running import Refusal

pytestmark = pytest.mark.slow
AREA = "Flags"


def usage(case: str, command: str, line: str) -> Refusal:
    return Refusal(AREA, case, command, line, code=2)


CASES = (
    usage("train.py: unknown flag", "train --epoch_s 3", "unknown flag --epoch-s (did you mean --epochs?)"),
    usage("val.py: unknown flag", "val --conf-thresh 0.2", "did you mean --conf-thres?"),
    usage("detect.py: unknown flag", "detect --save-text", "did you mean --save-txt?"),
    usage("export.py: unknown flag", "export --dynamik", "did you mean --dynamic?"),
    usage("a flag like no other", "detect --zzzzzzzzzzzzzz", "unknown flag --zzzzzzzzzzzzzz"),
    usage("a word that belongs to no flag", "detect image.jpg", "unexpected argument 'image.jpg'"),
    usage("an ambiguous prefix", "detect --sa", "ambiguous option: --sa could match"),
    usage("a flag without its value", "train --epochs", "expected one argument"),
    usage("a switch with a value", "detect --nosave=yes", "ignored explicit argument 'yes'"),
    usage("batch 0", "train --batch-size 0", "--batch-size 0: must be at least"),
    usage("batch -5", "train --batch-size -5", "--batch-size -5: must be at least"),
    usage("val.py: batch 0", "val --batch-size 0", "--batch-size 0: must be at least 1"),
    usage("export.py: batch 0", "export --batch-size 0", "--batch-size 0: must be at least 1"),
    usage("batch that is no number", "train --batch-size many", "invalid int value: 'many'"),
    usage("a fraction where a whole number belongs", "train --epochs 2.5", "invalid int value: '2.5'"),
    usage("negative epochs", "train --epochs -1", "--epochs -1: must be at least 0"),
    usage("absurd epochs", "train --epochs 99999999999999999999", "--epochs 99999999999999999999: must be at most"),
    usage("negative workers", "train --workers -1", "--workers -1: must be at least 0"),
    usage("negative patience", "train --patience -1", "--patience -1: must be at least 0"),
    usage("negative seed", "train --seed -1", "--seed -1: must be at least 0"),
    usage("absurd seed", "train --seed 99999999999999999999", "--seed 99999999999999999999: must be at most"),
    usage("size 0", "train --imgsz 0", "--imgsz 0: must be at least 32"),
    usage("negative size", "detect --imgsz -640", "--imgsz -640: must be at least 32"),
    usage("absurd size", "train --imgsz 10000000", "--imgsz 10000000: must be at most"),
    usage("detect.py: absurd size", "detect --imgsz 640 10000000", "--imgsz 640 10000000: must be at most"),
    usage("export.py: absurd size", "export --imgsz 10000000", "--imgsz 10000000: must be at most"),
    usage("val.py: absurd size", "val --imgsz 10000000", "--imgsz 10000000: must be at most"),
    usage("three sides of an image", "detect --imgsz 640 640 3", "takes at most 2 values"),
    usage("a size that is no number", "detect --imgsz big", "invalid int value: 'big'"),
    usage("confidence above 1", "detect --conf-thres 25", "--conf-thres 25.0: must be at most 1"),
    usage("confidence below 0", "val --conf-thres -0.1", "--conf-thres -0.1: must be at least 0"),
    usage("confidence nan", "detect --conf-thres nan", "'nan' is not a finite number"),
    usage("IoU infinite", "val --iou-thres inf", "'inf' is not a finite number"),
    usage("IoU above 1", "detect --iou-thres 1.01", "--iou-thres 1.01: must be at most 1"),
    usage("IoU that is no number", "detect --iou-thres half", "'half'"),
    usage("no detections at all", "detect --max-det 0", "--max-det 0: must be at least 1"),
    usage("absurd number of detections", "detect --max-det 99999999999999999999", "must be at most"),
    usage("negative class", "detect --classes -1", "--classes -1: must be at least 0"),
    usage("stride 0 through a video", "detect --vid-stride 0", "--vid-stride 0: must be at least 1"),
    usage("line width 0", "detect --line-thickness 0", "--line-thickness 0: must be at least 1"),
    usage("absurd line width", "detect --line-thickness 99999", "--line-thickness 99999: must be at most"),
    usage("unknown optimizer", "train --optimizer Sdg", "invalid choice: 'Sdg'"),
    usage("unknown precision", "train --precision fp8", "invalid choice: 'fp8'"),
    usage("unknown task", "val --task vla", "invalid choice: 'vla'"),
    usage("neither weights nor architecture", "train --weights '' --data {data}", "--weights '' needs --cfg"),
    usage("a GPU that is not there", "detect --weights {weights} --device 7", "--device 7: this machine shows"),
    usage("val.py: a GPU that is not there", "val --weights {weights} --data {data} --device 99", "--device 99: this"),
    usage("train.py: a GPU that is not there", "train --weights {weights} --data {data} --device 99", "--device 99:"),
    usage("export.py: a GPU that is not there", "export --weights {weights} --device 99", "--device 99: this machine"),
    usage("a device that is none", "detect --weights {weights} --device tpu", "--device tpu: not a device"),
    usage("several devices", "detect --weights {weights} --device 0,1", "start with torchrun"),
    usage("a negative device", "detect --weights {weights} --device -1", "--device -1: not a device"),
    usage("a device in other digits", "detect --weights {weights} --device ²", "--device ²: not a device"),
    usage("a class that the model has not", "detect --weights {weights} --source {images} --classes 3", "0 to 2"),
    usage("export.py: unknown format", "export --weights {weights} --include onxn", "--include onxn"),
    usage("export.py: unknown operator set", "export --opset 5", "--opset 5: must be at least"),
    usage("export.py: absurd operator set", "export --opset 999", "--opset 999: must be at most"),
    Refusal(AREA, "a weights name too long", "val --weights {long} --data {data}", "File name too long"),
    Refusal(AREA, "a dataset name too long", "val --weights {weights} --data {long}", "File name too long"),
    Refusal(AREA, "an architecture name too long", "train --weights '' --cfg {long} --data {data}", "name too long"),
    Refusal(AREA, "a hyp name too long", "train --weights {weights} --hyp {long} --data {data}", "File name too long"),
    Refusal(AREA, "a source too long", "detect --weights {weights} --source {long}", "File name too long"),
    Refusal(AREA, "a project too long", "detect --weights {weights} --source {images} --project {long}", "too long"),
    Refusal(
        AREA,
        "a project that is a file",
        "detect --weights {weights} --source {images} --project {data}",
        "run's folder",
    ),
    usage("fp16 on a CPU", "train --weights {weights} --data {data} --device cpu --precision fp16", "--precision fp16"),
)


@pytest.mark.parametrize("refusal", [case.param() for case in CASES])
def test_wrong_usage(refusal: Refusal, tmp_path: Path, weights: Path, data: Path) -> None:
    refusal.check(tmp_path, weights=weights, data=data, long="x" * 300, images=data.parent / "images" / "val")
