"""Ensembles, and one detector on three views of an image."""

from __future__ import annotations

import pytest
import torch

from models.yolo import DetectionModel, load_architecture
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import Predictions
from utils.inference.joint_backends import AugmentedBackend, Ensemble
from utils.inference.torch_backend import TorchBackend
from utils.user_error import UserError


class Rote:
    """Gives one box, whatever it sees."""

    stride, batch_size = 32, None

    def __init__(self, names: tuple[str, ...] = ("a", "b"), frame: FrameSize | None = None, score: float = 0.5) -> None:
        self.names, self.frame, self.score = names, frame, score

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        count = len(images)
        probs = torch.zeros(count, 1, len(self.names))
        return Predictions(torch.zeros(count, 1, 4), torch.full((count, 1), self.score), probs)


def test_an_ensemble_gives_all_predictions() -> None:
    ensemble = Ensemble([Rote(score=0.5), Rote(score=0.7)], ["a.pt", "b.pt"])
    objectness = ensemble.predict(torch.zeros(3, 3, 32, 32)).objectness
    torch.testing.assert_close(objectness, torch.tensor([[0.5, 0.7]] * 3))


def test_members_have_to_agree() -> None:
    with pytest.raises(UserError, match=r"b\.pt: has other classes"):
        Ensemble([Rote(), Rote(names=("a", "c"))], ["a.pt", "b.pt"])
    with pytest.raises(UserError, match="different fixed sizes"):
        Ensemble([Rote(frame=FrameSize(64, 64)), Rote(frame=FrameSize(32, 64))], ["a.onnx", "b.onnx"])
    assert Ensemble([Rote(frame=FrameSize(64, 64)), Rote()], ["a.onnx", "b.pt"]).frame == FrameSize(64, 64)


def test_three_views_without_the_levels_left_out() -> None:
    torch.manual_seed(0)
    backend = TorchBackend(DetectionModel(load_architecture("yolov5n")), torch.device("cpu"))
    images = torch.rand(1, 3, 64, 128)
    boxes, objectness, _ = AugmentedBackend(backend).predict(images)
    # 64 x 128 has 8 x 16 + 4 x 8 + 2 x 4 cells, of which the coarsest level goes. 0.83 of it is 53 x 106, padded to
    # 64 x 128 again; 0.67 of it is 42 x 85, padded to 64 x 96, of which the finest level goes.
    assert objectness.shape[1] == 3 * (8 * 16 + 4 * 8) + 3 * (128 + 32 + 8) + 3 * (4 * 6 + 2 * 3)
    plain = backend.predict(images)
    torch.testing.assert_close(boxes[:, : 3 * 160], plain.boxes[:, : 3 * 160], rtol=1e-4, atol=1e-3)


def test_the_mirrored_view_is_led_back() -> None:
    class LeftEdge:
        """Finds a box at the brightest column of the image."""

        names, stride = ("a",), 32

        def __init__(self) -> None:
            self.model = DetectionModel(load_architecture("yolov5n"))

        def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
            column = images[0].amax(dim=(0, 1)).argmax().item()
            rows = 3 * sum((images.shape[2] // s) * (images.shape[3] // s) for s in (8, 16, 32))
            box = torch.tensor([column, 0.0, column + 1, 32]).repeat(1, rows, 1)
            return Predictions(box, torch.ones(1, rows), torch.ones(1, rows, 1))

    images = torch.zeros(1, 3, 64, 128)
    images[..., 100:102] = 1
    boxes = AugmentedBackend(LeftEdge()).predict(images).boxes[0]  # type: ignore[arg-type]
    middles = boxes[:, [0, 2]].mean(dim=1)
    assert ((middles - 101).abs() <= 2.5).all()
