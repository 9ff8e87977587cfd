"""Objects in an image, found by an exported detector in ONNX Runtime; no other part of this project is used.

    pip install onnxruntime opencv-python
    python examples/detect_onnxruntime.py best.onnx image.jpg --conf 0.25 --iou 0.45

A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image. A file with suppression inside
(best_nms.onnx) is read too; its thresholds are then those of its export where they are the stricter ones.
"""

from __future__ import annotations

import argparse
import ast
import math
import sys

import cv2
import numpy as np
import onnxruntime


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
    parser.add_argument("model")
    parser.add_argument("image")
    parser.add_argument("--conf", type=float, default=0.25, help="lowest score")
    parser.add_argument("--iou", type=float, default=0.45, help="boxes of a class that overlap by more are one")
    args = parser.parse_args()
    image = cv2.imread(args.image)
    if image is None:
        sys.exit(f"{args.image}: not a readable image")
    session = onnxruntime.InferenceSession(args.model, providers=["CPUExecutionProvider"])
    metadata, entry = session.get_modelmeta().custom_metadata_map, session.get_inputs()[0]
    if missing := {"names", "stride", "imgsz", "pad_value"} - metadata.keys():
        sys.exit(f"{args.model}: its metadata lack {', '.join(sorted(missing))}; export it again")
    batch, _, *sides = entry.shape
    if isinstance(batch, int) and batch != 1:
        sys.exit(f"{args.model}: takes {batch} images at once; export it with --batch-size 1")
    if not all(isinstance(side, int) for side in sides):  # --dynamic: the smallest frame that holds the scaled image
        stride, imgsz = int(metadata["stride"]), ast.literal_eval(metadata["imgsz"])
        ratio = min(imgsz[0] / image.shape[0], imgsz[1] / image.shape[1])
        sides = [math.ceil(round(side * ratio) / stride) * stride for side in image.shape[:2]]
    frame, scale, shift = letterboxed(image, sides[0], sides[1], int(metadata["pad_value"]))
    images = frame[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) / 255  # BGR to RGB
    output = [part[0] for part in session.run(None, {entry.name: images})]
    if len(output) == 4:  # suppression is inside: boxes, scores and classes, of which so many count
        boxes, scores, classes = (part[: output[3]][output[1][: output[3]] > args.conf] for part in output[:3])
    else:
        boxes, scores, classes = suppressed(output[0], args.conf, args.iou)
    boxes = ((boxes - shift) / scale).clip(0, np.array(image.shape[1::-1] * 2))
    names = ast.literal_eval(metadata["names"])
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        print(names[kind], f"{score:.4f}", *(f"{side:.2f}" for side in box))


if __name__ == "__main__":
    main()
