"""The peer's training samples, timed inside its own folder: `benchmarks.augmentation` starts this.

Arguments: the folder of pictures, the side in pixels, how many samples.
"""

import random
import sys
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

import numpy as np
import yaml
from inputs import print_seconds
from utils.dataloaders import LoadImagesAndLabels

FOLDER, SIDE, COUNT = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
HYP = yaml.safe_load(Path("data/hyps/hyp.scratch-low.yaml").read_text())
DATASET = LoadImagesAndLabels(FOLDER, SIDE, 16, augment=True, hyp=HYP)
random.seed(0)
np.random.seed(0)
print_seconds(lambda: [DATASET[i % len(DATASET)] for i in range(COUNT)], times=3)
