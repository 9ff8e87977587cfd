"""The peer's training samples, timed inside its own folder: `benchmarks.augmentation` starts this.

Arguments: the folder of images, the side in pixels, how many samples, and "memory" or "disk".
"""

import random
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

import cv2
import numpy as np
import yaml
from inputs import print_seconds
from utils.dataloaders import LoadImagesAndLabels

FOLDER, SIDE, COUNT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
CACHE = "ram" if sys.argv[4] == "memory" else False
HYP = yaml.safe_load(Path("data/hyps/hyp.scratch-low.yaml").read_text())
DATASET = LoadImagesAndLabels(FOLDER, SIDE, 16, augment=True, hyp=HYP, cache_images=CACHE)
cv2.setNumThreads(0)
random.seed(0)
np.random.seed(0)
print_seconds(lambda: [DATASET[i % len(DATASET)] for i in range(COUNT)], times=3, clock=time.process_time)
