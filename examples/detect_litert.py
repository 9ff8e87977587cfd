"""Objects in an image, found by an exported detector in LiteRT (TFLite); no other part of this project is used.

    pip install ai-edge-litert opencv-python
    python examples/detect_litert.py best.tflite image.jpg --conf 0.25 --iou 0.45

A line `class_name score x1 y1 x2 y2` per object, best first, in pixels of the image. FP16 and INT8 files are read too.
"""

from __future__ import annotations

import argparse
import ast
import sys
import zipfile

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter


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
    if not zipfile.is_zipfile(args.model):  # the metadata lie in an archive behind the graph
        sys.exit(f"{args.model}: has no metadata; export it again")
    with zipfile.ZipFile(args.model) as archive:
        metadata = ast.literal_eval(archive.read(archive.namelist()[0]).decode())
    if missing := {"names", "pad_value"} - metadata.keys():
        sys.exit(f"{args.model}: its metadata lack {', '.join(sorted(missing))}; export it again")
    interpreter = Interpreter(args.model)
    interpreter.allocate_tensors()
    (entry,), (output,) = interpreter.get_input_details(), interpreter.get_output_details()
    batch, height, width, _ = entry["shape"].tolist()
    if batch != 1:
        sys.exit(f"{args.model}: takes {batch} images at once; export it with --batch-size 1")
    frame, scale, shift = letterboxed(image, height, width, metadata["pad_value"])
    interpreter.set_tensor(entry["index"], frame[None, :, :, ::-1].astype(np.float32) / 255)  # BGR to RGB
    interpreter.invoke()
    rows = interpreter.get_tensor(output["index"])[0]
    rows[:, :4] *= [width, height, width, height]  # boxes are shares of the frame
    boxes, scores, classes = suppressed(rows, args.conf, args.iou)
    boxes = ((boxes - shift) / scale).clip(0, np.array(image.shape[1::-1] * 2))
    for box, score, kind in zip(boxes, scores, classes, strict=True):
        print(metadata["names"][kind], f"{score:.4f}", *(f"{side:.2f}" for side in box))


if __name__ == "__main__":
    main()
