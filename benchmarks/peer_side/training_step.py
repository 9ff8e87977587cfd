"""The peer's training steps, timed inside its own folder: `benchmarks.training_step` starts this.

Arguments: the architecture file, the side in pixels, the images of a batch, and "fp32" or "bf16".
"""

import contextlib
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path.cwd()), str(Path(__file__).parent)]

import torch
from inputs import objects, print_seconds
from models.yolo import Model
from utils.loss import ComputeLoss

ARCHITECTURE, SIDE, BATCH_IMAGES, PRECISION = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
MODEL = Model(ARCHITECTURE).train()
MODEL.hyp = {
    "box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0,
    "label_smoothing": 0.0,
}  # fmt: skip
LOSS, TARGETS = ComputeLoss(MODEL), objects(BATCH_IMAGES)
OPTIMIZER = torch.optim.SGD(MODEL.parameters(), lr=0.001, momentum=0.937, nesterov=True, foreach=True)
IMAGES = torch.randint(0, 256, (BATCH_IMAGES, 3, SIDE, SIDE), dtype=torch.uint8)


def step() -> None:
    images = IMAGES.float() / 255
    with torch.autocast("cpu", torch.bfloat16) if PRECISION == "bf16" else contextlib.nullcontext():
        maps = MODEL(images)
    LOSS([one.float() for one in maps], TARGETS)[0].backward()
    OPTIMIZER.step()
    OPTIMIZER.zero_grad()


print_seconds(step, times=2, clock=time.process_time)
