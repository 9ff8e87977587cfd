"""The compiled suppression, with and without the package that it belongs to."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from utils.runtime.torchvision_operators import nms

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 1, 10, 11], [20, 20, 30, 30]])
SCORES = torch.tensor([0.8, 0.9, 0.7])


def test_an_overlapping_box_is_dropped() -> None:
    assert nms(BOXES, SCORES, 0.5).tolist() == [1, 2]  # the first two share 90 of 110 square pixels
    assert nms(BOXES, SCORES, 0.9).tolist() == [1, 0, 2]


@pytest.mark.slow
def test_the_package_is_not_imported_and_may_be_later() -> None:
    program = (
        "import sys, torch; from utils.runtime.torchvision_operators import nms;"
        "boxes, scores = torch.rand(50, 4).cumsum(1), torch.rand(50); ours = nms(boxes, scores, 0.5);"
        "assert 'torchvision' not in sys.modules;"
        "import torchvision; assert torch.equal(ours, torchvision.ops.nms(boxes, scores, 0.5))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
