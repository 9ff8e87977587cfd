"""Settings of each verb: flags with YOLOv5's names, meanings and defaults. Read once, checked, frozen."""

from __future__ import annotations

from dataclasses import dataclass

from utils.config import detector_flags
from utils.config.command_line import flag
from utils.user_error import UsageError

IMGSZ_ALIASES = ("--img", "--img-size")
QUAD = 4  # images that --quad puts into one image
# Above these a value is a slip of the finger; refused at once rather than by running out of memory hours later.
LONGEST_SIDE = 8192  # pixels
SMALLEST_TILE = 32  # pixels
LARGEST_BATCH = 65_536
MOST_DETECTIONS = 30_000  # per image: what suppression looks at
MOST_EPOCHS = 1_000_000
LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Settings that every training run has, whatever is learned."""

    imgsz: int = flag(640, "image size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE)
    batch_size: int = flag(
        16,
        "images per batch over all processes; -1 takes what the GPU holds",
        group="Data",
        at_least=-1,
        at_most=LARGEST_BATCH,
    )
    workers: int = flag(
        8,
        "processes that load what is learned from, threads that load what is evaluated on; 0 for none",
        group="Data",
        at_least=0,
    )

    epochs: int = flag(100, "epochs; 0 only writes the start weights", group="Recipe", at_least=0, at_most=MOST_EPOCHS)
    patience: int = flag(
        100, "epochs without a better fitness before stopping; 0 never stops", group="Recipe", at_least=0
    )
    seed: int = flag(0, "seed of every random choice", group="Recipe", at_least=0, at_most=LARGEST_SEED)
    precision: str = flag(
        "auto",
        "arithmetic: auto is fp16 on CUDA, fp32 on CPU",
        group="Recipe",
        choices=("auto", "fp32", "bf16", "fp16"),
    )

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    sync_bn: bool = flag(False, "batch norm over the images of all processes (CUDA, torchrun)", group="Run")
    local_rank: int = flag(
        -1,
        "place among this machine's processes, as older launchers pass it; torchrun needs none",
        group="Run",
        at_least=-1,
    )
    resume: bool | str = flag(
        False, "continue the newest run, or that of the given last.pt", group="Run", lone_value=True
    )
    noval: bool = flag(False, "evaluate only after the last epoch", group="Run")

    project: str = flag("runs/train", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")
    nosave: bool = flag(False, "write checkpoints only after the last epoch", group="Output")
    save_period: int = flag(
        -1, "also keep the weights of every n-th epoch, as weights/epochN.pt; below 1 none", group="Output", at_least=-1
    )
    noplots: bool = flag(False, "draw no images", group="Output")
    loggers: tuple[str, ...] | None = flag(
        None,
        "where figures go besides results.csv: tensorboard mlflow none; left out, TensorBoard if it is installed",
        group="Output",
        choices=("tensorboard", "mlflow", "none"),
    )

    @property
    def images_per_step(self) -> int:
        """Images per batch over all processes."""
        return self.batch_size


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(RunConfig):
    """Settings of ``train.py``."""

    weights: str = flag("yolov5s.pt", "weights to start from; '' starts from random ones", group="Model")
    cfg: str = flag("", "architecture YAML; '' takes the architecture of --weights", group="Model")

    freeze: tuple[str, ...] = flag(
        ("0",),
        "layers whose parameters stay: a number freezes the first so many; several numbers, or names, those layers",
        group="Model",
    )
    noautoanchor: bool = flag(False, "do not check and re-fit anchors", group="Model")

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    tile: int | None = flag(
        None,
        "learn from overlapping windows of so many pixels and validate in tiles; 0: not even where the YAML says so",
        group="Data",
        lone_value=640,
        at_least=0,
        at_most=LONGEST_SIDE,
    )
    cache: str | None = flag(
        None,
        "keep decoded images: in memory (ram, also when the value is left out), in one file (disk), or not (none); "
        "without the flag, training images that take up to 64 MiB are kept in memory",
        group="Data",
        choices=("ram", "disk", "none"),
        lone_value="ram",
    )
    single_cls: bool = flag(False, "train all classes as one", group="Data")
    rect: bool = flag(
        False, "batches of images of like shape, padded no further than to a rectangle; no mosaic", group="Data"
    )
    image_weights: bool = flag(
        False, "draw images by how badly their classes were found in the last evaluation", group="Data"
    )
    quad: bool = flag(False, "four images, or one enlarged, per image of twice the size", group="Data")
    multi_scale: bool = flag(False, "vary the image size by half from batch to batch", group="Data")

    hyp: str = flag("data/hyps/hyp.scratch-low.yaml", "hyperparameter YAML", group="Recipe")
    optimizer: str = flag("SGD", "optimizer", group="Recipe", choices=("SGD", "Adam", "AdamW"))
    cos_lr: bool = flag(False, "learning rate along a cosine instead of a line", group="Recipe")
    label_smoothing: float = flag(
        0.0,
        "epsilon of smoothed class targets; above 0 it replaces that of the hyp YAML",
        group="Recipe",
        at_least=0,
        at_most=0.5,
    )

    evolve: int | None = flag(
        None, "search hyperparameters until so many trials are finished", group="Search", lone_value=300, at_least=1
    )
    evolve_population: str = flag("", "folder of hyp YAMLs to try first", group="Search")
    resume_evolve: str = flag("", "go on with, or join, the study of this folder (or study.db)", group="Search")

    def __post_init__(self) -> None:
        if self.batch_size == 0:
            raise UsageError("--batch-size 0: must be at least 1, or -1 for what the GPU holds")
        if self.evolve is None and (self.evolve_population or self.resume_evolve):
            raise UsageError("--evolve-population and --resume-evolve: belong to --evolve N")
        if self.evolve_population and self.resume_evolve:
            raise UsageError("--evolve-population: is read when a study begins; leave it out with --resume-evolve")
        if self.evolve is not None and self.resume:
            raise UsageError("--resume --evolve: to go on with a study use --resume-evolve FOLDER")
        if self.tile is not None and 0 < self.tile < SMALLEST_TILE:
            raise UsageError(f"--tile {self.tile}: must be at least {SMALLEST_TILE}, or 0 for whole images")
        if self.rect and self.image_weights:
            raise UsageError("--rect --image-weights: one fixes the order by shape, the other draws it; leave one out")
        if self.quad and self.batch_size % QUAD and self.batch_size != -1:
            raise UsageError(f"--quad --batch-size {self.batch_size}: must be a multiple of {QUAD}")

    @property
    def images_per_step(self) -> int:
        return self.batch_size // QUAD if self.quad else self.batch_size


# Flags of YOLOv5's train.py that belong to services, and what does the same here.
REFUSED_TRAIN_FLAGS = {
    "--bucket": "there is no upload to a cloud bucket; copy the run's folder with the bucket's own tool (gsutil cp -r)",
    "--entity": "there is no W&B logger; figures go to TensorBoard or MLflow (--loggers)",
    "--upload-dataset": "data sets are not uploaded; use `wandb artifact put FOLDER`",
    "--bbox-interval": "no boxes go to W&B; every run draws them to val_batch*.jpg (without --noplots)",
    "--artifact-alias": "name the data set's YAML with --data; `wandb artifact get NAME:ALIAS` fetches an artifact",
    "--ndjson-console": "the figures of every epoch are in the run's results.csv",
    "--ndjson-file": "the figures of every epoch are in the run's results.csv",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ValConfig:
    """Settings of ``val.py``."""

    data: str = flag("data/coco128.yaml", "dataset YAML", group="Data")
    weights: tuple[str, ...] = flag(
        ("yolov5s.pt",),
        "model file: .pt, .torchscript, .onnx, .engine, *_openvino_model; several are asked together, as an ensemble",
        group="Model",
    )
    batch_size: int = flag(32, "images per batch", group="Data", at_least=1, at_most=LARGEST_BATCH)
    imgsz: int = flag(640, "image size, pixels", group="Data", aliases=IMGSZ_ALIASES, at_least=32, at_most=LONGEST_SIDE)
    square: bool = flag(
        False, "every image in the whole square of --img, as an exported file of fixed size sees it", group="Data"
    )
    task: str = flag(
        "val",
        "part of the data set to evaluate on; or speed: times with detect.py's thresholds; "
        "or study: figures and times over image sizes",
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
    workers: int = flag(8, "threads that load images; 0 loads between the batches", group="Data", at_least=0)
    single_cls: bool = flag(False, "evaluate all classes as one", group="Data")

    conf_thres: float = flag(0.001, "lowest score of a detection", group="Detections", at_least=0, at_most=1)
    iou_thres: float = flag(
        0.6, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(300, "most detections per image", group="Detections", at_least=1, at_most=MOST_DETECTIONS)
    augment: bool = detector_flags.augment()
    slice: int | None = detector_flags.tile_size()
    slice_overlap: float = detector_flags.tile_overlap()
    slice_merge: str = detector_flags.tile_merge()

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    dnn: bool = detector_flags.dnn()
    precision: str = detector_flags.precision()
    half: bool = detector_flags.half()
    as_yolov5: bool = flag(
        False, "round as YOLOv5's own validation does, for figures that compare with its own", group="Run"
    )
    verbose: bool = flag(False, "print the figures of every class", group="Output")
    area_ranges: tuple[str, ...] | None = flag(
        None,
        "more object sizes to give AP for, name:from-to in square pixels, or the preset ai-tod",
        group="Output",
    )
    compare: bool = flag(
        False, "several --weights beside each other instead of together, with confidence intervals", group="Output"
    )
    save_txt: bool = flag(False, "write detections as YOLO label files", group="Output")
    save_hybrid: bool = flag(
        False, "write labels and detections, suppressed together, as YOLO label files", group="Output"
    )
    save_conf: bool = flag(False, "append the score to the rows of --save-txt", group="Output")
    save_json: bool = flag(False, "write detections as COCO results JSON", group="Output")
    project: str = flag("runs/val", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")

    def __post_init__(self) -> None:
        detector_flags.check_arithmetic(self.half, self.precision)
        if self.compare and len(self.weights) < 2:
            raise UsageError("--compare: needs several files, --weights n.pt s.pt")
        if self.compare and self.task in ("speed", "study"):
            raise UsageError(f"--compare --task {self.task}: compares on train, val or test")
        if self.slice is not None and (self.save_hybrid or self.as_yolov5 or self.square):
            raise UsageError("--slice: does not go with --save-hybrid, --as-yolov5 or --square")


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectConfig:
    """Settings of ``detect.py``."""

    weights: tuple[str, ...] = flag(
        ("yolov5s.pt",),
        "model file: .pt or exported; several are asked together, as an ensemble",
        group="Model",
    )
    source: str = flag(
        "data/images",
        "image, video, folder, glob, or .txt list of them; - for a list on standard input; address of a file or a "
        "stream (rtsp:// http://); number of a camera; .streams list of those; screen [number] [left top width height]",
        group="Data",
    )
    data: str = flag("data/coco128.yaml", "dataset YAML that names the classes of a file without names", group="Data")
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

    conf_thres: float = flag(0.25, "lowest score of a detection", group="Detections", at_least=0, at_most=1)
    iou_thres: float = flag(
        0.45, "IoU above which the lower-scored box is dropped", group="Detections", at_least=0, at_most=1
    )
    max_det: int = flag(1000, "most detections per image", group="Detections", at_least=1, at_most=MOST_DETECTIONS)
    classes: tuple[int, ...] | None = flag(None, "keep these class ids only", group="Detections", at_least=0)
    agnostic_nms: bool = flag(False, "suppress across classes", group="Detections")
    augment: bool = detector_flags.augment()
    slice: int | None = detector_flags.tile_size()
    slice_overlap: float = detector_flags.tile_overlap()
    slice_merge: str = detector_flags.tile_merge()

    device: str = flag("", "cpu, 0, cuda:0; '' takes the first GPU, else the CPU", group="Run")
    precision: str = detector_flags.precision()
    half: bool = detector_flags.half()
    dnn: bool = detector_flags.dnn()
    update: bool = flag(
        False, "afterwards write the .pt file anew, weights only, as this program's own checkpoint", group="Run"
    )

    view_img: bool = flag(False, "show the annotated images in a window; q ends", group="Output")
    save_txt: bool = flag(False, "write detections as label files, labels/*.txt", group="Output")
    save_format: int = flag(
        0,
        "rows of --save-txt, as parts of width and height: 0 centre and size (YOLO), 1 corners (Pascal VOC's order)",
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
    save_crop: bool = flag(False, "write every detection as an image of its own, crops/CLASS/*.jpg", group="Output")
    nosave: bool = flag(False, "write no annotated images or videos", group="Output")
    visualize: bool = flag(False, "draw and write the feature maps of each layer (.pt files)", group="Output")
    line_thickness: int | None = flag(
        None,
        "line width of boxes, pixels; left out, from the sizes of image and box",
        group="Output",
        at_least=1,
        at_most=100,
    )
    hide_labels: bool = flag(False, "draw boxes without class names", group="Output")
    hide_conf: bool = flag(False, "draw labels without scores", group="Output")
    project: str = flag("runs/detect", "folder of runs", group="Output")
    name: str = flag("exp", "name of this run's folder", group="Output")
    exist_ok: bool = flag(False, "use the folder even if it is there", group="Output")

    def __post_init__(self) -> None:
        detector_flags.check_arithmetic(self.half, self.precision)
        if self.visualize and (self.augment or self.slice is not None or len(self.weights) > 1):
            raise UsageError("--visualize: shows one network on whole images; leave out --augment and --slice")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Settings of ``export.py``."""

    weights: str = flag("yolov5s.pt", "model file (.pt)", group="Model")
    include: tuple[str, ...] = flag(("torchscript",), "formats: torchscript onnx openvino engine", group="Output")
    imgsz: tuple[int, ...] = flag(
        (640, 640),
        "input size, pixels: one side or height width",
        group="Model",
        aliases=IMGSZ_ALIASES,
        at_least=32,
        at_most=LONGEST_SIDE,
        max_values=2,
    )
    batch_size: int = flag(1, "images per batch", group="Model", at_least=1, at_most=LARGEST_BATCH)
    device: str = flag("cpu", "cpu, 0, cuda:0", group="Run")
    dynamic: bool = flag(False, "let batch, height and width of the exported input vary", group="Output")
    simplify: bool = flag(False, "simplify the ONNX graph", group="Output")
    opset: int | None = flag(
        None, "ONNX operator set; without it 17, or 18 where a graph needs it", group="Output", at_least=11, at_most=23
    )


def square_or_rectangle(imgsz: tuple[int, ...]) -> tuple[int, int]:
    """``(height, width)`` of an ``--imgsz`` that names one side or both."""
    if len(imgsz) not in (1, 2):
        raise UsageError(f"--imgsz {' '.join(map(str, imgsz))}: takes one side or height and width")
    return imgsz[0], imgsz[-1]
