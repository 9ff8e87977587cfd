"""Objects in an image, found by an exported detector in ncnn; no other part of this project is used.

    pip install ncnn opencv-python pyyaml
    python examples/detect_ncnn.py best_ncnn_model image.jpg --conf 0.25 --iou 0.45

A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import cv2
import ncnn
import numpy as np
import yaml


def letterboxed(image: np.ndarray, height: int, width: int, grey: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The image scaled into the middle of a grey frame; scale and shift (x, y, x, y) that its pixels underwent."""
    ratio = min(height / image.shape[0], width / image.shape[1])
    across, down = (max(round(side * ratio), 1) for side in image.shape[1::-1])
    left, top = (width - across) // 2, (height - down) // 2
    frame = np.full((height, width, 3), grey, np.uint8)
    frame[top : top + down, left : left + across] = cv2.resize(image, (across, down))
    return frame, np.array([across / image.shape[1], down / image.shape[0]] * 2), np.array([left, top] * 2)


def suppressed(rows: np.ndarray, conf: float, iou: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes xyxy, scores and classes that remain of rows (N, 5 + C): centre, size, objectness, class probabilities."""
    scores = rows[:, 4:5] * rows[:, 5:]
    classes, scores = scores.argmax(1), scores.max(1)
    corners = rows[:, :2] - rows[:, 2:4] / 2
    likely = np.flatnonzero(scores > conf)
    boxes = np.concatenate((corners, rows[:, 2:4]), 1)[likely].tolist()  # xywh, as OpenCV takes them
    kept = likely[cv2.dnn.NMSBoxesBatched(boxes, scores[likely].tolist(), classes[likely].tolist(), conf, iou)]
    return np.concatenate((corners, corners + rows[:, 2:4]), 1)[kept], scores[kept], classes[kept]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("image")
    parser.add_argument("--conf", type=float, default=0.25, help="lowest score")
    parser.add_argument("--iou", type=float, default=0.45, help="boxes of a class that overlap by more are one")
    args = parser.parse_args()
    image = cv2.imread(args.image)
    if image is None:
        sys.exit(f"{args.image}: not a readable image")
    graph, weights, described = (args.model / name for name in ("model.ncnn.param", "model.ncnn.bin", "metadata.yaml"))
    if not all(file.is_file() for file in (graph, weights, described)):
        sys.exit(f"{args.model}: not the folder of an ncnn export, with .param, .bin and .yaml")
    metadata = yaml.safe_load(described.read_text(encoding="utf-8"))
    if missing := {"names", "imgsz", "pad_value"} - metadata.keys():
        sys.exit(f"{args.model}: its metadata lack {', '.join(sorted(missing))}; export it again")
    network = ncnn.Net()
    # By default it stores and computes in FP16 on some processors, coordinates of boxes too.
    network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    if network.load_param(str(graph)) or network.load_model(str(weights)):
        sys.exit(f"{args.model}: ncnn {ncnn.__version__} cannot read it")
    height, width = metadata["imgsz"]
    frame, scale, shift = letterboxed(image, height, width, metadata["pad_value"])
    pixels = np.ascontiguousarray(frame[:, :, ::-1].transpose(2, 0, 1), np.float32) / 255  # BGR to RGB
    extractor = network.create_extractor()
    extractor.input("in0", ncnn.Mat(pixels))  # not copied: it has to be there until the end
    _, rows = extractor.extract("out0")
    boxes, scores, classes = suppressed(np.array(rows), args.conf, args.iou)
    boxes = ((boxes - shift) / scale).clip(0, np.array(image.shape[1::-1] * 2))
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        print(metadata["names"][kind], f"{score:.4f}", *(f"{side:.2f}" for side in box))


if __name__ == "__main__":
    main()
