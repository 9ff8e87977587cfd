"""Settings of each verb: flags with YOLOv5's names, meanings and defaults. Read once, checked, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config.command_line import flag
from utils.user_error import UsageError

IMGSZ_ALIASES = ("--img", "--img-size")
# Above these a value is a slip of the finger; refused at once rather than by running out of memory hours later.
LONGEST_SIDE = 8192  # pixels
LARGEST_BATCH = 65_536
MOST_DETECTIONS = 30_000  # per picture: what suppression looks at
MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """Settings of ``train.py``."""

    weights: str = flag("yolov5s.pt", "weights to start from; '' starts from random ones", group="Model")
    cfg: str = flag("", "architecture YAML; '' takes the architecture of --weights", group="Model")

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    imgsz: int = flag(
        640, "picture size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE
    )
    batch_size: int = flag(16, "pictures per batch over all processes", group="Data", at_least=1, at_most=LARGEST_BATCH)
    workers: int = flag(8, "processes that load pictures; 0 loads in the main process", group="Data", at_least=0)
    single_cls: bool = flag(False, "train all classes as one", group="Data")

    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyperparameter YAML", group="Recipe")
    epochs: int = flag(100, "epochs; 0 only writes the start weights", group="Recipe", at_least=0, at_most=MOST_EPOCHS)
    optimizer: str = flag("SGD", "optimizer", group="Recipe", choices=("SGD", "Adam", "AdamW"))
    patience: int = flag(
        100, "epochs without a better fitness before stopping; 0 never stops", group="Recipe", at_least=0
    )
    seed: int = flag(0, "seed of every random choice", group="Recipe", at_least=0, at_most=LARGEST_SEED)
    noautoanchor: bool = flag(False, "do not check and re-fit anchors", group="Recipe")
    precision: str = flag(
        "auto",
        "arithmetic: auto is fp16 on CUDA, fp32 on CPU",
        group="Recipe",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    resume: bool | str = flag(
        False, "continue the newest run, or that of the given last.pt", group="Run", lone_value=True
    )
    project: str = flag("runs/train", "folder of runs", group="Run")
    name: str = flag("exp", "name of this run's folder", group="Run")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Run")
    nosave: bool = flag(False, "write checkpoints only after the last epoch", group="Run")
    noval: bool = flag(False, "evaluate only after the last epoch", group="Run")
    noplots: bool = flag(False, "draw no pictures", group="Run")


@dataclass(frozen=True, slots=True, kw_only=True)
class ValConfig:
    """Settings of ``val.py``."""

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    weights: str = flag("yolov5s.pt", "model file: .pt, .torchscript, .onnx", group="Model")
    batch_size: int = flag(32, "pictures per batch", group="Data", at_least=1, at_most=LARGEST_BATCH)
    imgsz: int = flag(
        640, "picture size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE
    )
    task: str = flag("val", "which split of the dataset to evaluate on", group="Data", choices=("train", "val", "test"))
    workers: int = flag(8, "processes that load pictures; 0 loads in the main process", group="Data", at_least=0)
    single_cls: bool = flag(False, "evaluate all classes as one", group="Data")

    conf_thres: float = flag(0.001, "lowest score of a detection", group="Detections", at_least=0, at_most=1)
    iou_thres: float = flag(
        0.6, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(300, "most detections per picture", group="Detections", at_least=1, at_most=MOST_DETECTIONS)

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    half: bool = flag(False, "compute the network in half precision (fp16)", group="Run")
    as_yolov5: bool = flag(
        False, "round as YOLOv5's own validation does, for figures that compare with its own", group="Run"
    )
    verbose: bool = flag(False, "print the figures of every class", group="Output")
    save_txt: bool = flag(False, "write detections as YOLO label files", group="Output")
    save_conf: bool = flag(False, "append the score to the rows of --save-txt", group="Output")
    save_json: bool = flag(False, "write detections as COCO results JSON", group="Output")
    project: str = flag("runs/val", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """Settings of ``detect.py``."""

    weights: str = flag("yolov5s.pt", "model file: .pt, .torchscript, .onnx", group="Model")
    source: str = flag("data/images", "picture, video, folder, glob, or text list of them", group="Data")
    data: str = flag("data/coco128.yaml", "dataset YAML that names the classes of a file without names", group="Data")
    imgsz: tuple[int, ...] = flag(
        (640,),
        "picture size, pixels: one side or height width",
        group="Data",
        aliases=IMGSZ_ALIASES,
        at_least=32,
        at_most=LONGEST_SIDE,
        max_values=2,
    )
    vid_stride: int = flag(1, "take every n-th frame of a video", group="Data", at_least=1)

    conf_thres: float = flag(0.25, "lowest score of a detection", group="Detections", at_least=0, at_most=1)
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(1000, "most detections per picture", group="Detections", at_least=1, at_most=MOST_DETECTIONS)
    classes: tuple[int, ...] | None = flag(None, "keep these class ids only", group="Detections", at_least=0)
    agnostic_nms: bool = flag(False, "suppress across classes", group="Detections")

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    save_txt: bool = flag(False, "write detections as YOLO label files", group="Output")
    save_conf: bool = flag(False, "append the score to the rows of --save-txt", group="Output")
    save_crop: bool = flag(False, "write every detection as a picture of its own", group="Output")
    nosave: bool = flag(False, "write no annotated pictures", group="Output")
    line_thickness: int = flag(3, "line width of boxes, pixels", group="Output", at_least=1, at_most=100)
    hide_labels: bool = flag(False, "draw boxes without class names", group="Output")
    hide_conf: bool = flag(False, "draw labels without scores", group="Output")
    project: str = flag("runs/detect", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Settings of ``export.py``."""

    weights: str = flag("yolov5s.pt", "model file (.pt)", group="Model")
    include: tuple[str, ...] = flag(("torchscript",), "formats to write: torchscript onnx openvino", group="Output")
    imgsz: tuple[int, ...] = flag(
        (640, 640),
        "input size, pixels: one side or height width",
        group="Model",
        aliases=IMGSZ_ALIASES,
        at_least=32,
        at_most=LONGEST_SIDE,
        max_values=2,
    )
    batch_size: int = flag(1, "pictures per batch", group="Model", at_least=1, at_most=LARGEST_BATCH)
    device: str = flag("cpu", "cpu, 0, cuda:0", group="Run")
    dynamic: bool = flag(False, "let batch, height and width of the exported input vary", group="Output")
    simplify: bool = flag(False, "simplify the ONNX graph", group="Output")
    opset: int = flag(17, "ONNX operator set", group="Output", at_least=11, at_most=23)


def square_or_rectangle(imgsz: tuple[int, ...]) -> tuple[int, int]:
    """``(height, width)`` of an ``--imgsz`` that names one side or both."""
    if len(imgsz) not in (1, 2):
        raise UsageError(f"--imgsz {' '.join(map(str, imgsz))}: takes one side or height and width")
    return imgsz[0], imgsz[-1]
