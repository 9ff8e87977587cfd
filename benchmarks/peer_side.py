"""The other side of the comparisons, run inside the folder of a YOLOv5 checkout, whose modules it imports.

Arguments: the function and its arguments as JSON; for ``training_overhead`` those of a train.py, of either side. Prints
the times as JSON (``benchmarks.measuring.Timed``).
"""

import contextlib
import json
import random
import runpy
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

import torch
from inputs import head_maps, nms_rows, objects, times_of

HYP = {
    "box": 0.05, "obj": 1.0, "cls": 0.5, "cls_pw": 1.0, "obj_pw": 1.0, "fl_gamma": 0.0, "anchor_t": 4.0,
    "label_smoothing": 0.0,
}  # fmt: skip
SKIPPED = 2  # first steps of a training that do not count


def nms(img):
    from utils.general import non_max_suppression

    rows = nms_rows(img)
    return times_of(lambda: non_max_suppression(rows.clone(), 0.001, 0.6, multi_label=True, max_det=300))


def model_and_loss(cfg):
    from models.yolo import Model
    from utils.loss import ComputeLoss

    torch.manual_seed(0)
    model = Model(cfg).train()
    model.hyp = HYP
    return model, ComputeLoss(model)


def loss(img, images):
    compute, maps, targets = model_and_loss("models/yolov5n.yaml")[1], head_maps(images, img), objects(images)

    def step():
        for one in maps:
            one.grad = None
        compute(maps, targets)[0].backward()

    return times_of(step)


def training_step(cfg, precision, img, images):
    model, compute = model_and_loss(cfg)
    targets = objects(images)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.937, nesterov=True, foreach=True)
    pixels = torch.randint(0, 256, (images, 3, img, img), dtype=torch.uint8)

    def step():
        batch = pixels.float() / 255
        with torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext():
            maps = model(batch)
        compute([one.float() for one in maps], targets)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return times_of(step, times=2)


def augmentation(data, img, samples, place):
    import cv2
    import numpy as np
    import yaml
    from utils.dataloaders import LoadImagesAndLabels

    hyp = yaml.safe_load(Path("data/hyps/hyp.scratch-low.yaml").read_text())
    cache = "ram" if place == "memory" else False
    dataset = LoadImagesAndLabels(data, img, 16, augment=True, hyp=hyp, cache_images=cache)
    cv2.setNumThreads(0)
    random.seed(0)
    np.random.seed(0)
    return times_of(lambda: [dataset[i % len(dataset)] for i in range(samples)], times=3, per=samples)


def training_overhead(*words):
    """Run a train.py and time its steps: in forward and backward passes of the network, and outside of them.

    A step is counted from the end of a backward pass to the end of the next.
    """
    from models import yolo

    ends, inside, depth = [], [0.0, 0.0], [0]  # clocks and time inside so far at each end; wall, CPU

    def clocks():
        return time.perf_counter(), time.process_time()

    def timed(call):
        def run(*arguments, **settings):
            start = clocks()
            depth[0] += 1
            try:
                return call(*arguments, **settings)
            finally:
                depth[0] -= 1
                if depth[0] == 0:
                    inside[:] = [total + now - then for total, now, then in zip(inside, clocks(), start, strict=True)]

        return run

    of_tensor, of_model = torch.Tensor.backward, yolo.DetectionModel.forward
    timed_backward = timed(of_tensor)

    def backward(self, *arguments, **settings):
        timed_backward(self, *arguments, **settings)
        ends.append((*clocks(), *inside))

    torch.Tensor.backward, yolo.DetectionModel.forward, sys.argv = backward, timed(of_model), list(words)
    try:
        runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise
    finally:
        torch.Tensor.backward, yolo.DetectionModel.forward = of_tensor, of_model
    count = len(ends) - 1 - SKIPPED
    spans = zip(ends[SKIPPED], ends[-1], strict=True)
    wall, cpu, wall_inside, cpu_inside = ((last - first) / count for first, last in spans)
    outside = [[wall - wall_inside, cpu - cpu_inside]]
    return {"outside forward and backward": outside, "forward and backward": [[wall_inside, cpu_inside]]}


def ultralytics_video(method, weights, source, img, **further):
    """Detect or track in a video with the installed ultralytics package; the annotated video is written."""
    from ultralytics import YOLO

    frames = getattr(YOLO(weights), method)(
        source, stream=True, save=True, imgsz=img, device="cpu", verbose=False, **further
    )
    return {"frames": sum(1 for _ in frames)}


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    if name == "training_overhead":
        print(json.dumps(training_overhead(*arguments)))
    else:
        print(json.dumps(globals()[name](**json.loads(arguments[0]))))
