"""Images of any size in, detections in their own pixels out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.same_detections import assert_same_detections
from tests.shared_data import SHARED, needs_shared
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.model_files import load_backend
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings, as_network_input

CPU = torch.device("cpu")
NMS = NmsSettings(0.25, 0.45, 100)


class BrightPatch:
    """A detector that finds the bounding box of the white pixels of each image, exactly."""

    names = ("patch",)
    stride = 32
    batch_size = None

    def __init__(self, frame: FrameSize | None = None) -> None:
        self.frame = frame
        self.batches: list[tuple[int, ...]] = []

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        self.batches.append(tuple(images.shape))
        boxes = []
        for image in images:
            rows, columns = (image.min(0).values > 0.9).nonzero().unbind(1)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        ones = torch.ones(len(images), 1)
        return Predictions(torch.tensor(boxes, dtype=torch.float32)[:, None], ones, ones[..., None])


def image(height: int, width: int, box: tuple[int, int, int, int]) -> np.ndarray:
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[box[1] : box[3], box[0] : box[2]] = 255
    return pixels


def test_boxes_come_back_in_the_pixels_of_each_image() -> None:
    backend = BrightPatch()
    predictor = Predictor(backend, PredictorSettings(NMS, FrameSize(320, 320)), CPU)
    boxes = [(20, 40, 120, 160), (600, 200, 900, 500), (40, 100, 80, 140)]
    given = [image(320, 160, boxes[0]), image(640, 1280, boxes[1]), image(320, 160, boxes[2])]
    found = predictor(given)
    assert backend.batches == [(2, 3, 320, 160), (1, 3, 160, 320)]  # images of one frame go together
    for detections, one, box in zip(found, given, boxes, strict=True):
        assert detections.size == one.shape[:2]
        # A quarter of the size: the edge of the patch is known to 4 pixels.
        np.testing.assert_allclose(detections.boxes.numpy(), [box], atol=4)


def test_file_of_fixed_size_gets_its_frame() -> None:
    backend = BrightPatch(FrameSize(96, 224))
    predictor = Predictor(backend, PredictorSettings(NMS, FrameSize(640, 640)), CPU)
    (detections,) = predictor([image(96, 96, (10, 20, 50, 60))])
    assert backend.batches == [(1, 3, 96, 224)]
    np.testing.assert_allclose(detections.boxes.numpy(), [[10, 20, 50, 60]], atol=1e-4)


@pytest.mark.parametrize(
    ("imgsz", "source", "frame"),
    [
        ((640, 640), (480, 640), (480, 640)),
        ((640, 640), (427, 640), (448, 640)),  # 427 rounded up to a multiple of 32
        ((640, 640), (1080, 1920), (384, 640)),  # 360 -> 384
        ((320, 640), (480, 640), (320, 448)),  # height decides: 480 -> 320, 640 -> 427 -> 448
        ((640, 640), (1, 900), (32, 640)),
    ],
)
def test_network_frame(imgsz: tuple[int, int], source: tuple[int, int], frame: tuple[int, int]) -> None:
    predictor = Predictor(BrightPatch(), PredictorSettings(NMS, FrameSize(*imgsz)), CPU)
    assert predictor.network_frame(FrameSize(*source)) == frame


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 40), st.integers(1, 40))
def test_network_frame_is_a_multiple_within_the_limits(height: int, width: int, rows: int, columns: int) -> None:
    limits = FrameSize(32 * rows, 32 * columns)
    frame = Predictor(BrightPatch(), PredictorSettings(NMS, limits), CPU).network_frame(FrameSize(height, width))
    assert frame.height % 32 == 0 and frame.width % 32 == 0
    assert 0 < frame.height <= limits.height and 0 < frame.width <= limits.width


def test_no_images() -> None:
    assert Predictor(BrightPatch(), PredictorSettings(NMS, FrameSize(64, 64)), CPU)([]) == []


def test_network_input_layout() -> None:
    image = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    tensor = as_network_input([image, image], CPU)
    assert tensor.shape == (2, 3, 2, 3) and tensor.dtype == torch.float32
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor[1, 2, 1, 0].item() == pytest.approx(11 / 255)  # row 1, column 0, blue


@needs_shared
@pytest.mark.parametrize("agnostic", [False, True])
def test_rows_of_the_original_program(agnostic: bool) -> None:
    reference = np.load(SHARED / "reference" / "yolov5n_forward.npz")
    backend = load_backend(SHARED / "weights" / "yolov5n.pt", CPU)
    settings = PredictorSettings(NmsSettings(0.25, 0.45, 1000, agnostic=agnostic), FrameSize(320, 320))
    # The reference's images are letterboxed already: at their own size nothing is scaled or padded.
    images = [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in reference["images"]]
    for number, found in enumerate(Predictor(backend, settings, CPU)(images)):
        expected = reference[f"nms_detect_{'agnostic_' if agnostic else ''}{number}"]
        assert len(expected) > 0
        # The reference's boxes may reach out of the image; detections never do.
        expected = np.column_stack((expected[:, :4].clip(0, 320), expected[:, 4:]))
        ours = np.column_stack((found.boxes.numpy(), found.scores.numpy(), found.classes.numpy()))
        assert_same_detections(ours, expected, box=5e-3, score=2e-5)
