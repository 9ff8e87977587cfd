from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.shared_data import REPOSITORY
from utils.reporting.augmentation_images import SHOWN, SIDE, draw_augmentations

pytestmark = pytest.mark.slow


def test_each_augmentation_has_its_image_and_its_place_on_the_page(tmp_path: Path) -> None:
    images = {path.stem: np.asarray(cv2.imread(str(path))) for path in draw_augmentations(tmp_path)}
    assert set(images) == set(SHOWN)
    plain = images.pop("none")
    for name, image in images.items():
        assert image.shape == (SIDE, SIDE, 3)
        assert np.abs(image.astype(int) - plain).mean() > 3, name
    page = (REPOSITORY / "docs" / "augmentation.md").read_text(encoding="utf-8")
    assert [name for name in SHOWN if f"augmentation/{name}.jpg" not in page] == []
    assert [name for name in SHOWN if not (REPOSITORY / "docs" / "augmentation" / f"{name}.jpg").is_file()] == []
