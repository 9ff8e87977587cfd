"""Settings of ``val.py``: flags with YOLOv5's names, meanings and defaults."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import shared_flags
from utils.config.command_line import flag
from utils.config.shared_flags import IMGSZ_ALIASES, LARGEST_BATCH, LONGEST_SIDE, MOST_DETECTIONS
from utils.user_error import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class ValConfig:
    """Settings of ``val.py``."""

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    weights: tuple[str, ...] = flag(
        ("yolov5s.pt",),
        "model file: .pt, .torchscript, .onnx, .engine, .tflite, *_openvino_model, *_ncnn_model; several: an ensemble",
        group="Model",
    )
    batch_size: int = flag(32, "images per batch", group="Data", at_least=1, at_most=LARGEST_BATCH)
    imgsz: int = flag(640, "image size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE)
    square: bool = flag(
        False, "pad every image to the whole square of --img, as an exported file of fixed size sees it", group="Data"
    )
    task: str = flag(
        "val",
        "set to evaluate on; or speed: times with detect.py's thresholds; or study: figures and times over image sizes",
        group="Data",
        choices=("train", "val", "test", "speed", "study"),
    )
    study_sizes: tuple[int, ...] = flag(
        tuple(range(256, 1536 + 1, 128)),
        "image sizes of --task study, pixels",
        group="Data",
        at_least=32,
        at_most=LONGEST_SIDE,
    )
    workers: int = flag(8, "threads that load images; 0 loads between batches", group="Data", at_least=0)
    single_cls: bool = flag(False, "evaluate all classes as one", group="Data")

    conf_thres: float = flag(0.001, "lowest score of a detection", group="Detections", at_least=0, at_most=1)
    iou_thres: float = flag(
        0.6, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(300, "most detections per image", group="Detections", at_least=1, at_most=MOST_DETECTIONS)
    augment: bool = shared_flags.augment()
    slice: int | None = shared_flags.tile_size()
    slice_overlap: float = shared_flags.tile_overlap()
    slice_merge: str = shared_flags.tile_merge()

    device: str = shared_flags.device()
    dnn: bool = shared_flags.dnn()
    precision: str = shared_flags.precision()
    half: bool = shared_flags.half()
    compile: bool = shared_flags.compiled()
    as_yolov5: bool = flag(
        False,
        "image order, padding and fp32 of YOLOv5's python val.py, for figures that compare with YOLOv5's; "
        "with --half its half precision too, on any device",
        group="Run",
    )
    verbose: bool = flag(False, "print the figures of every class", group="Output")
    area_ranges: tuple[str, ...] | None = flag(
        None,
        "more object sizes to report AP for: name:from-to in square pixels, or the preset ai-tod",
        group="Output",
    )
    compare: bool = flag(
        False, "compare several --weights, with confidence intervals, instead of an ensemble", group="Output"
    )
    save_txt: bool = flag(False, "write detections as YOLO label files", group="Output")
    save_hybrid: bool = flag(
        False, "write labels and detections, after NMS over both, as YOLO label files", group="Output"
    )
    save_conf: bool = flag(False, "append the score to the rows of --save-txt", group="Output")
    save_json: bool = flag(False, "write detections as COCO results JSON", group="Output")
    project: str = flag("runs/val", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it exists", group="Output")

    def __post_init__(self) -> None:
        shared_flags.check_arithmetic(self.half, self.precision)
        if self.as_yolov5 and self.precision not in ("fp32", "fp16"):
            raise UsageError(f"--as-yolov5 --precision {self.precision}: YOLOv5 validates in fp32, with --half in fp16")
        if self.compare and len(self.weights) < 2:
            raise UsageError("--compare: needs several files, --weights n.pt s.pt")
        if self.compare and self.task in ("speed", "study"):
            raise UsageError(f"--compare --task {self.task}: compares on train, val or test")
        if self.slice is not None and (self.save_hybrid or self.as_yolov5 or self.square):
            raise UsageError("--slice: does not go with --save-hybrid, --as-yolov5 or --square")
        if self.compile and (self.augment or self.as_yolov5 or self.task == "study"):
            raise UsageError("--compile: for images of one size; leave out --augment, --as-yolov5 and --task study")

    @property
    def half_as_yolov5(self) -> bool:
        """Whether every step is rounded to half precision, as ``val.py --half`` of YOLOv5 does on a GPU."""
        return self.as_yolov5 and (self.half or self.precision == "fp16")
