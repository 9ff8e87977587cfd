"""YOLOv5's own rounding: half a pixel of padding, float16 steps."""

from __future__ import annotations

import numpy as np
import torch

from models.yolo import DetectionModel, load_architecture
from utils.evaluation.yolov5_rounding import HalfPrecisionDetector, halved_padding
from utils.geometry.letterbox import FrameSize, letterbox


def test_an_odd_rest_is_halved() -> None:
    _, transform = letterbox(np.zeros((99, 130, 3), dtype=np.uint8), FrameSize(128, 160), enlarge=False)
    assert (transform.pad_left, transform.pad_top) == (15, 14)
    halved = halved_padding(transform)
    assert (halved.pad_left, halved.pad_top) == (15, 14.5)
    box = np.array([[20, 20, 40, 40]], dtype=np.float32)
    np.testing.assert_allclose(halved.to_source(box) - transform.to_source(box), [[0, -0.5, 0, -0.5]])


def test_half_precision_is_near_float32_in_steps_of_float16() -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n")).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        exact, rounded = model.predict(images), HalfPrecisionDetector(model).predict(images)
    torch.testing.assert_close(rounded.boxes, exact.boxes, atol=1.0, rtol=0.02)
    scores = exact.class_probs * exact.objectness[..., None]
    torch.testing.assert_close(rounded.class_probs, scores, atol=1e-3, rtol=0.05)
    assert torch.equal(rounded.class_probs, rounded.class_probs.half().float())
    assert torch.equal(rounded.objectness, torch.ones_like(rounded.objectness))
