"""A file that answers otherwise than the model is noticed, whatever the difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from utils.exporting.export_settings import EmbeddedSuppression, ExportSettings
from utils.exporting.verification import TOLERANCE, Difference, compare, compare_suppressed, verification_inputs
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.user_error import UserError

CPU = torch.device("cpu")


class Constant:
    """A detector that always gives the same predictions."""

    names = ("a", "b")
    stride = 32
    frame = None
    batch_size = None

    def __init__(self, boxes: list[list[float]], objectness: list[float], class_probs: list[list[float]]) -> None:
        self.answer = Predictions(
            torch.tensor([boxes]), torch.tensor([objectness]), torch.tensor([class_probs], dtype=torch.float32)
        )

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        return self.answer


MODEL = Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.5], [[1.0, 0], [0.5, 0.9]])
IMAGE = [torch.zeros(1, 3, 64, 64)]


@pytest.mark.parametrize(
    ("other", "pixels", "probability"),
    [
        (Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.5], [[1.0, 0], [0.5, 0.9]]), 0, 0),
        (Constant([[10.0, 10, 20, 20], [30, 30, 50, 58]], [0.9, 0.5], [[1.0, 0], [0.5, 0.9]]), 8, 0),
        (Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.75], [[1.0, 0], [0.5, 0.9]]), 0, 0.25),
        (Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.5], [[1.0, 0], [0.25, 0.9]]), 0, 0.25),
    ],
)
def test_largest_difference(other: Constant, pixels: float, probability: float) -> None:
    assert compare(other, MODEL, IMAGE) == Difference(pixels, probability)


def test_not_a_number_is_never_within_tolerance() -> None:
    nan = float("nan")
    broken = Constant([[nan, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.5], [[1.0, 0], [0.5, 0.9]])
    assert not compare(broken, MODEL, IMAGE).within(TOLERANCE)
    # ... nor when a later image is fine again
    assert not compare(broken, MODEL, IMAGE * 2).within(TOLERANCE)
    assert Difference(0.01, 1e-5).within(TOLERANCE)


def test_other_number_of_places_is_an_error() -> None:
    shorter = Constant([[10.0, 10, 20, 20]], [0.9], [[1.0, 0]])
    with pytest.raises(UserError, match="gives 1 x 2 places and classes per image, the model 2 x 2"):
        compare(shorter, MODEL, IMAGE)


def test_missing_detection_after_suppression_is_an_error() -> None:
    fewer = Constant([[10.0, 10, 20, 20]], [0.9], [[1.0, 0]])
    with pytest.raises(UserError, match="keeps 1 boxes, outside of it 2"):
        compare_suppressed(fewer, MODEL, EmbeddedSuppression(conf_thres=0.3), IMAGE)


def test_moved_or_renamed_detection_after_suppression_is_seen() -> None:
    suppression = EmbeddedSuppression(conf_thres=0.3)
    same = Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.45], [[1.0, 0], [0, 1.0]])
    moved = Constant([[10.0, 10, 20, 20], [30, 30, 50, 53]], [0.9, 0.45], [[1.0, 0], [0, 1.0]])
    renamed = Constant([[10.0, 10, 20, 20], [30, 30, 50, 50]], [0.9, 0.45], [[1.0, 0], [1.0, 0]])
    assert compare_suppressed(same, MODEL, suppression, IMAGE).within(TOLERANCE)
    assert compare_suppressed(moved, MODEL, suppression, IMAGE).pixels == 3
    assert compare_suppressed(renamed, MODEL, suppression, IMAGE).pixels == float("inf")


def test_inputs_cover_another_size_when_it_is_free() -> None:
    settings = ExportSettings(FrameSize(64, 96), batch_size=2)
    assert [tuple(images.shape) for images in verification_inputs(settings, 32, [], CPU)] == [(2, 3, 64, 96)]
    free = ExportSettings(FrameSize(64, 96), batch_size=2, dynamic=True)
    shapes = [tuple(images.shape) for images in verification_inputs(free, 32, [], CPU)]
    assert shapes == [(2, 3, 64, 96), (3, 3, 96, 160)]


def test_inputs_hold_the_images_given() -> None:
    white = np.full((64, 96, 3), 255, dtype=np.uint8)
    (images,) = verification_inputs(ExportSettings(FrameSize(64, 96), batch_size=2), 32, [white], CPU)
    assert torch.equal(images, torch.ones(2, 3, 64, 96))
