"""What is said of two graphs' operations, worked by hand."""

from __future__ import annotations

from collections import Counter

from benchmarks.format_operations import beside, convolutions, moving


def test_what_takes_maps_apart_is_named_in_the_words_of_each_format() -> None:
    assert moving(Counter(Conv=60, Slice=9, Concat=17)) == "9 Slice"
    assert moving(Counter(CONV_2D=60, SPACE_TO_DEPTH=5, STRIDED_SLICE=2)) == "5 SPACE_TO_DEPTH, 2 STRIDED_SLICE"
    assert moving(Counter(Convolution=66, Swish=57, Concat=17)) == "none"


def test_convolutions_of_all_formats_count() -> None:
    assert convolutions(Counter(Conv=60, Concat=17)) == 60
    assert convolutions(Counter(CONV_2D=60, DEPTHWISE_CONV_2D=2)) == 62
    assert convolutions(Counter(Convolution=5, ConvolutionDepthWise=1, Convert=3)) == 6
    assert convolutions(Counter(_convolution=7, conv=1)) == 8


def test_the_difference_of_two_graphs() -> None:
    assert beside(Counter(Conv=3, Slice=4), Counter(Conv=4)) == "-1 Conv, +4 Slice"
    assert beside(Counter(Conv=3), Counter(Conv=3)) == "the same"
