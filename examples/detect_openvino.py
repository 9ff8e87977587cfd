"""Objects in an image, found by an exported detector in OpenVINO; no other part of this project is used.

    pip install openvino opencv-python pyyaml
    python examples/detect_openvino.py best_openvino_model image.jpg --conf 0.25 --iou 0.45

A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import cv2
import numpy as np
import openvino
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
    graphs = sorted(args.model.glob("*.xml"))
    if not graphs or not graphs[0].with_suffix(".yaml").is_file():
        sys.exit(f"{args.model}: not the folder of an OpenVINO export, with graph (.xml) and metadata (.yaml)")
    metadata = yaml.safe_load(graphs[0].with_suffix(".yaml").read_text(encoding="utf-8"))
    if missing := {"names", "stride", "imgsz", "pad_value"} - metadata.keys():
        sys.exit(f"{args.model}: its metadata lack {', '.join(sorted(missing))}; export it again")
    # Where it may choose, it computes in bfloat16 on some processors, which moves the edges of large boxes.
    model = openvino.Core().compile_model(graphs[0], "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    batch, _, *sides = model.input().get_partial_shape()
    if batch.is_static and batch.get_length() != 1:
        sys.exit(f"{args.model}: takes {batch.get_length()} images at once; export it with --batch-size 1")
    if all(side.is_static for side in sides):
        height, width = (side.get_length() for side in sides)
    else:  # --dynamic: the smallest frame that holds the scaled image
        stride, imgsz = metadata["stride"], metadata["imgsz"]
        ratio = min(imgsz[0] / image.shape[0], imgsz[1] / image.shape[1])
        height, width = (math.ceil(round(side * ratio) / stride) * stride for side in image.shape[:2])
    frame, scale, shift = letterboxed(image, height, width, metadata["pad_value"])
    images = frame[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255  # BGR to RGB
    boxes, scores, classes = suppressed(model(images)[0][0], args.conf, args.iou)
    boxes = ((boxes - shift) / scale).clip(0, np.array(image.shape[1::-1] * 2))
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        print(metadata["names"][kind], f"{score:.4f}", *(f"{side:.2f}" for side in box))


if __name__ == "__main__":
    main()
