"""Tiles cover every image; what they find is joined without repeats and without pieces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.evaluation.small_cases import detections_of
from utils.geometry.letterbox import FrameSize, tiles_of
from utils.geometry.records import Detections, Predictions
from utils.inference.nms import NmsSettings
from utils.inference.predictor import Predictor, PredictorSettings
from utils.inference.slicing import SlicedPredictor, SliceSettings, drop_repeats, merge_greedily

SIZE = FrameSize(400, 600)


@given(
    height=st.integers(1, 1500),
    width=st.integers(1, 1500),
    size=st.integers(64, 900),
    overlap=st.floats(0, 0.8),
)
def test_tiles_cover_the_image_with_the_overlap_asked_for(height: int, width: int, size: int, overlap: float) -> None:
    tiles = tiles_of(FrameSize(height, width), size, overlap)
    if max(height, width) <= size:
        assert tiles == []
        return
    for starts, ends, length in (
        (sorted({tile.left for tile in tiles}), sorted({tile.right for tile in tiles}), width),
        (sorted({tile.top for tile in tiles}), sorted({tile.bottom for tile in tiles}), height),
    ):
        assert starts[0] == 0 and ends[-1] == length
        assert all(end - start == min(size, length) for start, end in zip(starts, ends, strict=True))
        for end, start in zip(ends[:-1], starts[1:], strict=True):
            assert end - start >= size * overlap - 1  # rounded to whole pixels
    assert len(tiles) == len({(tile.left, tile.top) for tile in tiles})


def test_even_tiles_worked_by_hand() -> None:
    # 1000 wide, tiles of 400 with 100 in common at least: steps of 300, so that three tiles fit exactly.
    assert [(t.left, t.right) for t in tiles_of(FrameSize(400, 1000), 400, 0.25)] == [(0, 400), (300, 700), (600, 1000)]


def test_pieces_of_a_whole_object_are_dropped_whatever_their_score() -> None:
    found = detections_of(
        [0, 0.6, 100, 100, 140, 120],  # whole
        [0, 0.9, 120, 100, 140, 120],  # its right half, out of another tile
        [1, 0.9, 120, 100, 140, 120],  # of another class
        [0, 0.5, 101, 100, 141, 120],  # a repeat
        [0, 0.4, 300, 100, 320, 120],  # a piece of nothing else
        size=SIZE,
    )
    pieces = torch.tensor([False, True, False, False, True])
    kept = drop_repeats(found, pieces, 0.45, agnostic=False)
    assert kept.scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
    assert kept.classes.tolist() == [1, 0, 0]
    agnostic = drop_repeats(found, pieces, 0.45, agnostic=True)
    assert agnostic.scores.tolist() == pytest.approx([0.9, 0.4])  # the box of class 1 is whole and covers the others


def test_pieces_among_themselves_are_united() -> None:
    found = detections_of([0, 0.9, 100, 100, 150, 120], [0, 0.8, 120, 100, 180, 120], size=SIZE)
    kept = drop_repeats(found, torch.tensor([True, True]), 0.5, agnostic=False)
    assert kept.boxes.tolist() == [[100, 100, 180, 120]]


def test_greedy_merging_unites_what_shares_half_of_the_smaller() -> None:
    found = detections_of(
        [0, 0.7, 0, 0, 10, 10],
        [0, 0.9, 4, 0, 14, 10],  # shares 6 of 10 columns with the first
        [0, 0.8, 20, 0, 30, 10],
        [1, 0.6, 0, 0, 10, 10],
        size=SIZE,
    )
    merged = merge_greedily(found, agnostic=False)
    assert merged.boxes.tolist() == [[0, 0, 14, 10], [20, 0, 30, 10], [0, 0, 10, 10]]
    assert merged.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    assert len(merge_greedily(found, agnostic=True)) == 2
    empty = merge_greedily(detections_of(size=SIZE), agnostic=False)
    assert len(empty) == 0 and empty.boxes.shape == (0, 4)


def test_unsure_boxes_do_not_widen_the_frame() -> None:
    found = detections_of([0, 0.9, 0, 0, 10, 10], [0, 0.5, 2, 0, 12, 10], [0, 0.4, 0, 0, 30, 10], size=SIZE)
    merged = merge_greedily(found, agnostic=False)
    assert merged.boxes.tolist() == [[0, 0, 12, 10]], "0.5 is more than half of 0.9, 0.4 is not; none is left over"


def test_whole_boxes_widen_the_frame_of_a_piece_only() -> None:
    found = detections_of([0, 0.9, 0, 0, 10, 10], [0, 0.8, 3, 0, 13, 10], [0, 0.7, 0, 4, 10, 14], size=SIZE)
    merged = merge_greedily(found, agnostic=False, pieces=torch.tensor([False, False, True]))
    assert merged.boxes.tolist() == [[0, 0, 10, 14]]
    of_a_piece = merge_greedily(found, agnostic=False, pieces=torch.tensor([True, False, False]))
    assert of_a_piece.boxes.tolist() == [[0, 0, 13, 14]]


class BrightSpots:
    """A detector of white squares that sees squares of 8 pixels and more only, and cuts them at the frame's edge."""

    names = ("spot",)
    stride = 32
    frame: FrameSize | None = None
    batch_size: int | None = None

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, images: torch.Tensor, least_score: float = 0.0) -> Predictions:
        self.batches.append(len(images))
        rows: list[list[list[float]]] = []
        for image in images:
            rows.append([])
            for value in torch.unique(image[0]).tolist():
                if value <= 0.5:
                    continue
                ys, xs = torch.nonzero(image[0] == value, as_tuple=True)
                box = [xs.min().item(), ys.min().item(), xs.max().item() + 1, ys.max().item() + 1]
                if min(box[2] - box[0], box[3] - box[1]) >= 8:
                    rows[-1].append([float(side) for side in box])
        most = max(max(map(len, rows)), 1)
        boxes, objectness = torch.zeros(len(images), most, 4), torch.zeros(len(images), most)
        for place, own in enumerate(rows):
            for row, box in enumerate(own):
                boxes[place, row], objectness[place, row] = torch.tensor(box), 0.9
        return Predictions(boxes, objectness, torch.ones(len(images), most, 1))


def found_in(image: np.ndarray, detector: BrightSpots, merge: str = "nms", batch_size: int = 4) -> Detections:
    settings = PredictorSettings(NmsSettings(0.25, 0.45, 100), FrameSize(128, 128))
    predictor = Predictor(detector, settings, torch.device("cpu"))
    sliced = SlicedPredictor(predictor, SliceSettings(128, 0.2, merge), batch_size)
    (found,) = sliced([image])
    return found


def spots(places: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """A dark image of 256 x 512 with squares (x, y, side), each of its own brightness."""
    image = np.zeros((256, 512, 3), dtype=np.uint8)
    for number, (x, y, side) in enumerate(places):
        image[y : y + side, x : x + side] = 255 - 4 * number
    return image


@pytest.mark.parametrize("merge", ["nms", "greedy"])
def test_small_objects_are_found_where_they_are(merge: str) -> None:
    places = [(10, 10, 10), (120, 100, 12), (300, 200, 9), (200, 60, 100)]
    found = found_in(spots(places), BrightSpots(), merge)
    expected = sorted([x, y, x + side, y + side] for x, y, side in places)
    assert sorted(box for box in found.boxes.round().tolist()) == expected
    whole = Predictor(
        BrightSpots(), PredictorSettings(NmsSettings(0.25, 0.45, 100), FrameSize(128, 128)), torch.device("cpu")
    )
    assert len(whole([spots(places)])[0]) == 1  # only the large one


def test_tiles_go_through_in_batches() -> None:
    detector = BrightSpots()
    found_in(spots([(10, 10, 10)]), detector, batch_size=4)
    # 256 x 512 in tiles of 128: 3 x 5 tiles and the whole, whose frame is another one.
    assert sum(detector.batches) == 16 and max(detector.batches) == 4


def test_an_image_that_fits_has_no_tiles() -> None:
    detector = BrightSpots()
    found_in(spots([(10, 10, 10)])[:100, :128], detector)
    assert detector.batches == [1]
