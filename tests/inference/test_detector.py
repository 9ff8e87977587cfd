"""The opened detector: the frame in place of the one asked for, whole images and tiles, what is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.exporting.small_model import NAMES, small_model, write_small_checkpoint, write_small_torchscript
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.detector import OpenedDetector, fitting_frame
from utils.inference.joint_backends import AugmentedBackend, Ensemble
from utils.inference.model_files import GraphBackend, open_detector
from utils.inference.nms import NmsSettings
from utils.inference.slicing import SliceSettings
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UsageError, UserError

CPU = torch.device("cpu")
NMS = NmsSettings(conf_thres=0.1, iou_thres=0.5, max_det=100)


@dataclass
class OneBox:
    """A backend that finds one box of 8 x 8 pixels in the middle of whatever it is given, and keeps the sizes."""

    stride: int = 32
    frame: FrameSize | None = None
    names: tuple[str, ...] = ("a", "b")
    batch_size: int | None = None

    def __post_init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        self.shapes.append(tuple(images.shape))
        count, _, height, width = images.shape
        box = torch.tensor([width / 2 - 4, height / 2 - 4, width / 2 + 4, height / 2 + 4])
        return Predictions(box.repeat(count, 1, 1), torch.ones(count, 1), torch.tensor([0.0, 1.0]).repeat(count, 1, 1))


@dataclass(frozen=True)
class Flags:
    precision: str = "fp32"
    half: bool = False
    augment: bool = False
    dnn: bool = False


@pytest.mark.parametrize(
    ("backend", "asked", "frame", "reason"),
    [
        (OneBox(32), (90, 128), (96, 128), "multiples of the stride 32"),
        (OneBox(32, FrameSize(64, 96)), (96, 96), (64, 96), "the only size that the model file takes"),
        (Ensemble([OneBox(32), OneBox(64)], ["a", "b"]), (96, 96), (128, 128), "multiples of the stride 64"),
        (
            Ensemble([OneBox(64), OneBox(8, FrameSize(72, 80))], ["a", "b"]),
            (72, 96),
            (72, 80),
            "the only size that the model file takes",
        ),
    ],
)
def test_the_frame_in_place_of_the_one_asked_for(
    backend: OneBox | Ensemble,
    asked: tuple[int, int],
    frame: tuple[int, int],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    detector = OpenedDetector(backend, CPU)
    assert detector.frame(FrameSize(*asked)) == frame
    assert caplog.messages == [
        f"image size {asked[0]}x{asked[1]} (height x width): taking {frame[0]}x{frame[1]} px, {reason}"
    ]
    assert detector.frame(FrameSize(*frame)) == frame
    assert len(caplog.messages) == 1, "nothing to say where it is the one asked for"


def test_the_rule_for_a_network_that_is_no_file_yet(caplog: pytest.LogCaptureFixture) -> None:
    assert fitting_frame(FrameSize(65, 64), 8) == (72, 64) and "taking 72x64 px" in caplog.text


def test_whole_images_and_tiles() -> None:
    image = np.zeros((64, 96, 3), dtype=np.uint8)
    backend = OneBox()
    detector = OpenedDetector(backend, CPU)
    (whole,) = detector.predictor(NMS, FrameSize(96, 96))([image])
    assert backend.shapes == [(1, 3, 64, 96)]
    assert whole.boxes.tolist() == [[44, 28, 52, 36]] and whole.classes.tolist() == [1]
    backend.shapes.clear()
    (joined,) = detector.predictor(NMS, FrameSize(64, 64), SliceSettings(64, overlap=0.5), batch_size=2)([image])
    # Two tiles of 64 x 64 that begin at 0 and 32, and the whole, reduced by 2 / 3 to 43 x 64 in a frame of 64 x 64.
    assert backend.shapes == [(2, 3, 64, 64), (1, 3, 64, 64)]
    centres = sorted(((joined.boxes[:, 0] + joined.boxes[:, 2]) / 2).round().tolist())
    assert centres == [32, 48, 64]


def test_what_a_detector_consists_of(tmp_path: Path) -> None:
    weights, exported = write_small_checkpoint(tmp_path / "a.pt"), tmp_path / "a.torchscript"
    write_small_torchscript(exported, (64, 96))
    one = open_detector([str(weights)], Flags(), CPU, lambda: ())
    assert isinstance(one.backend, TorchBackend) and one.parts == one.torch_backends == (one.backend,)
    assert one.names == NAMES and one.backend.autocast_to == torch.float32
    augmented = open_detector([str(weights)], Flags(augment=True), CPU, lambda: ())
    assert isinstance(augmented.backend, AugmentedBackend)
    assert augmented.torch_backends == (augmented.backend.backend,)
    mixed = open_detector([str(weights), str(exported)], Flags(), CPU, lambda: NAMES)
    assert isinstance(mixed.backend, Ensemble) and mixed.backend.frame == (64, 96)
    assert [type(part) for part in mixed.parts] == [TorchBackend, GraphBackend]
    assert len(mixed.torch_backends) == 1
    images = torch.rand(1, 3, 64, 96)
    expected = TorchBackend(small_model(), CPU).predict(images).boxes
    torch.testing.assert_close(one.backend.predict(images).boxes, expected, atol=1e-3, rtol=1e-3)


def test_weights_in_half_precision_give_float32_boxes_of_the_same_objects() -> None:
    images = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    expected = TorchBackend(small_model(), CPU).predict(images)
    found = TorchBackend(small_model().half(), CPU).predict(images)
    for ours, own, tolerance in zip(
        found, expected, (1.0, 0.03, 0.03), strict=True
    ):  # pixels, probabilities: sums of fp16 differ by kernel
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, own, atol=tolerance, rtol=0)
        assert not torch.equal(ours, own)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_on_the_cpu_weights_stay_float32_whatever_the_arithmetic(precision: torch.dtype) -> None:
    backend = TorchBackend.in_precision(small_model(), CPU, precision)
    assert {weights.dtype for weights in backend.model.parameters()} == {torch.float32}
    assert backend.autocast_to == precision


@pytest.mark.parametrize(
    ("flags", "further", "line"),
    [
        (Flags(augment=True), {}, "--augment --weights .*a.torchscript: only for .pt files"),
        (Flags(), {"--as-yolov5": True, "--other": False}, "--as-yolov5 --weights .*a.torchscript: only for .pt"),
        (Flags(dnn=True), {}, "--dnn --weights .*a.torchscript: OpenCV's DNN module is for .onnx"),
    ],
)
def test_flags_that_do_not_go_with_the_kind_of_file(
    tmp_path: Path, flags: Flags, further: dict[str, bool], line: str
) -> None:
    exported = write_small_torchscript(tmp_path / "a.torchscript", (64, 96))
    with pytest.raises(UsageError, match=line):
        open_detector([str(exported)], flags, CPU, lambda: NAMES, further)
    with pytest.raises(UserError, match=r"none\.pt: no such weights file"):
        open_detector([str(tmp_path / "none.pt")], Flags(), CPU, lambda: ())
