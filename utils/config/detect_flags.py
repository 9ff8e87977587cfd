"""Settings of ``detect.py``: flags with YOLOv5's names, meanings and defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from utils.config import shared_flags
from utils.config.command_line import flag
from utils.config.shared_flags import IMGSZ_ALIASES, LONGEST_SIDE, MOST_DETECTIONS
from utils.user_error import UsageError

TAGS = ("auto", "all", "none")  # beside boxes


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """Settings of ``detect.py``."""

    weights: tuple[str, ...] = flag(
        ("yolov5s.pt",),
        "model file: .pt or exported; several files are an ensemble",
        group="Model",
    )
    source: str = flag(
        "data/images",
        "image, video, folder, glob, or .txt list of them; - for a list on standard input; URL of a file or a "
        "stream (rtsp:// http://); camera number; .streams list of those; screen [number] [left top width height]",
        group="Data",
    )
    recursive: bool = shared_flags.recursive()
    data: str = flag("data/coco128.yaml", "dataset YAML with class names, for a model file without names", group="Data")
    imgsz: tuple[int, ...] = flag(
        (640,),
        "image size, pixels: one side or height width",
        group="Data",
        aliases=IMGSZ_ALIASES,
        at_least=32,
        at_most=LONGEST_SIDE,
        max_values=2,
    )
    vid_stride: int = flag(1, "take every n-th frame of a video or stream", group="Data", at_least=1)
    batch_size: int = flag(
        1, "images, frames or tiles that go through the network together", group="Data", at_least=1, at_most=4096
    )

    conf_thres: float | Literal["auto"] = flag(
        0.25,
        "lowest score of a detection; auto: for each class the one with the best F1 in the training run's validation",
        group="Detections",
        at_least=0,
        at_most=1,
    )
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(1000, "most detections per image", group="Detections", at_least=1, at_most=MOST_DETECTIONS)
    classes: tuple[int, ...] | None = flag(None, "keep these class ids only", group="Detections", at_least=0)
    agnostic_nms: bool = flag(False, "suppress across classes", group="Detections")
    augment: bool = shared_flags.augment()
    slice: int | None = shared_flags.tile_size()
    slice_overlap: float = shared_flags.tile_overlap()
    slice_merge: str = shared_flags.tile_merge()

    track: bool = flag(
        False,
        "follow objects (ByteTrack; pip install trackers) through each video and stream, and through the images of a "
        "folder in their order; what is written and drawn is what is followed, with its id",
        group="Tracking",
    )
    count_line: tuple[str, ...] = flag(
        (),
        "x1,y1,x2,y2 in pixels of the source: count who crosses this line by the centre of its box; in is from the "
        "left to the right of somebody who looks from the first point to the second; repeatable; implies --track",
        group="Tracking",
        repeatable=True,
    )
    count_zone: str | None = flag(
        None,
        'count who enters and leaves the zones of this JSON file, [{"name": "gate", "polygon": [[x, y], ...]}, ...] '
        "in pixels of the source; implies --track",
        group="Tracking",
    )
    save_mot: bool = flag(
        False, "write what is followed in MOTChallenge's format, mot/*.txt; implies --track", group="Tracking"
    )

    device: str = shared_flags.device()
    precision: str = shared_flags.precision()
    half: bool = shared_flags.half()
    compile: bool = shared_flags.compiled()
    dnn: bool = shared_flags.dnn()
    update: bool = flag(
        False, "after the run, rewrite the .pt file as this program's own checkpoint, weights only", group="Run"
    )

    verbose: bool = flag(False, "print a line for each image: what was found in it", group="Output")
    view_img: bool = flag(False, "show the annotated images in a window; q quits", group="Output")
    save_txt: bool = flag(False, "write detections as label files, labels/*.txt", group="Output")
    save_format: int = flag(
        0,
        "rows of --save-txt, fractions of width and height: 0 centre and size (YOLO), 1 corners (Pascal VOC's order)",
        group="Output",
        at_least=0,
        at_most=1,
    )
    save_csv: bool = flag(False, "write detections to predictions.csv: file, class, score", group="Output")
    save_conf: bool = flag(False, "append the score to the rows of --save-txt", group="Output")
    save_json: bool = flag(False, "write detections as COCO results, predictions.json", group="Output")
    save_coco: bool = flag(
        False, "write images and detections as a COCO data set, coco.json, to correct by hand", group="Output"
    )
    save_crop: bool = flag(False, "write every detection as a separate image, crops/CLASS/*.jpg", group="Output")
    nosave: bool = flag(False, "write no annotated images or videos", group="Output")
    visualize: bool = flag(False, "draw and write the feature maps of each layer (.pt files)", group="Output")
    line_thickness: int | None = flag(
        None,
        "line width of boxes, pixels; by default from the sizes of image and box",
        group="Output",
        at_least=1,
        at_most=100,
    )
    tags: str = flag(
        "auto",
        "names and scores beside boxes: where they hide no other object, with a legend for the rest (auto), "
        "at every box (all), nowhere (none)",
        group="Output",
        choices=TAGS,
    )
    hide_labels: bool = flag(False, "draw boxes only, the same as --tags none", group="Output")
    hide_conf: bool = flag(False, "draw names without scores", group="Output")
    project: str = flag("runs/detect", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it exists; an earlier run's labels are kept", group="Output")

    @property
    def counts(self) -> bool:
        """Whether there is a line or a zone to count at."""
        return bool(self.count_line) or self.count_zone is not None

    @property
    def follows(self) -> bool:
        """Whether objects are followed from frame to frame."""
        return self.track or self.counts or self.save_mot

    def __post_init__(self) -> None:
        shared_flags.check_arithmetic(self.half, self.precision)
        if self.hide_labels and self.tags == "all":
            raise UsageError("--hide-labels --tags all: contradict each other; leave one out")
        if self.visualize and (self.augment or self.slice is not None or len(self.weights) > 1):
            raise UsageError("--visualize: shows one network on whole images; leave out --augment and --slice")
        if self.compile and (self.augment or self.visualize):
            raise UsageError("--compile: for images of one size, showing no maps; leave out --augment and --visualize")
