"""Sizes of batches with --multi-scale."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from utils.geometry.letterbox import FrameSize
from utils.training.run_images import MultiScale


@given(
    imgsz=st.integers(2, 60).map(lambda n: 32 * n),
    stride=st.sampled_from((8, 16, 32, 64)),
    seed=st.integers(0, 2**31),
    epoch=st.integers(0, 300),
    step=st.integers(0, 10**6),
    short=st.floats(0.05, 1),
)
def test_sizes_are_multiples_from_half_to_one_and_a_half_in_the_frames_shape(
    imgsz: int, stride: int, seed: int, epoch: int, step: int, short: float
) -> None:
    size = FrameSize(max(round(imgsz * short), 1), imgsz)
    scaled = MultiScale(imgsz, stride, seed).frame(size, epoch, step)
    assert scaled.width % stride == 0 == scaled.height % stride
    assert 0.5 * imgsz <= scaled.width <= max(1.5 * imgsz, stride)
    # The shorter side keeps its share, rounded up to the stride.
    exact = size.height * scaled.width / size.width
    assert exact - 1e-6 <= scaled.height < exact + stride
    assert MultiScale(imgsz, stride, seed).frame(size, epoch, step) == scaled, "the same in every process"
    assert max(scaled) <= MultiScale(imgsz, stride, seed).longest, "what a fitting batch size is measured at"


def test_every_size_occurs_about_as_often() -> None:
    # Of 64 pixels in multiples of 32: 32, 64 and 96.
    scale = MultiScale(64, 32, seed=0)
    counts = Counter(scale.frame(FrameSize(64, 64), epoch, step) for epoch in range(10) for step in range(60))
    assert set(counts) == {FrameSize(side, side) for side in (32, 64, 96)}
    assert min(counts.values()) > 150


def test_seed_epoch_and_step_each_change_the_sizes() -> None:
    def sizes(seed: int, epoch: int) -> list[FrameSize]:
        return [MultiScale(640, 32, seed).frame(FrameSize(640, 640), epoch, step) for step in range(20)]

    assert len({tuple(sizes(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9
    assert len(set(sizes(0, 0))) > 5
