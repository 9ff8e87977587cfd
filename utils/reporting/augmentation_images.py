"""An image of each augmentation, for the documentation.

python -m utils.reporting.augmentation_images [FOLDER]      default: docs/augmentation
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from utils.config.hyperparameters import Hyperparameters
from utils.dataset.augmentation import Augmentation
from utils.dataset.demo_scenes import NAMES, SceneSize, write_demo_scenes, write_image
from utils.dataset.detection_dataset import open_dataset
from utils.reporting.box_drawing import DrawingStyle, draw_labels

SIDE = 416  # pixels
STYLE = DrawingStyle(line_width=1, tags="none")
NONE = Hyperparameters(hsv_h=0, hsv_s=0, hsv_v=0, translate=0, scale=0, fliplr=0, mosaic=0)
# File name -> what is changed against no augmentation at all.
SHOWN: dict[str, dict[str, float]] = {
    "none": {},
    "mosaic": {"mosaic": 1.0},
    "mosaic9": {"mosaic": 1.0, "mosaic9": 1.0},
    "mixup": {"mosaic": 1.0, "mixup": 1.0},
    "copy-paste": {"mosaic": 1.0, "copy_paste": 1.0},
    "paste-small": {"mosaic": 1.0, "paste_small": 1.0},
    "scale-and-translate": {"scale": 0.5, "translate": 0.1},
    "rotation": {"degrees": 30.0},
    "shear": {"shear": 10.0},
    "perspective": {"perspective": 0.001},
    "colour": {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4},
    "flips": {"fliplr": 1.0, "flipud": 1.0},
}


def draw_augmentations(folder: Path) -> list[Path]:
    """Draw the first of a few generated scenes once with each of `SHOWN`; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with tempfile.TemporaryDirectory() as scratch:
        scenes = write_demo_scenes(Path(scratch) / "scenes", SceneSize(train=12, val=1, outlines=True))
        dataset = open_dataset((scenes / "images" / "train",), NAMES)
        for name, changes in SHOWN.items():
            augmentation = Augmentation(dataset, len(dataset), SIDE, replace(NONE, **changes))  # type: ignore[arg-type]
            image, labels = augmentation(0, np.random.default_rng(5))
            written.append(folder / f"{name}.jpg")
            write_image(written[-1], draw_labels(image, labels, NAMES, STYLE), quality=80)
    return written


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/augmentation")
    written = draw_augmentations(folder)
    print(f"{len(written)} images in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
