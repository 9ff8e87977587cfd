"""Cells whose score cannot pass are not decoded: what passes is the same, with or without them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.head import AnchorFreeDetect, BranchForm, Detect, DetectionHead
from models.yolo import DetectionModel, load_architecture
from utils.geometry.letterbox import FrameSize
from utils.geometry.records import HeadMaps, Predictions
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.torch_backend import TorchBackend

ANCHORS = torch.tensor([[[10.0, 13.0], [16.0, 30.0]], [[30.0, 61.0], [62.0, 45.0]]])
HEADS: tuple[DetectionHead, ...] = (
    Detect(3, (4, 6), (8, 16), ANCHORS),
    AnchorFreeDetect(3, (8, 16), (8, 16)),
    AnchorFreeDetect(2, (8, 16), (4, 16), form=BranchForm(depth=0)),
)


def maps_of(head: DetectionHead, images: int, seed: int) -> HeadMaps:
    """Random logits, about as many above 0 as below."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        shapes = head(
            [torch.zeros(images, channels, *size) for channels, size in zip(inputs(head), SIZES, strict=True)]
        )
    return HeadMaps(tuple(4 * torch.randn(level.shape, generator=generator) for level in shapes.levels))


SIZES = ((4, 6), (2, 3))


def inputs(head: DetectionHead) -> tuple[int, int]:
    return (4, 6) if isinstance(head, Detect) else (8, 16)


def passing(predictions: Predictions, image: int, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes (N, 4) and scores (N, C) of the cells of an image that score more."""
    scores = predictions.objectness[image, :, None] * predictions.class_probs[image]
    rows = scores.amax(dim=1) > least
    return predictions.boxes[image, rows], scores[rows]


@settings(deadline=None)
@given(st.integers(0, len(HEADS) - 1), st.integers(1, 3), st.integers(0, 10**6), st.floats(0.001, 0.999))
def test_what_passes_is_the_same_in_the_same_order(number: int, images: int, seed: int, least: float) -> None:
    head = HEADS[number]
    maps = maps_of(head, images, seed)
    everything, chosen = head.decode(maps), head.decode(maps, least)
    assert chosen.boxes.shape[1] <= everything.boxes.shape[1]
    for image in range(images):
        # A score that is the limit but for its last bit may fall on either side.
        wanted, found = passing(everything, image, least + 1e-6), passing(chosen, image, least + 1e-6)
        if len(wanted[0]) == len(passing(everything, image, least - 1e-6)[0]):
            for one, other in zip(wanted, found, strict=True):
                torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=("anchors", "anchor-free", "without convolutions inside"))
def test_cells_that_pass_in_no_image_are_left_out(head: DetectionHead) -> None:
    levels = tuple(torch.full_like(level, -20.0) for level in maps_of(head, 2, 0).levels)
    scores = slice(4, None) if isinstance(head, Detect) else slice(64, None)
    levels[0][0, 0, 1, 2, scores] = 20.0
    levels[1][1, 0, 0, 1, scores] = 20.0
    chosen = head.decode(HeadMaps(levels), 0.5)
    assert chosen.boxes.shape == (2, 2, 4)
    assert (chosen.objectness * chosen.class_probs.amax(dim=2) > 0.5).tolist() == [[True, False], [False, True]]
    nothing = head.decode(HeadMaps(tuple(torch.full_like(level, -20.0) for level in levels)), 0.5)
    assert nothing.boxes.shape == (2, 0, 4)
    assert nothing.class_probs.shape == (2, 0, head.class_count)


@pytest.mark.parametrize("head", HEADS, ids=("anchors", "anchor-free", "without convolutions inside"))
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_a_limit_is_not_rounded_to_the_steps_of_half_precision(head: DetectionHead, precision: torch.dtype) -> None:
    """The steps of bfloat16 at the logit of 0.001, -6.907, are 0.03: the next above it, -6.906, has to pass."""
    next_above = torch.tensor(-6.90625)
    assert next_above.sigmoid() > 0.001
    levels = tuple(torch.full_like(level, 4.0) for level in maps_of(head, 1, 0).levels)
    scores = 4 if isinstance(head, Detect) else slice(64, None)
    for level in levels:
        level[..., scores] = next_above
    everything = head.decode(HeadMaps(levels)).boxes.shape[1]
    assert head.decode(HeadMaps(tuple(level.to(precision) for level in levels)), 0.001).boxes.shape[1] == everything


def test_the_last_bits_of_a_networks_answers_are_the_same() -> None:
    torch.manual_seed(0)
    model = DetectionModel(load_architecture("yolov5n.yaml"), 3).eval().to(memory_format=torch.channels_last)
    with torch.inference_mode():
        maps = model(torch.rand(2, 3, 64, 96).contiguous(memory_format=torch.channels_last))
        maps = HeadMaps(tuple(4 * torch.randn_like(level) for level in maps.levels))  # of the same order in memory
        everything, chosen = model.decode(maps), model.decode(maps, 0.5)
    found = 0
    for image in range(2):
        rows, own = (one.objectness[image] > 0.5 for one in (everything, chosen))
        found += int(rows.sum())
        for part, other in zip(everything, chosen, strict=True):
            assert torch.equal(part[image, rows], other[image, own])
    assert 0 < found < everything.objectness.numel()


@pytest.mark.parametrize("least", [0.0, 1.0])
def test_every_cell_is_there_without_a_limit(least: float) -> None:
    head = HEADS[0]
    assert head.decode(maps_of(head, 1, 0), least).boxes.shape == (1, 2 * (4 * 6 + 2 * 3), 4)


def test_a_predictor_decodes_what_its_threshold_lets_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    model = DetectionModel(load_architecture("yolov5n.yaml"), 2)
    asked: list[float] = []
    decode = model.head.decode

    def noted(maps: HeadMaps, least_score: float = 0.0) -> Predictions:
        asked.append(least_score)
        return decode(maps, least_score)

    monkeypatch.setattr(model.head, "decode", noted)
    own = PredictorSettings(NmsSettings(conf_thres=0.25, iou_thres=0.45, max_det=10), FrameSize(64, 64))
    predictor = Predictor(TorchBackend(model, torch.device("cpu")), own, torch.device("cpu"))
    predictor([torch.zeros(64, 64, 3, dtype=torch.uint8).numpy()])
    assert asked == [0.25]
