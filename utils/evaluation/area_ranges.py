"""Ranges of object size in which average precision is reported: COCO's, AI-TOD's, a user's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from utils.user_error import UsageError

WITHOUT_END = 1e5**2  # square pixels; what COCO writes for no upper limit


class AreaRange(NamedTuple):
    """Objects of ``low`` to ``high`` square pixels of the source image, both included, as COCO has it."""

    name: str
    low: float
    high: float


COCO_RANGES = (
    AreaRange("all", 0, WITHOUT_END),
    AreaRange("small", 0, 32**2),
    AreaRange("medium", 32**2, 96**2),
    AreaRange("large", 96**2, WITHOUT_END),
)
# Wang et al., "Tiny Object Detection in Aerial Images" (ICPR 2020): 2 to 8, 8 to 16, 16 to 32, 32 to 64 pixels;
# its evaluation leaves the outer ranges open.
AI_TOD = (
    AreaRange("very-tiny", 0, 8**2),
    AreaRange("tiny", 8**2, 16**2),
    AreaRange("small", 16**2, 32**2),
    AreaRange("medium", 32**2, WITHOUT_END),
)
PRESETS = {"ai-tod": AI_TOD}


def parse_area_ranges(texts: Sequence[str]) -> tuple[AreaRange, ...]:
    """Ranges out of words such as ``tiny:0-256`` (square pixels; ``huge:9216-`` has no end) and names of presets.

    Raises:
        UsageError: a word of another form, an empty range, or a name that occurs twice.
    """
    ranges: list[AreaRange] = []
    for text in texts:
        if text.lower() in PRESETS:
            ranges += PRESETS[text.lower()]
            continue
        match = re.fullmatch(r"([^:]+):(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)?", text)
        if match is None:
            presets = ", ".join(PRESETS)
            raise UsageError(f"--area-ranges {text}: write name:from-to in square pixels, or a preset ({presets})")
        one = AreaRange(match[1], float(match[2]), float(match[3]) if match[3] else WITHOUT_END)
        if one.low >= one.high:
            raise UsageError(f"--area-ranges {text}: ends where it begins, or before")
        ranges.append(one)
    names = [one.name for one in ranges]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"--area-ranges {' '.join(texts)}: the name {twice} occurs twice")
    return tuple(ranges)
